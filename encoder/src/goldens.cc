#include "goldens.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "model_manifest.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxGoldens = 1000;

void WriteVector(const std::vector<float>& vector, JsonWriter* out) {
  out->Key("vector").BeginArray();
  for (const float x : vector) out->Double(static_cast<double>(x));
  out->EndArray();
}

Result<std::string> ReadText(const JsonValue& object, const char* key) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr || !value->IsString()) return Corruption(StrCat("`", key, "` must be text"));
  return std::string(JsonText(*value));
}

Result<double> ReadNumber(const JsonValue& object, const char* key) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr || !value->IsNumber()) return Corruption(StrCat("`", key, "` must be a number"));
  return value->GetDouble();
}

Result<std::vector<float>> ReadVector(const JsonValue& object, int dim) {
  const JsonValue* value = JsonFind(object, "vector");
  if (value == nullptr || !value->IsArray() || value->Size() != static_cast<unsigned>(dim)) {
    return Corruption(StrCat("`vector` must be a list of ", dim, " numbers"));
  }
  std::vector<float> vector;
  for (const JsonValue& x : value->GetArray()) {
    if (!x.IsNumber() || std::abs(x.GetDouble()) > static_cast<double>(std::numeric_limits<float>::max())) {
      return Corruption("`vector` holds something that is not a finite float");
    }
    vector.push_back(static_cast<float>(x.GetDouble()));
  }
  return vector;
}

Result<Features> ReadFeatures(const JsonValue& object) {
  const JsonValue* value = JsonFind(object, "features");
  Features features;
  if (value == nullptr) return features;
  if (!value->IsObject()) return Corruption("`features` must be an object");
  for (const auto& member : value->GetObject()) {
    std::string name(JsonText(member.name));
    if (member.value.IsNumber()) {
      features.emplace_back(std::move(name), member.value.GetDouble());
    } else if (member.value.IsString()) {
      features.emplace_back(std::move(name), std::string(JsonText(member.value)));
    } else if (member.value.IsArray()) {
      std::vector<std::string> parts;
      for (const JsonValue& part : member.value.GetArray()) {
        if (!part.IsString()) return Corruption(StrCat("feature `", name, "` must be a list of texts"));
        parts.emplace_back(JsonText(part));
      }
      features.emplace_back(std::move(name), std::move(parts));
    } else {
      return Corruption(StrCat("feature `", name, "` must be a number, a text or a list of texts"));
    }
  }
  std::sort(features.begin(), features.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return features;
}

Status ReadItem(const JsonValue& entry, int dim, Goldens* goldens) {
  ItemUpdate item;
  FRESHET_ASSIGN(item.item_id, ReadText(entry, "item_id"));
  FRESHET_ASSIGN(item.features, ReadFeatures(entry));
  FRESHET_ASSIGN(item.vector, ReadVector(entry, dim));
  goldens->items.push_back(std::move(item));
  return Status::Ok();
}

Status ReadUser(const JsonValue& entry, int dim, Goldens* goldens) {
  UserContext user;
  FRESHET_ASSIGN(user.user_id, ReadText(entry, "user_id"));
  FRESHET_ASSIGN(user.features, ReadFeatures(entry));
  const JsonValue* history = JsonFind(entry, "history");
  if (history == nullptr || !history->IsArray()) return Corruption("`history` must be a list");
  for (const JsonValue& event : history->GetArray()) {
    HistoryEntry& one = user.history.emplace_back();
    FRESHET_ASSIGN(one.item_id, ReadText(event, "item_id"));
    FRESHET_ASSIGN(one.event, ReadText(event, "event"));
    FRESHET_ASSIGN(one.value, ReadNumber(event, "value"));
    FRESHET_ASSIGN(const double timestamp, ReadNumber(event, "timestamp"));
    if (std::abs(timestamp) > 9e15) return Corruption("`timestamp` is out of range");
    one.timestamp_ms = static_cast<std::int64_t>(timestamp);
  }
  FRESHET_ASSIGN(std::vector<float> vector, ReadVector(entry, dim));
  goldens->users.push_back(std::move(user));
  goldens->user_vectors.push_back(std::move(vector));
  return Status::Ok();
}

// Too little memory says nothing of the model.
Status NotAnswered(std::string_view where, const Status& status) {
  if (status.category() == Category::kTransient) return status.Prefixed(where);
  return Corruption(StrCat(where, ": ", status.message()));
}

Status Compare(const std::string& what, const Goldens& goldens, Metric metric, std::vector<float> wanted,
               std::span<const float> got) {
  const std::string where = StrCat(kGoldensFile, ": ", what, ": ");
  if (const Status status = PrepareVector(metric, static_cast<int>(got.size()), wanted); !status.ok()) {
    return Corruption(where + status.message());
  }
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(wanted[i]) - static_cast<double>(got[i])));
  }
  if (worst <= goldens.tolerance) return Status::Ok();
  return Corruption(StrCat(where, "the tower's answer is off by ", worst, " (tolerance ", goldens.tolerance, ")"));
}

}  // namespace

