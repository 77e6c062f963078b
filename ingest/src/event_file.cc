#include "freshet/ingest/event_file.h"

#include <memory>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "json_values.h"

namespace freshet {
namespace {

Result<std::unique_ptr<JsonDocument>> ParseObject(std::string_view line) {
  FRESHET_ASSIGN(std::unique_ptr<JsonDocument> document, ParseJson(line, DecodeLimits{}.max_depth));
  if (!document->IsObject()) return InvalidArgument("the line is no JSON object");
  return document;
}

// Reads what stands beside the value in a log from a producer's line.
class LineReader {
 public:
  static Result<LineReader> Make(TopicRole role, const SchemaMap& schema) {
    LineReader reader;
    reader.role_ = role;
    reader.format_ = schema.timestamp_format;
    const bool item = role == TopicRole::kItems;
    FRESHET_TRY(CompilePart(item ? "item_id" : "user_id", item ? schema.item_id : schema.user_id, &reader.id_));
    FRESHET_TRY(CompilePart("timestamp", schema.timestamp, &reader.timestamp_));
    if (role != TopicRole::kInteractions && !reader.id_) {
      return ConfigError(StrCat("schema.", item ? "item_id" : "user_id",
                                ": lines of a file have no key, so they need a pointer to the id"));
    }
    return reader;
  }

  [[nodiscard]] Result<EventLine> Read(std::string_view line) const {
    FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseObject(line));
    EventLine out;
    if (const JsonValue* id = GetPart(id_, *document)) {
      FRESHET_ASSIGN(out.key, ToId(*id, id_->text));
    } else if (role_ != TopicRole::kInteractions) {
      return InvalidArgument(StrCat(id_->text, " is missing"));
    }
    const JsonValue* deleted = role_ == TopicRole::kInteractions ? nullptr : JsonFind(*document, "deleted");
    out.has_value = deleted == nullptr || !deleted->IsBool() || !deleted->GetBool();
    if (out.has_value) out.value = line;
    if (const JsonValue* timestamp = GetPart(timestamp_, *document)) {
      FRESHET_ASSIGN(out.timestamp_ms, ToTimestampMs(*timestamp, format_, timestamp_->text));
    }
    return out;
  }

 private:
  TopicRole role_ = TopicRole::kItems;
  TimestampFormat format_ = TimestampFormat::kMilliseconds;
  std::optional<SchemaPart> id_;
  std::optional<SchemaPart> timestamp_;
};

}  // namespace

Result<EventLine> ParseEventLine(TopicRole role, std::string_view line) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseObject(line));
  const std::string_view name = role == TopicRole::kItems ? "item_id" : "user_id";
  const JsonValue* id = JsonFind(*document, name);
  EventLine out;
  if (id == nullptr) return InvalidArgument(StrCat("`", name, "` is missing"));
  if (id->IsString()) {
    out.key = JsonText(*id);
  } else if (id->IsInt64()) {
    out.key = std::to_string(id->GetInt64());
  }
  if (!IsValidId(out.key)) return InvalidArgument(StrCat("`", name, "` is not an id of 1 to ", kMaxIdBytes, " bytes"));

  if (const JsonValue* deleted = JsonFind(*document, "deleted");
      deleted != nullptr && role != TopicRole::kInteractions) {
    if (!deleted->IsBool()) return InvalidArgument("`deleted` is neither true nor false");
    out.has_value = !deleted->GetBool();
  }
  if (out.has_value) out.value = line;
  if (const JsonValue* timestamp = JsonFind(*document, "timestamp"); timestamp != nullptr && !timestamp->IsNull()) {
    if (!timestamp->IsInt64() || timestamp->GetInt64() < 0) {
      return InvalidArgument("`timestamp` is not a time in whole Unix milliseconds");
    }
    out.timestamp_ms = timestamp->GetInt64();
  }
  return out;
}

Result<TopicRole> GuessRole(std::string_view line) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseObject(line));
  const bool item = JsonFind(*document, "item_id") != nullptr;
  const bool user = JsonFind(*document, "user_id") != nullptr;
  if (item && user) return TopicRole::kInteractions;
  if (item) return TopicRole::kItems;
  if (user) return TopicRole::kUsers;
  return InvalidArgument("the line has neither `item_id` nor `user_id`");
}

SchemaMap PlainLineSchema(TopicRole role) {
  SchemaMap schema = DefaultSchema(role);
  if (role == TopicRole::kItems) schema.item_id = "/item_id";
  if (role == TopicRole::kUsers) schema.user_id = "/user_id";
  schema.timestamp = "/timestamp";
  return schema;
}

Status ForEachEvent(const std::string& path, TopicRole role, const SchemaMap* schema, const DecodeLimits& limits,
                    const std::function<Status(Event&&, double fraction)>& handle) {
  FRESHET_ASSIGN(const std::unique_ptr<EventDecoder> decoder,
                 MakeJsonDecoder(role, schema == nullptr ? DefaultSchema(role) : *schema, limits));
  std::optional<LineReader> reader;
  if (schema != nullptr) {
    FRESHET_ASSIGN(reader, LineReader::Make(role, *schema));
  }
  std::int64_t number = 0;
  return ForEachLine(path, [&](std::string_view line, double fraction) -> Status {
    ++number;
    if (Trim(line).empty()) return Status::Ok();
    const auto located = [&](const Status& status) {
      return Status(status.code(),
                    StrCat(path, ":", number, ": ", status.message(), ": correct the line, or leave it out"));
    };
    const Result<EventLine> parsed = reader ? reader->Read(line) : ParseEventLine(role, line);
    if (!parsed.ok()) return located(parsed.status());
    RawRecord record;
    record.offset = number - 1;
    record.timestamp_ms = parsed->timestamp_ms;
    record.key = parsed->key;
    if (parsed->has_value) record.value = parsed->value;
    Event event;
    event.position = {0, record.offset};
    event.record_timestamp_ms = record.timestamp_ms;
    if (const Status decoded = decoder->Decode(record, &event); !decoded.ok()) return located(decoded);
    return handle(std::move(event), fraction);
  });
}

}  // namespace freshet
