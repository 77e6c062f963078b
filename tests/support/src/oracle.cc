#include "freshet_test/oracle.h"

#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet::test {
namespace {

std::string ValueOf(const Oracle::Item& item) {
  JsonWriter out;
  out.BeginObject().Key("features").BeginObject().Key("price").Double(1.5).EndObject();
  out.Key("attributes").BeginObject().Key("title").String(item.title).EndObject();
  out.Key("vector").BeginArray();
  for (const float x : item.vector) out.Double(x);
  return out.EndArray().EndObject().Take();
}

}  // namespace

OutRecord ItemStream::Next(Oracle* oracle) {
  ++count_;
  const auto roll = random_() % 100;
  if (roll < 5 && last_) {  // the producer sends the same once more
    oracle->Apply(last_->first, last_->second, false);
    return last_->first;
  }
  OutRecord record;
  record.topic = topic_;
  record.key = StrCat("item-", random_() % static_cast<std::uint64_t>(ids_));
  if (roll < 13) {  // poison of every kind
    switch (random_() % (null_keys_ ? 5 : 4)) {
      case 0:
        record.value = "";
        break;
      case 1:
        record.value = "{not json";
        break;
      case 2:
        record.value = R"({"vector": [1, 2]})";  // wrong dimension
        break;
      case 3:
        record.value = R"({"tags": 7, "vector": null})";
        break;
      default:
        record.key.reset();
        record.value = "{}";
    }
    oracle->Apply(record, std::nullopt, true);
    return record;
  }
  std::optional<Oracle::Item> item;
  if (roll >= 35) {
    item.emplace();
    item->title = StrCat("version ", count_);
    std::normal_distribution<float> normal;
    for (int i = 0; i < dim_; ++i) item->vector.push_back(normal(random_));
    record.value = ValueOf(*item);
  }
  oracle->Apply(record, item, false);
  last_ = {record, item};
  return record;
}

}  // namespace freshet::test
