// The bodies of requests and answers. Strict: what is not understood is refused with its JSON pointer, so that a
// misspelt `exclude_ids` is never silently ignored.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/query/filter_text.h"
#include "freshet/query/http_server.h"
#include "recall_json.h"
#include "request_json.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxFeatures = 256;
constexpr std::uint64_t kMaxUnixMs = 253'402'300'799'999;  // the end of the year 9999

Result<FeatureValue> ReadFeature(const JsonValue& value, const std::string& pointer) {
  if (value.IsBool()) return FeatureValue(value.GetBool() ? 1.0 : 0.0);
  if (value.IsNumber()) return FeatureValue(value.GetDouble());
  if (value.IsString()) return FeatureValue(std::string(JsonText(value)));
  if (!value.IsArray()) return Wrong(pointer, "must be a string, a number, a boolean or an array of strings");
  std::vector<std::string> texts;
  for (const JsonValue& text : value.GetArray()) {
    if (!text.IsString()) return Wrong(StrCat(pointer, "/", texts.size()), "must be a string");
    texts.emplace_back(JsonText(text));
  }
  return FeatureValue(std::move(texts));
}

Result<Features> ReadFeatures(const JsonValue& value) {
  if (!value.IsObject()) return Wrong("/user/features", "must be an object");
  if (value.MemberCount() > kMaxFeatures) return Wrong("/user/features", StrCat("must be at most ", kMaxFeatures));
  Features features;
  for (const auto& member : value.GetObject()) {
    if (!IsValidId(JsonText(member.name))) return WrongName("/user/features", "", "is not a name");
    FRESHET_ASSIGN(FeatureValue feature,
                   ReadFeature(member.value, FieldPointer("/user/features", JsonText(member.name))));
    features.emplace_back(std::string(JsonText(member.name)), std::move(feature));
  }
  std::sort(features.begin(), features.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto twice = std::adjacent_find(features.begin(), features.end(),
                                        [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != features.end()) return WrongName("/user/features", twice->first, "is given twice");
  return features;
}

// Item ids, or objects as interactions are; oldest first.
Result<std::vector<HistoryEntry>> ReadHistory(const JsonValue& value) {
  if (!value.IsArray()) return Wrong("/user/history", "must be an array");
  if (value.Size() > kMaxHistory) return Wrong("/user/history", StrCat("must be at most ", kMaxHistory, " entries"));
  std::vector<HistoryEntry> history;
  for (const JsonValue& one : value.GetArray()) {
    const std::string pointer = StrCat("/user/history/", history.size());
    HistoryEntry entry;
    entry.event = "view";
    if (one.IsString()) {
      FRESHET_ASSIGN(entry.item_id, ReadId(one, pointer));
      history.push_back(std::move(entry));
      continue;
    }
    FRESHET_TRY(CheckFields(one, pointer, {"item_id", "event", "value", "timestamp"}));
    const JsonValue* item = JsonFind(one, "item_id");
    if (item == nullptr) return Wrong(StrCat(pointer, "/item_id"), "is missing");
    FRESHET_ASSIGN(entry.item_id, ReadId(*item, StrCat(pointer, "/item_id")));
    if (const JsonValue* event = JsonFind(one, "event")) {
      FRESHET_ASSIGN(entry.event, ReadId(*event, StrCat(pointer, "/event")));
    }
    if (const JsonValue* weight = JsonFind(one, "value")) {
      FRESHET_ASSIGN(const float read, ReadFloat(*weight, StrCat(pointer, "/value")));
      entry.value = static_cast<double>(read);
    }
    if (const JsonValue* timestamp = JsonFind(one, "timestamp")) {
      FRESHET_ASSIGN(const std::uint64_t ms, ReadInteger(*timestamp, StrCat(pointer, "/timestamp"), 0, kMaxUnixMs));
      entry.timestamp_ms = static_cast<std::int64_t>(ms);
    }
    history.push_back(std::move(entry));
  }
  return history;
}

Status ReadUser(const JsonValue& value, RecallRequest* request) {
  if (value.IsString()) {
    FRESHET_ASSIGN(request->user, ReadId(value, "/user"));
    return Status::Ok();
  }
  if (!value.IsObject()) return Wrong("/user", "must be a string, or an object with `id`, `features` or `history`");
  FRESHET_TRY(CheckFields(value, "/user", {"id", "features", "history"}));
  const JsonValue* id = JsonFind(value, "id");
  const JsonValue* features = JsonFind(value, "features");
  const JsonValue* history = JsonFind(value, "history");
  if (id == nullptr && features == nullptr && history == nullptr) return Wrong("/user/id", "is missing");
  if (id != nullptr) {
    FRESHET_ASSIGN(request->user, ReadId(*id, "/user/id"));
  }
  if (features != nullptr) {
    FRESHET_ASSIGN(request->user_features, ReadFeatures(*features));
  }
  if (history != nullptr) {
    FRESHET_ASSIGN(request->user_history, ReadHistory(*history));
  }
  return Status::Ok();
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

Result<std::vector<std::string>> ReadIds(const JsonValue& value, const std::string& pointer, std::size_t max) {
  if (!value.IsArray()) return Wrong(pointer, "must be an array of strings");
  if (value.Size() > max) return Wrong(pointer, StrCat("must be at most ", max, " ids"));
  std::vector<std::string> ids;
  ids.reserve(value.Size());
  for (const JsonValue& id : value.GetArray()) {
    FRESHET_ASSIGN(std::string text, ReadId(id, StrCat(pointer, "/", ids.size())));
    ids.push_back(std::move(text));
  }
  return ids;
}

Status ReadMaxPer(const JsonValue& value, RecallRequest* request) {
  if (!value.IsObject() || value.MemberCount() == 0) {
    return Wrong("/max_per", "must be an object of attributes and numbers, as {\"category\": 3}");
  }
  if (value.MemberCount() > kMaxPerAttributes) {
    return Wrong("/max_per", StrCat("must be at most ", kMaxPerAttributes, " attributes"));
  }
  for (const auto& member : value.GetObject()) {
    const std::string_view name = JsonText(member.name);
    if (!IsValidId(name)) return WrongName("/max_per", name, "is not an attribute's name");
    for (const auto& [known, most] : request->max_per) {
      if (known == name) return WrongName("/max_per", name, "is given twice");
    }
    FRESHET_ASSIGN(const std::uint64_t most, ReadInteger(member.value, FieldPointer("/max_per", name), 1, kMaxK));
    request->max_per.emplace_back(std::string(name), most);
  }
  return Status::Ok();
}

// Unix milliseconds, or the text that an answer's `as_of` is.
Result<std::int64_t> ReadTime(const JsonValue& value, const std::string& pointer) {
  if (value.IsString()) {
    const auto us = ParseTimestampUs(JsonText(value));
    if (!us) return Wrong(pointer, "must be Unix milliseconds or an RFC 3339 timestamp");
    return *us / 1000;
  }
  FRESHET_ASSIGN(const std::uint64_t ms, ReadInteger(value, pointer, 0, kMaxUnixMs));
  return static_cast<std::int64_t>(ms);
}

// What recall and score have in common.
Status ReadTarget(const JsonValue& root, RecallRequest* request) {
  if (const JsonValue* value = JsonFind(root, "user")) FRESHET_TRY(ReadUser(*value, request));
  if (const JsonValue* value = JsonFind(root, "item")) {
    FRESHET_ASSIGN(request->item, ReadId(*value, "/item"));
  }
  if (const JsonValue* value = JsonFind(root, "items")) {
    FRESHET_ASSIGN(request->items, ReadIds(*value, "/items", kMaxExamples));
    if (request->items.empty()) return Wrong("/items", "must name at least one item");
  }
  if (const JsonValue* value = JsonFind(root, "negative")) {
    FRESHET_ASSIGN(request->negative, ReadIds(*value, "/negative", kMaxExamples));
  }
  if (const JsonValue* value = JsonFind(root, "vector")) {
    FRESHET_ASSIGN(request->vector, ReadVector(*value));
  }
  if (const JsonValue* value = JsonFind(root, "min_as_of")) {
    FRESHET_ASSIGN(request->min_as_of_ms, ReadTime(*value, "/min_as_of"));
  }
  if (const JsonValue* value = JsonFind(root, "timeout_ms")) {
    FRESHET_ASSIGN(const std::uint64_t timeout_ms, ReadInteger(*value, "/timeout_ms", 1, kMaxTimeoutMs));
    request->timeout_ms = static_cast<std::int64_t>(timeout_ms);
  }
  return Status::Ok();
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
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(body, kMaxJsonDepth));
  return ReadRecallRequest(*document);
}

Result<RecallRequest> ReadRecallRequest(const JsonValue& root) {
  FRESHET_TRY(CheckFields(
      root, "",
      {"user", "item", "items", "negative", "vector", "k", "filter", "max_per", "exclude_ids", "exclude_seen", "params",
       "with_attributes", "with_payload", "score_threshold", "explain", "min_as_of", "timeout_ms"}));
  RecallRequest request;
  FRESHET_TRY(ReadTarget(root, &request));
  if (const JsonValue* value = JsonFind(root, "k")) {
    FRESHET_ASSIGN(request.k, ReadInteger(*value, "/k", 1, kMaxK));
  }
  if (const JsonValue* value = JsonFind(root, "filter")) {
    FRESHET_ASSIGN(request.filter, ParseFilter(*value));
  }
  if (const JsonValue* value = JsonFind(root, "max_per")) FRESHET_TRY(ReadMaxPer(*value, &request));
  if (const JsonValue* value = JsonFind(root, "explain")) {
    FRESHET_ASSIGN(request.explain, ReadBool(*value, "/explain"));
  }
  if (const JsonValue* value = JsonFind(root, "exclude_ids")) {
    FRESHET_ASSIGN(request.exclude_ids, ReadIds(*value, "/exclude_ids", kMaxExcludeIds));
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
  return request;
}

Result<ScoreRequest> ReadScoreRequest(std::string_view body) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(body, kMaxJsonDepth));
  FRESHET_TRY(
      CheckFields(*document, "", {"user", "item", "items", "negative", "vector", "ids", "min_as_of", "timeout_ms"}));
  ScoreRequest request;
  FRESHET_TRY(ReadTarget(*document, &request.target));
  const JsonValue* ids = JsonFind(*document, "ids");
  if (ids == nullptr) return Wrong("/ids", "is missing");
  FRESHET_ASSIGN(request.ids, ReadIds(*ids, "/ids", kMaxScoreIds));
  return request;
}

namespace {

// All but the closing brace.
void BeginAnswer(const RecallResponse& response, JsonWriter* out) {
  out->BeginObject().Key("results").BeginArray();
  for (const RecallHit& hit : response.results) {
    out->BeginObject().Key("id").String(hit.id).Key("score");
    WriteFloat(hit.score, out);
    if (!hit.attributes.empty()) out->Key("attributes").Raw(AttributesToJson(hit.attributes));
    out->EndObject();
  }
  out->EndArray();
  out->Key("index_version").Uint(response.index_version).Key("model_version").String(response.model_version);
  if (response.as_of_ms > 0) {
    out->Key("as_of").String(Rfc3339(response.as_of_ms)).Key("as_of_ms").Int(response.as_of_ms);
  } else {
    out->Key("as_of").Null().Key("as_of_ms").Null();
  }
  out->Key("took_ms").Double(response.took_ms);
  if (!response.degraded.empty()) out->Key("degraded").String(response.degraded);
  if (!response.explanation) return;
  const Explanation& explanation = *response.explanation;
  out->Key("explain").BeginObject().Key("path").String(explanation.path).Key("live").Uint(explanation.live);
  out->Key("matching").Uint(explanation.matching).Key("candidates").Uint(explanation.candidates);
  out->Key("searches").Uint(explanation.searches).Key("stage_ms").BeginObject();
  for (const auto& [stage, ms] : explanation.stage_ms) out->Key(stage).Double(ms);
  out->EndObject().EndObject();
}

}  // namespace

std::string RecallResponseToJson(const RecallResponse& response) {
  JsonWriter out;
  BeginAnswer(response, &out);
  return out.EndObject().Take();
}

std::string ScoreResponseToJson(const ScoreResponse& response) {
  JsonWriter out;
  BeginAnswer(response.answer, &out);
  out.Key("unknown").BeginArray();
  for (const std::string& id : response.unknown) out.String(id);
  return out.EndArray().EndObject().Take();
}

std::string UserViewToJson(const UserView& user) {
  JsonWriter out;
  out.BeginObject().Key("id").String(user.id).Key("features").BeginObject();
  for (const auto& [name, value] : user.state.features) {
    out.Key(name);
    if (const auto* number = std::get_if<double>(&value)) {
      out.Double(*number);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      out.String(*text);
    } else {
      out.BeginArray();
      for (const std::string& one : std::get<std::vector<std::string>>(value)) out.String(one);
      out.EndArray();
    }
  }
  out.EndObject().Key("history").BeginArray();
  for (const HistoryEntry& entry : user.state.history) {
    out.BeginObject().Key("item_id").String(entry.item_id).Key("event").String(entry.event);
    out.Key("value").Double(entry.value).Key("timestamp").Int(entry.timestamp_ms).EndObject();
  }
  out.EndArray().Key("seen").BeginArray();
  for (const std::string& id : user.state.seen) out.String(id);
  return out.EndArray().Key("index_version").Uint(user.index_version).EndObject().Take();
}

std::string ItemViewToJson(const ItemView& item) {
  JsonWriter out;
  out.BeginObject().Key("id").String(item.id).Key("live").Bool(item.live);
  out.Key("attributes").Raw(AttributesToJson(item.attributes));
  if (item.vector) {
    out.Key("vector").BeginArray();
    for (const float x : *item.vector) WriteFloat(x, &out);
    out.EndArray();
  }
  return out.Key("index_version").Uint(item.index_version).EndObject().Take();
}

}  // namespace freshet
