#include "envelopes.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::string_view kCloudEventsType = "application/cloudevents";

// The last header of that name, as Kafka's own lastHeader(); names of attributes are lower case.
std::optional<std::string_view> Header(const RawRecord& record, std::string_view name) {
  std::optional<std::string_view> found;
  for (const auto& [key, value] : record.headers) {
    if (key.size() == name.size() && ToLower(key) == name) found = value;
  }
  return found;
}

// "application/json; charset=utf-8" -> "application/json"
std::string MediaType(std::string_view content_type) {
  return ToLower(Trim(content_type.substr(0, content_type.find(';'))));
}

bool IsJsonType(const std::string& media_type) {
  const auto ends_with = [&](std::string_view end) {
    return media_type.size() > end.size() && std::string_view(media_type).substr(media_type.size() - end.size()) == end;
  };
  return ends_with("/json") || ends_with("+json");
}

Status CheckVersion(std::string_view version) {
  if (version.rfind("1.", 0) == 0) return Status::Ok();
  return InvalidArgument("specversion is not 1.x, the version of CloudEvents that is read");
}

// `time` as the context attribute has it.
Result<std::int64_t> EventTime(std::string_view text) {
  const auto time_ms = ParseRfc3339(text);
  if (!time_ms || *time_ms < 0) return InvalidArgument("the event's time is not a time of RFC 3339 since 1970");
  return *time_ms;
}

std::optional<std::string> DecodeBase64(std::string_view text) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  text.remove_suffix(padding);
  std::string bytes;
  unsigned held = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t digit = kAlphabet.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    held = (held << 6) | static_cast<unsigned>(digit);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<char>((held >> bits) & 0xFF));
    }
  }
  return bytes;
}

Result<Unwrapped> ChangeOf(std::unique_ptr<JsonDocument> document, const JsonValue& envelope) {
  Unwrapped change;
  const JsonValue* op = JsonFind(envelope, "op");
  if (op == nullptr) {
    // Transaction metadata has a topic of its own; one that took the same route is none of our business.
    const JsonValue* status = JsonFind(envelope, "status");
    const bool boundary = status != nullptr && status->IsString() && JsonFind(envelope, "id") != nullptr &&
                          (JsonText(*status) == "BEGIN" || JsonText(*status) == "END");
    if (!boundary) return InvalidArgument("the value is no Debezium change event: /op is missing");
    change.kind = Unwrapped::Kind::kNotOurs;
    return change;
  }
  if (!op->IsString() || op->GetStringLength() != 1) return InvalidArgument("/op is not one letter");
  switch (op->GetString()[0]) {
    case 'c':
    case 'u':
    case 'r': {
      const JsonValue* after = JsonFind(envelope, "after");
      if (after == nullptr || !after->IsObject()) return InvalidArgument("/after is not an object");
      change.row = after;
      break;
    }
    case 'd':
      change.kind = Unwrapped::Kind::kDelete;
      break;
    case 'm':
      change.kind = Unwrapped::Kind::kNotOurs;
      break;
    case 't':
      return InvalidArgument("/op is t: a truncate names no rows; delete them one by one, or skip truncates");
    default:
      return InvalidArgument("/op is none of c, u, r, d, m, t");
  }
  // When the database changed; a connector that does not know says 0.
  const JsonValue* source = JsonFind(envelope, "source");
  const JsonValue* time = source == nullptr ? nullptr : JsonFind(*source, "ts_ms");
  if (time != nullptr && time->IsInt64() && time->GetInt64() > 0) change.timestamp_ms = time->GetInt64();
  change.document = std::move(document);
  return change;
}

}  // namespace

const JsonValue& WithoutConnectSchema(const JsonValue& value) {
  if (!value.IsObject() || value.MemberCount() != 2 || JsonFind(value, "schema") == nullptr) return value;
  const JsonValue* payload = JsonFind(value, "payload");
  return payload == nullptr ? value : *payload;
}

