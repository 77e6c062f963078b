// The body of POST /v1/recall, both ways. Strict: what is not understood is refused with its JSON pointer, so that a
// misspelt `exclude_ids` is never silently ignored.
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/query/http_server.h"

namespace freshet {
namespace {

Status Wrong(std::string_view pointer, std::string_view what) { return InvalidArgument(StrCat(pointer, ": ", what)); }

// A field's name as part of a pointer and a message. Names that are not plain come from outside and may hold anything:
// the pointer then names the object around them.
Status WrongName(std::string_view parent, std::string_view name, std::string_view what) {
  const bool plain = !name.empty() && name.size() <= 64 &&
                     name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
                         std::string_view::npos;
  if (plain) return Wrong(StrCat(parent, "/", name), what);
  const std::string quoted = JsonQuote(IsValidUtf8(name.substr(0, 64)) ? name.substr(0, 64) : "");
  return parent.empty() ? InvalidArgument(StrCat("field ", quoted, ": ", what))
                        : Wrong(parent, StrCat("field ", quoted, ": ", what));
}

// Refuses what is no object, unknown fields, and fields given twice.
Status CheckFields(const JsonValue& value, std::string_view pointer, const std::vector<std::string>& known) {
  if (!value.IsObject()) {
    return pointer.empty() ? InvalidArgument("the body must be a JSON object") : Wrong(pointer, "must be an object");
  }
  std::vector<bool> seen(known.size(), false);
  for (const auto& member : value.GetObject()) {
    const std::string_view name = JsonText(member.name);
    std::size_t i = 0;
    while (i < known.size() && known[i] != name) ++i;
    if (i == known.size()) {
      const std::optional<std::string> nearest = name.size() <= 64 ? Nearest(name, known) : std::nullopt;
      return WrongName(pointer, name,
                       nearest ? StrCat("unknown field; did you mean `", *nearest, "`?") : "unknown field");
    }
    if (seen[i]) return WrongName(pointer, name, "is given twice");
    seen[i] = true;
  }
  return Status::Ok();
}

Result<std::string> ReadId(const JsonValue& value, std::string_view pointer) {
  if (!value.IsString()) return Wrong(pointer, "must be a string");
  if (!IsValidId(JsonText(value))) return Wrong(pointer, StrCat("must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  return std::string(JsonText(value));
}

Result<bool> ReadBool(const JsonValue& value, std::string_view pointer) {
  if (!value.IsBool()) return Wrong(pointer, "must be true or false");
  return value.GetBool();
}

Result<std::uint64_t> ReadInteger(const JsonValue& value, std::string_view pointer, std::uint64_t min,
                                  std::uint64_t max) {
  if (!value.IsNumber()) return Wrong(pointer, "must be an integer");
  if (value.IsDouble()) return Wrong(pointer, "must be an integer, without fraction and exponent");
  if (!value.IsUint64() || value.GetUint64() < min || value.GetUint64() > max) {
    return Wrong(pointer, StrCat("must be between ", min, " and ", max));
  }
  return value.GetUint64();
}

Result<float> ReadFloat(const JsonValue& value, std::string_view pointer) {
  if (!value.IsNumber()) return Wrong(pointer, "must be a number");
  const double number = value.GetDouble();
  if (!(std::fabs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) {
    return Wrong(pointer, "does not fit a 32-bit float");
  }
  return static_cast<float>(number);
}

Result<std::string> ReadUser(const JsonValue& value) {
  if (value.IsString()) return ReadId(value, "/user");
  if (!value.IsObject()) return Wrong("/user", "must be a string, or an object with `id`");
  FRESHET_TRY(CheckFields(value, "/user", {"id"}));
  const JsonValue* id = JsonFind(value, "id");
  if (id == nullptr) return Wrong("/user/id", "is missing");
  return ReadId(*id, "/user/id");
}

Result<std::vector<float>> ReadVector(const JsonValue& value) {
  if (!value.IsArray()) return Wrong("/vector", "must be an array of numbers");
  std::vector<float> vector;
  vector.reserve(value.Size());
  for (const JsonValue& number : value.GetArray()) {
    const Result<float> read = ReadFloat(number, "/vector");
    // The pointer is made for the bad one only.
    if (!read.ok()) return ReadFloat(number, StrCat("/vector/", vector.size())).status();
    vector.push_back(*read);
  }
  return vector;
}

Result<std::vector<std::string>> ReadExcludeIds(const JsonValue& value) {
  if (!value.IsArray()) return Wrong("/exclude_ids", "must be an array of strings");
  if (value.Size() > kMaxExcludeIds) return Wrong("/exclude_ids", StrCat("must be at most ", kMaxExcludeIds, " ids"));
  std::vector<std::string> ids;
  ids.reserve(value.Size());
  for (const JsonValue& id : value.GetArray()) {
    FRESHET_ASSIGN(std::string text, ReadId(id, StrCat("/exclude_ids/", ids.size())));
    ids.push_back(std::move(text));
  }
  return ids;
}

Status ReadParams(const JsonValue& value, RecallRequest* request) {
  FRESHET_TRY(CheckFields(value, "/params", {"ef", "exact"}));
  if (const JsonValue* ef = JsonFind(value, "ef")) {
    FRESHET_ASSIGN(request->ef, ReadInteger(*ef, "/params/ef", 1, kMaxEf));
  }
  if (const JsonValue* exact = JsonFind(value, "exact")) {
    FRESHET_ASSIGN(request->exact, ReadBool(*exact, "/params/exact"));
  }
  return Status::Ok();
}

// "2011-05-31T17:39:00.123Z"
std::string Rfc3339(std::int64_t unix_ms) {
  using std::chrono::days;
  using std::chrono::milliseconds;
  const std::chrono::sys_time<milliseconds> time{milliseconds(unix_ms)};
  const auto day = std::chrono::floor<days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss<milliseconds> clock(time - day);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  return text;
}

// The shortest text that reads back as the same float: half the bytes of the double's.
void WriteFloat(float value, JsonWriter* out) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof text, value);
  if (!std::isfinite(value) || end.ec != std::errc()) {
    out->Null();
  } else {
    out->Raw({text, static_cast<std::size_t>(end.ptr - text)});
  }
}

}  // namespace

Result<RecallRequest> ParseRecallRequest(std::string_view body) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(body, 8));
  const JsonValue& root = *document;
  FRESHET_TRY(CheckFields(root, "",
                          {"user", "item", "vector", "k", "exclude_ids", "exclude_seen", "params", "with_attributes",
                           "with_payload", "score_threshold", "timeout_ms"}));
  RecallRequest request;
  if (const JsonValue* value = JsonFind(root, "user")) {
    FRESHET_ASSIGN(request.user, ReadUser(*value));
  }
  if (const JsonValue* value = JsonFind(root, "item")) {
    FRESHET_ASSIGN(request.item, ReadId(*value, "/item"));
  }
  if (const JsonValue* value = JsonFind(root, "vector")) {
    FRESHET_ASSIGN(request.vector, ReadVector(*value));
  }
  if (const JsonValue* value = JsonFind(root, "k")) {
    FRESHET_ASSIGN(request.k, ReadInteger(*value, "/k", 1, kMaxK));
  }
  if (const JsonValue* value = JsonFind(root, "exclude_ids")) {
    FRESHET_ASSIGN(request.exclude_ids, ReadExcludeIds(*value));
  }
  if (const JsonValue* value = JsonFind(root, "exclude_seen")) {
    FRESHET_ASSIGN(request.exclude_seen, ReadBool(*value, "/exclude_seen"));
  }
  if (const JsonValue* value = JsonFind(root, "params")) FRESHET_TRY(ReadParams(*value, &request));
  const JsonValue* with_attributes = JsonFind(root, "with_attributes");
  const JsonValue* with_payload = JsonFind(root, "with_payload");
  if (with_attributes != nullptr && with_payload != nullptr) {
    return Wrong("/with_payload", "is another name of `with_attributes`, which is given too");
  }
  if (with_attributes != nullptr) {
    FRESHET_ASSIGN(request.with_attributes, ReadBool(*with_attributes, "/with_attributes"));
  }
  if (with_payload != nullptr) {
    FRESHET_ASSIGN(request.with_attributes, ReadBool(*with_payload, "/with_payload"));
  }
  if (const JsonValue* value = JsonFind(root, "score_threshold")) {
    FRESHET_ASSIGN(request.score_threshold, ReadFloat(*value, "/score_threshold"));
  }
  if (const JsonValue* value = JsonFind(root, "timeout_ms")) {
    FRESHET_ASSIGN(const std::uint64_t timeout_ms, ReadInteger(*value, "/timeout_ms", 1, kMaxTimeoutMs));
    request.timeout_ms = static_cast<std::int64_t>(timeout_ms);
  }
  return request;
}

std::string RecallResponseToJson(const RecallResponse& response) {
  JsonWriter out;
  out.BeginObject().Key("results").BeginArray();
  for (const RecallHit& hit : response.results) {
    out.BeginObject().Key("id").String(hit.id).Key("score");
    WriteFloat(hit.score, &out);
    if (!hit.attributes.empty()) out.Key("attributes").Raw(AttributesToJson(hit.attributes));
    out.EndObject();
  }
  out.EndArray();
  out.Key("index_version").Uint(response.index_version).Key("model_version").String(response.model_version);
  if (response.as_of_ms > 0) {
    out.Key("as_of").String(Rfc3339(response.as_of_ms)).Key("as_of_ms").Int(response.as_of_ms);
  } else {
    out.Key("as_of").Null().Key("as_of_ms").Null();
  }
  out.Key("took_ms").Double(response.took_ms);
  if (!response.degraded.empty()) out.Key("degraded").String(response.degraded);
  return out.EndObject().Take();
}

}  // namespace freshet