std::string GoldensToJson(const Goldens& goldens) {
  JsonWriter out;
  out.BeginObject().Key("tolerance").Double(goldens.tolerance).Key("items").BeginArray();
  for (const ItemUpdate& item : goldens.items) {
    out.BeginObject().Key("item_id").String(item.item_id);
    out.Key("features").Raw(FeaturesToJson(item.features));
    WriteVector(item.vector, &out);
    out.EndObject();
  }
  out.EndArray().Key("users").BeginArray();
  for (std::size_t i = 0; i < goldens.users.size(); ++i) {
    const UserContext& user = goldens.users[i];
    out.BeginObject().Key("user_id").String(user.user_id);
    out.Key("features").Raw(FeaturesToJson(user.features));
    out.Key("history").BeginArray();
    for (const HistoryEntry& event : user.history) {
      out.BeginObject().Key("item_id").String(event.item_id).Key("event").String(event.event);
      out.Key("value").Double(event.value).Key("timestamp").Int(event.timestamp_ms).EndObject();
    }
    out.EndArray();
    WriteVector(goldens.user_vectors[i], &out);
    out.EndObject();
  }
  out.EndArray().EndObject();
  return out.Take();
}

Result<Goldens> GoldensFromJson(const std::string& text, int dim) {
  const auto parsed = ParseJson(text);
  if (!parsed.ok()) return Corruption(StrCat(kGoldensFile, ": ", parsed.status().message()));
  const JsonValue& root = **parsed;
  Goldens goldens;
  const Result<double> tolerance = ReadNumber(root, "tolerance");
  if (!tolerance.ok() || *tolerance <= 0 || *tolerance > 0.01) {
    return Corruption(StrCat(kGoldensFile, ": `tolerance` must be above 0 and at most 0.01"));
  }
  goldens.tolerance = *tolerance;
  for (const char* key : {"items", "users"}) {
    const JsonValue* list = JsonFind(root, key);
    if (list == nullptr || !list->IsArray() || list->Empty() || list->Size() > kMaxGoldens) {
      return Corruption(StrCat(kGoldensFile, ": `", key, "` must be a list of 1 to ", kMaxGoldens));
    }
    for (const JsonValue& entry : list->GetArray()) {
      const Status status =
          std::string_view(key) == "items" ? ReadItem(entry, dim, &goldens) : ReadUser(entry, dim, &goldens);
      if (!status.ok()) return status.Prefixed(StrCat(kGoldensFile, ": ", key));
    }
  }
  return goldens;
}

Status CheckGoldens(const Goldens& goldens, Metric metric, ItemEncoder* encoder) {
  const auto dim = static_cast<std::size_t>(encoder->dim());
  std::vector<const ItemUpdate*> items;
  for (const ItemUpdate& item : goldens.items) items.push_back(&item);
  std::vector<float> out(items.size() * dim);
  // All in one batch: rows must not depend on their neighbours, so each must equal what was computed when it was
  // written.
  if (const Status status = encoder->Encode(items, out); !status.ok()) {
    return NotAnswered(kGoldensFile, status);
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    FRESHET_TRY(Compare(StrCat("item `", items[i]->item_id, "`"), goldens, metric, items[i]->vector,
                        std::span(out).subspan(i * dim, dim)));
  }
  return Status::Ok();
}

Status CheckGoldens(const Goldens& goldens, Metric metric, const UserEncoder& encoder) {
  std::vector<float> out(static_cast<std::size_t>(encoder.dim()));
  for (std::size_t i = 0; i < goldens.users.size(); ++i) {
    const std::string what = StrCat("user `", goldens.users[i].user_id, "`");
    if (const Status status = encoder.Encode(goldens.users[i], out); !status.ok()) {
      return NotAnswered(StrCat(kGoldensFile, ": ", what), status);
    }
    FRESHET_TRY(Compare(what, goldens, metric, goldens.user_vectors[i], out));
  }
  return Status::Ok();
}

}  // namespace freshet