Result<Unwrapped> UnwrapDebezium(std::unique_ptr<JsonDocument> document) {
  const JsonValue& envelope = WithoutConnectSchema(*document);
  if (envelope.IsNull()) {  // the wrapper of a tombstone
    Unwrapped tombstone;
    tombstone.kind = Unwrapped::Kind::kDelete;
    return tombstone;
  }
  if (!envelope.IsObject()) return InvalidArgument("the value is no Debezium change event: no JSON object");
  return ChangeOf(std::move(document), envelope);
}

CloudEventMode RecogniseCloudEvent(const RawRecord& record) {
  if (record.headers.empty()) return CloudEventMode::kNone;
  const auto type = Header(record, "content-type");
  if (type && ToLower(*type).rfind(kCloudEventsType, 0) == 0) return CloudEventMode::kStructured;
  constexpr std::array<std::string_view, 4> kMandatory = {"ce_specversion", "ce_type", "ce_source", "ce_id"};
  const bool all =
      std::all_of(kMandatory.begin(), kMandatory.end(), [&](std::string_view name) { return Header(record, name); });
  return all ? CloudEventMode::kBinary : CloudEventMode::kNone;
}

Result<Unwrapped> UnwrapStructuredCloudEvent(const RawRecord& record, std::unique_ptr<JsonDocument> document,
                                             const DecodeLimits& limits) {
  if (const auto header = Header(record, "content-type")) {
    const std::string type = MediaType(*header);
    if (type != kCloudEventsType && type != "application/cloudevents+json") {
      return InvalidArgument("the content type is not application/cloudevents+json, the event format that is read");
    }
  }
  for (const char* name : {"specversion", "type", "source", "id"}) {
    const JsonValue* attribute = JsonFind(*document, name);
    if (attribute == nullptr || !attribute->IsString() || attribute->GetStringLength() == 0) {
      return InvalidArgument(StrCat("the value is no CloudEvent: /", name, " is not a text"));
    }
  }
  FRESHET_TRY(CheckVersion(JsonText(*JsonFind(*document, "specversion"))));
  Unwrapped event;
  if (const JsonValue* time = JsonFind(*document, "time"); time != nullptr && !time->IsNull()) {
    if (!time->IsString()) return InvalidArgument("/time is not a text");
    FRESHET_ASSIGN(event.timestamp_ms, EventTime(JsonText(*time)));
  }
  if (const JsonValue* type = JsonFind(*document, "datacontenttype"); type != nullptr && !type->IsNull()) {
    if (!type->IsString() || !IsJsonType(MediaType(JsonText(*type)))) {
      return InvalidArgument("/datacontenttype is not that of JSON");
    }
  }
  const JsonValue* data = JsonFind(*document, "data");
  if (const JsonValue* base64 = JsonFind(*document, "data_base64"); base64 != nullptr && data == nullptr) {
    const auto bytes = base64->IsString() ? DecodeBase64(JsonText(*base64)) : std::nullopt;
    if (!bytes) return InvalidArgument("/data_base64 is not Base64");
    auto parsed = ParseJson(*bytes, limits.max_depth);
    if (!parsed.ok()) return parsed.status().Prefixed("/data_base64");
    document = std::move(*parsed);
    data = document.get();
  }
  if (data == nullptr || data->IsNull()) {
    return InvalidArgument("the event has no data; a delete is a record with a null value");
  }
  if (!data->IsObject()) return InvalidArgument("the event's data is no JSON object");
  event.row = data;
  event.document = std::move(document);
  return event;
}

Status CheckBinaryCloudEvent(const RawRecord& record, Unwrapped* unwrapped) {
  FRESHET_TRY(CheckVersion(Header(record, "ce_specversion").value_or("")));
  if (const auto type = Header(record, "content-type"); type && !IsJsonType(MediaType(*type))) {
    return InvalidArgument("the content type is not that of JSON");
  }
  if (const auto time = Header(record, "ce_time")) {
    FRESHET_ASSIGN(unwrapped->timestamp_ms, EventTime(*time));
  }
  return Status::Ok();
}

}  // namespace freshet
