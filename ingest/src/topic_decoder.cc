// One decoder a topic: wire format, envelope, schema map.
#include <memory>
#include <optional>
#include <string>

#include "confluent.h"
#include "envelopes.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/decoder.h"
#include "protobuf_schema.h"
#include "schema_mapper.h"

namespace freshet {
namespace {

class Keys final : public KeyReader {
 public:
  // What keys are made of may be null where it is not needed; else it outlives them.
  Keys(KeyFormat format, const DecodeLimits& limits, ConfluentReader* confluent, const ProtobufSchema* protobuf,
       std::string message)
      : format_(format), limits_(limits), confluent_(confluent), protobuf_(protobuf), message_(std::move(message)) {}

  Result<std::string> Id(const RawRecord& record, const std::optional<SchemaPart>& id) const override {
    if (!record.key) return InvalidArgument("the key is null; it must be the id");
    const bool framed = confluent_ != nullptr && ConfluentReader::IsFrame(*record.key);
    if (format_ == KeyFormat::kText && !framed) {
      if (IsValidId(*record.key)) return std::string(*record.key);
      return InvalidArgument(StrCat("the key is not an id of 1 to ", kMaxIdBytes, " bytes of UTF-8"));
    }
    if (record.key->size() > limits_.max_value_bytes) {
      return InvalidArgument(StrCat("the key is longer than ", limits_.max_value_bytes, " bytes"));
    }
    const auto document = framed                            ? confluent_->Read(*record.key, limits_)
                          : format_ == KeyFormat::kProtobuf ? protobuf_->Parse(message_, *record.key, limits_)
                                                            : ParseJson(*record.key, limits_.max_depth);
    if (!document.ok()) return document.status().Prefixed("the key");
    return IdOf(WithoutConnectSchema(**document), id);
  }

 private:
  static Result<std::string> IdOf(const JsonValue& key, const std::optional<SchemaPart>& id) {
    if (!key.IsObject()) return ToId(key, "the key");
    if (const JsonValue* found = GetPart(id, key)) return ToId(*found, StrCat("the key's ", id->text));
    if (id) return InvalidArgument(StrCat("the key has no ", id->text, ", where the schema says that the id is"));
    if (key.MemberCount() != 1) {
      return InvalidArgument(StrCat("the key has ", key.MemberCount(), " members, of which none is named as the id"));
    }
    return ToId(key.MemberBegin()->value, "the key's only member");
  }

  const KeyFormat format_;
  const DecodeLimits limits_;
  ConfluentReader* const confluent_;
  const ProtobufSchema* const protobuf_;
  const std::string message_;
};

class TopicDecoder final : public EventDecoder {
 public:
  struct Parts {
    RecordFormat format = RecordFormat::kJson;
    std::unique_ptr<ConfluentReader> confluent;  // null without a registry
    std::unique_ptr<ProtobufSchema> protobuf;    // of values or keys in Protobuf
    std::string message;                         // kProtobuf
    std::unique_ptr<SchemaMapper> mapper;        // destroyed first: its keys use `confluent`
  };
  explicit TopicDecoder(Parts parts) : parts_(std::move(parts)) {}

  Status Decode(const RawRecord& record, Event* event) const override {
    FRESHET_TRY(CheckHeaders(record));
    FRESHET_ASSIGN(const Unwrapped unwrapped, Unwrap(record));
    return parts_.mapper->Map(record, unwrapped, event);
  }

 private:
  // They are kept with the record for as long as it may become a dead letter, whether anyone reads them or not.
  Status CheckHeaders(const RawRecord& record) const {
    const DecodeLimits& limits = parts_.mapper->limits();
    if (record.headers.size() > limits.max_headers) {
      return InvalidArgument(
          StrCat("the record has ", record.headers.size(), " headers; the limit is ", limits.max_headers));
    }
    if (const std::size_t bytes = HeaderBytes(record); bytes > limits.max_header_bytes) {
      return InvalidArgument(
          StrCat("the record's headers have ", bytes, " bytes; the limit is ", limits.max_header_bytes));
    }
    return Status::Ok();
  }

  Result<Unwrapped> Unwrap(const RawRecord& record) const {
    Unwrapped unwrapped;
    if (!record.value) {
      unwrapped.kind = Unwrapped::Kind::kDelete;
      return unwrapped;
    }
    FRESHET_ASSIGN(std::unique_ptr<JsonDocument> document, Parse(*record.value));
    if (parts_.format == RecordFormat::kDebezium) return UnwrapDebezium(std::move(document));
    const CloudEventMode mode = RecogniseCloudEvent(record);
    if (mode == CloudEventMode::kStructured ||
        (mode == CloudEventMode::kNone && parts_.format == RecordFormat::kCloudEvents)) {
      return UnwrapStructuredCloudEvent(record, std::move(document), parts_.mapper->limits());
    }
    if (mode == CloudEventMode::kBinary) FRESHET_TRY(CheckBinaryCloudEvent(record, &unwrapped));
    unwrapped.document = std::move(document);
    unwrapped.row = unwrapped.document.get();
    return unwrapped;
  }

