// One decoder a topic: wire format, envelope, schema map.
#include <memory>
#include <optional>
#include <string>

#include "envelopes.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/decoder.h"
#include "schema_mapper.h"

namespace freshet {
namespace {

class TextKeys final : public KeyReader {
 public:
  Result<std::string> Id(const RawRecord& record, const std::optional<SchemaPart>&) const override {
    if (!record.key || !IsValidId(*record.key)) {
      return InvalidArgument(StrCat("the key is not an id of 1 to ", kMaxIdBytes, " bytes of UTF-8"));
    }
    return std::string(*record.key);
  }
};

class JsonKeys final : public KeyReader {
 public:
  explicit JsonKeys(const DecodeLimits& limits) : limits_(limits) {}

  Result<std::string> Id(const RawRecord& record, const std::optional<SchemaPart>& id) const override {
    if (!record.key) return InvalidArgument("the key is null; it must be the id");
    if (record.key->size() > limits_.max_value_bytes) {
      return InvalidArgument(StrCat("the key is longer than ", limits_.max_value_bytes, " bytes"));
    }
    const auto document = ParseJson(*record.key, limits_.max_depth);
    if (!document.ok()) return document.status().Prefixed("the key");
    const JsonValue& key = WithoutConnectSchema(**document);
    if (!key.IsObject()) return ToId(key, "the key");
    if (const JsonValue* found = GetPart(id, key)) return ToId(*found, StrCat("the key's ", id->text));
    if (id) return InvalidArgument(StrCat("the key has no ", id->text, ", where the schema says that the id is"));
    if (key.MemberCount() != 1) {
      return InvalidArgument(StrCat("the key has ", key.MemberCount(), " members, of which none is named as the id"));
    }
    return ToId(key.MemberBegin()->value, "the key's only member");
  }

 private:
  const DecodeLimits limits_;
};

class TopicDecoder final : public EventDecoder {
 public:
  TopicDecoder(RecordFormat format, std::unique_ptr<SchemaMapper> mapper)
      : format_(format), mapper_(std::move(mapper)) {}

  Status Decode(const RawRecord& record, Event* event) const override {
    FRESHET_ASSIGN(const Unwrapped unwrapped, Unwrap(record));
    return mapper_->Map(record, unwrapped, event);
  }

 private:
  Result<Unwrapped> Unwrap(const RawRecord& record) const {
    Unwrapped unwrapped;
    if (!record.value) {
      unwrapped.kind = Unwrapped::Kind::kDelete;
      return unwrapped;
    }
    FRESHET_ASSIGN(std::unique_ptr<JsonDocument> document, Parse(*record.value));
    if (format_ == RecordFormat::kDebezium) return UnwrapDebezium(std::move(document));
    const CloudEventMode mode = RecogniseCloudEvent(record);
    if (mode == CloudEventMode::kStructured ||
        (mode == CloudEventMode::kNone && format_ == RecordFormat::kCloudEvents)) {
      return UnwrapStructuredCloudEvent(record, std::move(document), mapper_->limits());
    }
    if (mode == CloudEventMode::kBinary) FRESHET_TRY(CheckBinaryCloudEvent(record, &unwrapped));
    unwrapped.document = std::move(document);
    unwrapped.row = unwrapped.document.get();
    return unwrapped;
  }

  Result<std::unique_ptr<JsonDocument>> Parse(std::string_view value) const {
    const DecodeLimits& limits = mapper_->limits();
    if (value.empty()) return InvalidArgument("the value is empty; a delete has a null value");
    if (value.size() > limits.max_value_bytes) {
      return InvalidArgument(StrCat("the value has ", value.size(), " bytes; the limit is ", limits.max_value_bytes));
    }
    FRESHET_ASSIGN(std::unique_ptr<JsonDocument> document, ParseJson(value, limits.max_depth));
    if (!document->IsObject()) return InvalidArgument("the value is no JSON object");
    return document;
  }

  const RecordFormat format_;
  const std::unique_ptr<SchemaMapper> mapper_;
};

}  // namespace

Result<std::unique_ptr<EventDecoder>> MakeDecoder(TopicRole role, const FormatOptions& format, const SchemaMap& schema,
                                                  const DecodeLimits& limits) {
  const bool debezium = format.format == RecordFormat::kDebezium;
  SchemaMapper::Rules rules;
  // A row of a table of interactions that goes is housekeeping, and its key is the row's, not the user's.
  rules.deletes_interactions = debezium;
  rules.interaction_user_from_key = !debezium;
  std::unique_ptr<KeyReader> keys;
  if (format.key_format.value_or(debezium ? KeyFormat::kJson : KeyFormat::kText) == KeyFormat::kJson) {
    keys = std::make_unique<JsonKeys>(limits);
  } else {
    keys = std::make_unique<TextKeys>();
  }
  FRESHET_ASSIGN(std::unique_ptr<SchemaMapper> mapper,
                 SchemaMapper::Make(role, schema, limits, rules, std::move(keys)));
  return std::unique_ptr<EventDecoder>(std::make_unique<TopicDecoder>(format.format, std::move(mapper)));
}

Result<std::unique_ptr<EventDecoder>> MakeJsonDecoder(TopicRole role, const SchemaMap& schema,
                                                      const DecodeLimits& limits) {
  return MakeDecoder(role, FormatOptions{}, schema, limits);
}

}  // namespace freshet
