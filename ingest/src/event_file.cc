#include "freshet/ingest/event_file.h"

#include <memory>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

Result<std::unique_ptr<JsonDocument>> ParseObject(std::string_view line) {
  FRESHET_ASSIGN(std::unique_ptr<JsonDocument> document, ParseJson(line, DecodeLimits{}.max_depth));
  if (!document->IsObject()) return InvalidArgument("the line is no JSON object");
  return document;
}

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

Status ForEachEvent(const std::string& path, TopicRole role, const DecodeLimits& limits,
                    const std::function<Status(Event&&, double fraction)>& handle) {
  FRESHET_ASSIGN(const std::unique_ptr<EventDecoder> decoder, MakeJsonDecoder(role, DefaultSchema(role), limits));
  std::int64_t number = 0;
  return ForEachLine(path, [&](std::string_view line, double fraction) -> Status {
    ++number;
    if (Trim(line).empty()) return Status::Ok();
    const auto located = [&](const Status& status) { return status.Prefixed(StrCat(path, ":", number)); };
    const Result<EventLine> parsed = ParseEventLine(role, line);
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
