// The bodies of answers.
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "freshet/core/json.h"
#include "freshet/ingest/record_codec.h"
#include "freshet/query/http_server.h"
#include "recall_json.h"

namespace freshet {
namespace {

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

// All but the closing brace.
void BeginAnswer(const RecallResponse& response, JsonWriter* out) {
  out->BeginObject().Key("results").BeginArray();
  for (const RecallHit& hit : response.results) {
    out->BeginObject().Key("id").String(hit.id).Key("score");
    WriteFloat(hit.score, out);
    if (hit.parts) {
      out->Key("parts").BeginObject().Key("similarity");
      WriteFloat(hit.parts->similarity, out);
      out->Key("popularity");
      WriteFloat(hit.parts->popularity, out);
      out->Key("recency");
      WriteFloat(hit.parts->recency, out);
      out->EndObject();
    }
    if (hit.similarity) {
      out->Key("similarity");
      WriteFloat(*hit.similarity, out);
    }
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
  out->Key("searches").Uint(explanation.searches);
  if (explanation.reranked) out->Key("reranked").Uint(*explanation.reranked);
  out->Key("stage_ms").BeginObject();
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
  out.BeginObject().Key("id").String(user.id).Key("features").Raw(FeaturesToJson(user.state.features));
  out.Key("history").BeginArray();
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
  if (!item.not_live.empty()) out.Key("not_live").String(item.not_live);
  out.Key("sequence").Uint(item.sequence);
  if (item.changed_ms) out.Key("changed").String(Rfc3339(*item.changed_ms)).Key("changed_ms").Int(*item.changed_ms);
  out.Key("attributes").Raw(AttributesToJson(item.attributes));
  if (item.vector) {
    out.Key("vector").BeginArray();
    for (const float x : *item.vector) WriteFloat(x, &out);
    out.EndArray();
  }
  return out.Key("index_version").Uint(item.index_version).EndObject().Take();
}

}  // namespace freshet