  Result<std::unique_ptr<JsonDocument>> Parse(std::string_view value) const {
    const DecodeLimits& limits = parts_.mapper->limits();
    if (value.empty()) return InvalidArgument("the value is empty; a delete has a null value");
    if (value.size() > limits.max_value_bytes) {
      return InvalidArgument(StrCat("the value has ", value.size(), " bytes; the limit is ", limits.max_value_bytes));
    }
    FRESHET_ASSIGN(std::unique_ptr<JsonDocument> document, ParseWire(value, limits));
    if (!document->IsObject()) return InvalidArgument("the value is no JSON object");
    return document;
  }

  Result<std::unique_ptr<JsonDocument>> ParseWire(std::string_view value, const DecodeLimits& limits) const {
    if (parts_.format == RecordFormat::kProtobuf) return parts_.protobuf->Parse(parts_.message, value, limits);
    const bool framed = ConfluentReader::IsFrame(value);
    if (parts_.confluent != nullptr && (framed || parts_.format == RecordFormat::kConfluent)) {
      return parts_.confluent->Read(value, limits);
    }
    if (framed) return InvalidArgument("the value has a Confluent frame, but schema_registry.url is not configured");
    thread_local JsonArena arena;  // a document lives as long as one Decode
    return arena.Parse(value, limits.max_depth);
  }

  const Parts parts_;
};

// For values, keys or both.
Status OpenProtobuf(TopicRole role, const FormatOptions& format, bool keys, TopicDecoder::Parts* parts) {
  const bool values = format.format == RecordFormat::kProtobuf;
  const std::string& path = format.protobuf_descriptor_set;
  if (path.empty()) {
    FRESHET_ASSIGN(parts->protobuf, ProtobufSchema::BuiltIn());
    parts->message = role == TopicRole::kItems   ? "freshet.v1.Item"
                     : role == TopicRole::kUsers ? "freshet.v1.User"
                                                 : "freshet.v1.Interaction";
    return Status::Ok();
  }
  const auto bytes = ReadFile(path, std::size_t{16} << 20);
  if (!bytes.ok()) return ConfigError(StrCat("protobuf.descriptor_set: ", bytes.status().message()));
  auto schema = ProtobufSchema::FromDescriptorSet(*bytes);
  if (!schema.ok()) return ConfigError(StrCat("protobuf.descriptor_set: ", path, ": ", schema.status().message()));
  const auto check = [&](std::string_view name, const std::string& message) {
    if ((*schema)->Has(message)) return Status::Ok();
    return ConfigError(StrCat("protobuf.", name, ": ", path, " has no message `", message, "`"));
  };
  if (values) FRESHET_TRY(check("message", format.protobuf_message));
  if (keys) FRESHET_TRY(check("key_message", format.protobuf_key_message));
  parts->protobuf = std::move(*schema);
  parts->message = format.protobuf_message;
  return Status::Ok();
}

}  // namespace

Status FormatOptions::Validate() const {
  const bool has_set = !protobuf_descriptor_set.empty();
  if (key_format == KeyFormat::kProtobuf && (!has_set || protobuf_key_message.empty())) {
    return ConfigError("key_format: protobuf needs protobuf.descriptor_set and protobuf.key_message");
  }
  if (format != RecordFormat::kProtobuf) return Status::Ok();
  if (!has_set && !protobuf_message.empty()) return ConfigError("protobuf.message needs protobuf.descriptor_set");
  if (has_set && protobuf_message.empty()) return ConfigError("protobuf.descriptor_set needs protobuf.message");
  return Status::Ok();
}

std::size_t HeaderBytes(const RawRecord& record) {
  std::size_t bytes = 0;
  for (const auto& [name, value] : record.headers) bytes += name.size() + value.size();
  return bytes;
}

Result<std::unique_ptr<EventDecoder>> MakeDecoder(TopicRole role, const FormatOptions& format, const SchemaMap& schema,
                                                  const DecodeLimits& limits) {
  FRESHET_TRY(format.Validate());
  const bool debezium = format.format == RecordFormat::kDebezium;
  SchemaMapper::Rules rules;
  // A row of a table of interactions that goes is housekeeping, and its key is the row's, not the user's.
  rules.deletes_interactions = debezium;
  rules.interaction_user_from_key = !debezium;
  TopicDecoder::Parts parts;
  parts.format = format.format;
  if (format.registry != nullptr) {
    parts.confluent = std::make_unique<ConfluentReader>(format.registry);
  } else if (format.format == RecordFormat::kConfluent) {
    return ConfigError("format: confluent needs schema_registry.url");
  }
  const KeyFormat key_format = format.key_format.value_or(debezium ? KeyFormat::kJson : KeyFormat::kText);
  const bool protobuf_keys = key_format == KeyFormat::kProtobuf;
  if (format.format == RecordFormat::kProtobuf || protobuf_keys) {
    FRESHET_TRY(OpenProtobuf(role, format, protobuf_keys, &parts));
  }
  auto keys = std::make_unique<Keys>(key_format, limits, parts.confluent.get(), parts.protobuf.get(),
                                     format.protobuf_key_message);
  FRESHET_ASSIGN(parts.mapper, SchemaMapper::Make(role, schema, limits, rules, std::move(keys)));
  return std::unique_ptr<EventDecoder>(std::make_unique<TopicDecoder>(std::move(parts)));
}

Result<std::unique_ptr<EventDecoder>> MakeJsonDecoder(TopicRole role, const SchemaMap& schema,
                                                      const DecodeLimits& limits) {
  return MakeDecoder(role, FormatOptions{}, schema, limits);
}

}  // namespace freshet
