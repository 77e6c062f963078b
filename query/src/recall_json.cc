// The bodies of requests. Strict: what is not understood is refused with its JSON pointer, so that a misspelt
// `exclude_ids` is never silently ignored.
#include <algorithm>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
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

Status ReadWeights(const JsonValue& value, RecallRequest* request) {
  FRESHET_TRY(CheckFields(value, "/weights", {"similarity", "popularity", "recency", "recency_of", "half_life_hours"}));
  BlendWeights& weights = request->weights.emplace();
  const auto read = [&](const char* name, double* to) {
    const JsonValue* number = JsonFind(value, name);
    if (number == nullptr) return Status::Ok();
    if (!number->IsNumber()) return Wrong(StrCat("/weights/", name), "must be a number");
    *to = number->GetDouble();
    return Status::Ok();
  };
  FRESHET_TRY(read("similarity", &weights.similarity));
  FRESHET_TRY(read("popularity", &weights.popularity));
  FRESHET_TRY(read("recency", &weights.recency));
  FRESHET_TRY(read("half_life_hours", &weights.half_life_hours));
  if (const JsonValue* attribute = JsonFind(value, "recency_of")) {
    FRESHET_ASSIGN(weights.recency_of, ReadId(*attribute, "/weights/recency_of"));
  }
  return Status::Ok();  // RecallService judges the numbers
}

Status ReadRerank(const JsonValue& value, RecallRequest* request) {
  if (value.IsBool()) {
    if (value.GetBool()) request->rerank.emplace();
    return Status::Ok();
  }
  if (!value.IsObject()) return Wrong("/rerank", "must be true, false or an object, as {\"candidates\": 500}");
  FRESHET_TRY(CheckFields(value, "/rerank", {"candidates"}));
  request->rerank.emplace();
  if (const JsonValue* candidates = JsonFind(value, "candidates")) {
    FRESHET_ASSIGN(request->rerank->candidates,
                   ReadInteger(*candidates, "/rerank/candidates", 1, kMaxRerankCandidates));
  }
  return Status::Ok();
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
  if (const JsonValue* value = JsonFind(root, "weights")) FRESHET_TRY(ReadWeights(*value, request));
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

}  // namespace

Result<RecallRequest> ParseRecallRequest(std::string_view body) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(body, kMaxJsonDepth));
  return ReadRecallRequest(*document);
}

Result<RecallRequest> ReadRecallRequest(const JsonValue& root) {
  FRESHET_TRY(CheckFields(root, "",
                          {"user", "item", "items", "negative", "vector", "k", "filter", "max_per", "exclude_ids",
                           "exclude_seen", "params", "with_attributes", "with_payload", "score_threshold", "explain",
                           "rerank", "weights", "min_as_of", "timeout_ms"}));
  RecallRequest request;
  FRESHET_TRY(ReadTarget(root, &request));
  if (const JsonValue* value = JsonFind(root, "k")) {
    FRESHET_ASSIGN(request.k, ReadInteger(*value, "/k", 1, kMaxK));
  }
  if (const JsonValue* value = JsonFind(root, "filter")) {
    FRESHET_ASSIGN(request.filter, ParseFilter(*value));
  }
  if (const JsonValue* value = JsonFind(root, "max_per")) FRESHET_TRY(ReadMaxPer(*value, &request));
  if (const JsonValue* value = JsonFind(root, "rerank")) FRESHET_TRY(ReadRerank(*value, &request));
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
  return ReadScoreRequest(static_cast<const JsonValue&>(*document));
}

Result<ScoreRequest> ReadScoreRequest(const JsonValue& root) {
  FRESHET_TRY(CheckFields(
      root, "",
      {"user", "item", "items", "negative", "vector", "ids", "rerank", "weights", "min_as_of", "timeout_ms"}));
  ScoreRequest request;
  FRESHET_TRY(ReadTarget(root, &request.target));
  const JsonValue* ids = JsonFind(root, "ids");
  if (ids == nullptr) return Wrong("/ids", "is missing");
  if (const JsonValue* value = JsonFind(root, "rerank")) {
    FRESHET_ASSIGN(const bool rerank, ReadBool(*value, "/rerank"));  // all of them
    if (rerank) request.target.rerank.emplace();
  }
  FRESHET_ASSIGN(request.ids, ReadIds(*ids, "/ids", kMaxScoreIds));
  return request;
}

}  // namespace freshet
