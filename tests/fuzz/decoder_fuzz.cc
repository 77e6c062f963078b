// Any bytes are an event, or poison with a reason; within the limits either way, and never anything else.
//
// One target a format (FRESHET_FUZZ_FORMAT). An input is: role and header mode (one byte), the key's length (one byte),
// the key, the value. Avro and Confluent have a registry in process.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "freshet/core/strings.h"
#include "freshet/ingest/decoder.h"

namespace freshet {
namespace {

using namespace std::string_view_literals;

#define FUZZ_CHECK(condition)                                               \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::fprintf(stderr, "%d: %s does not hold\n", __LINE__, #condition); \
      std::abort();                                                         \
    }                                                                       \
  } while (false)

constexpr const char* kAvro = R"({"type": "record", "name": "Item", "namespace": "f", "fields": [
  {"name": "category", "type": ["null", "string"]},
  {"name": "tags", "type": {"type": "array", "items": "string"}},
  {"name": "features", "type": {"type": "map", "values": ["null", "double", "boolean", "string"]}},
  {"name": "attributes", "type": {"type": "map", "values": ["long", "float", "int",
     {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, {"type": "fixed", "name": "F", "size": 3}]}},
  {"name": "user_id", "type": {"type": "enum", "name": "E", "symbols": ["a", "b"]}},
  {"name": "item_id", "type": "bytes"},
  {"name": "next", "type": ["null", "Item"]},
  {"name": "nothing", "type": {"type": "array", "items": "null"}}]})";
constexpr const char* kProto = R"(syntax = "proto2"; package f;
  message A { optional string category = 1; repeated string tags = 2; map<int64, A> features = 3; optional bytes raw = 4;
              message B { required string item_id = 1; optional group G = 2 { optional double value = 1; } } })";

class FixedRegistry final : public SchemaRegistry {
 public:
  Result<RegisteredSchema> Fetch(std::uint32_t id) override {
    switch (id) {
      case 1:
        return RegisteredSchema{RegisteredSchema::Type::kAvro, {{"s", kAvro}}};
      case 2:
        return RegisteredSchema{RegisteredSchema::Type::kJson, {{"s", "{}"}}};
      case 3:
        return RegisteredSchema{RegisteredSchema::Type::kProtobuf, {{"s", kProto}}};
      case 4:
        return RegisteredSchema{RegisteredSchema::Type::kAvro, {{"s", "\"long\""}}};
      default:
        return NotFound("unknown");
    }
  }
};

struct Target {
  std::unique_ptr<EventDecoder> decoders[3];
  FixedRegistry registry;
};

const Target& TheTarget() {
  static const auto* target = [] {
    auto* made = new Target;
    FormatOptions format;
    format.format = RecordFormat::FRESHET_FUZZ_FORMAT;
    format.registry = &made->registry;
    for (const TopicRole role : {TopicRole::kItems, TopicRole::kInteractions, TopicRole::kUsers}) {
      SchemaMap schema = DefaultSchema(role);
      schema.timestamp_format = TimestampFormat::kRfc3339;
      schema.attribute_types["year"] = AttributeType::kInt;
      auto decoder = MakeDecoder(role, format, schema, {});
      FUZZ_CHECK(decoder.ok());
      made->decoders[static_cast<int>(role)] = std::move(*decoder);
    }
    return made;
  }();
  return *target;
}

template <typename Entries>
void CheckSorted(const Entries& entries, std::size_t limit) {
  FUZZ_CHECK(entries.size() <= limit);
  for (std::size_t i = 1; i < entries.size(); ++i) FUZZ_CHECK(entries[i - 1].first < entries[i].first);
}

void Check(const Event& event) {
  const DecodeLimits limits;
  if (const auto* item = std::get_if<ItemUpdate>(&event.body)) {
    FUZZ_CHECK(IsValidId(item->item_id));
    CheckSorted(item->features, limits.max_features);
    CheckSorted(item->attributes, limits.max_attributes);
    for (const float number : item->vector) FUZZ_CHECK(std::isfinite(number));
  } else if (const auto* user = std::get_if<UserUpdate>(&event.body)) {
    FUZZ_CHECK(IsValidId(user->user_id));
    CheckSorted(user->features, limits.max_features);
  } else if (const auto* action = std::get_if<Interaction>(&event.body)) {
    FUZZ_CHECK(IsValidId(action->item_id) && IsValidId(action->user_id) && !action->event.empty());
    FUZZ_CHECK(std::isfinite(action->value) && action->timestamp_ms >= 0);
  }
}

void Run(std::string_view input) {
  if (input.size() < 2) return;
  const auto mode = static_cast<unsigned char>(input[0]);
  const std::size_t key_size = std::min<std::size_t>(static_cast<unsigned char>(input[1]), input.size() - 2);
  RawRecord record;
  record.topic = "t";
  record.timestamp_ms = 1234;
  record.key = input.substr(2, key_size);
  std::string value(input.substr(2 + key_size));
#ifdef FRESHET_FUZZ_AVRO
  value.insert(0, "\0\0\0\0\1"sv);
#endif
  record.value = value;
  if ((mode & 4) != 0) record.headers = {{"content-type", "application/cloudevents+json"}};
  if ((mode & 8) != 0) {
    record.headers = {
        {"ce_specversion", "1.0"}, {"ce_type", "t"}, {"ce_source", "s"}, {"ce_id", "1"}, {"ce_time", *record.key}};
  }
  if ((mode & 16) != 0) record.key.reset();
  Event event;
  const Status status = TheTarget().decoders[(mode & 3) % 3]->Decode(record, &event);
  if (status.ok()) {
    Check(event);
  } else {
    FUZZ_CHECK(status.code() == Code::kInvalidArgument && !status.message().empty());
  }
}

}  // namespace
}  // namespace freshet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  freshet::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
