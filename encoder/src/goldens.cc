#include "goldens.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/record_codec.h"
#include "model_manifest.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxGoldens = 1000;

void WriteFloats(const char* key, const std::vector<float>& vector, JsonWriter* out) {
  out->Key(key).BeginArray();
  for (const float x : vector) out->Double(static_cast<double>(x));
  out->EndArray();
}

Result<std::string> ReadText(const JsonValue& object, const char* key) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr || !value->IsString()) return Corruption(StrCat("`", key, "` must be text"));
  return std::string(JsonText(*value));
}

Result<double> ReadNumber(const JsonValue& object, const char* key) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr || !value->IsNumber()) return Corruption(StrCat("`", key, "` must be a number"));
  return value->GetDouble();
}

Result<std::vector<float>> ReadFloats(const JsonValue& object, const char* key, std::size_t count) {
  const JsonValue* value = JsonFind(object, key);
  if (value == nullptr || !value->IsArray() || value->Size() != count) {
    return Corruption(StrCat("`", key, "` must be a list of ", count, " numbers"));
  }
  std::vector<float> vector;
  for (const JsonValue& x : value->GetArray()) {
    if (!x.IsNumber() || std::abs(x.GetDouble()) > static_cast<double>(std::numeric_limits<float>::max())) {
      return Corruption(StrCat("`", key, "` holds something that is not a finite float"));
    }
    vector.push_back(static_cast<float>(x.GetDouble()));
  }
  return vector;
}

Result<Features> ReadFeatures(const JsonValue& object) {
  const JsonValue* value = JsonFind(object, "features");
  Features features;
  if (value == nullptr) return features;
  if (!value->IsObject()) return Corruption("`features` must be an object");
  for (const auto& member : value->GetObject()) {
    std::string name(JsonText(member.name));
    if (member.value.IsNumber()) {
      features.emplace_back(std::move(name), member.value.GetDouble());
    } else if (member.value.IsString()) {
      features.emplace_back(std::move(name), std::string(JsonText(member.value)));
    } else if (member.value.IsArray()) {
      std::vector<std::string> parts;
      for (const JsonValue& part : member.value.GetArray()) {
        if (!part.IsString()) return Corruption(StrCat("feature `", name, "` must be a list of texts"));
        parts.emplace_back(JsonText(part));
      }
      features.emplace_back(std::move(name), std::move(parts));
    } else {
      return Corruption(StrCat("feature `", name, "` must be a number, a text or a list of texts"));
    }
  }
  std::sort(features.begin(), features.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return features;
}

Result<ItemUpdate> ReadItem(const JsonValue& entry, std::size_t dim) {
  ItemUpdate item;
  FRESHET_ASSIGN(item.item_id, ReadText(entry, "item_id"));
  FRESHET_ASSIGN(item.features, ReadFeatures(entry));
  FRESHET_ASSIGN(item.vector, ReadFloats(entry, "vector", dim));
  return item;
}

Result<UserContext> ReadUser(const JsonValue& entry) {
  UserContext user;
  FRESHET_ASSIGN(user.user_id, ReadText(entry, "user_id"));
  FRESHET_ASSIGN(user.features, ReadFeatures(entry));
  const JsonValue* history = JsonFind(entry, "history");
  if (history == nullptr || !history->IsArray()) return Corruption("`history` must be a list");
  for (const JsonValue& event : history->GetArray()) {
    HistoryEntry& one = user.history.emplace_back();
    FRESHET_ASSIGN(one.item_id, ReadText(event, "item_id"));
    FRESHET_ASSIGN(one.event, ReadText(event, "event"));
    FRESHET_ASSIGN(one.value, ReadNumber(event, "value"));
    FRESHET_ASSIGN(const double timestamp, ReadNumber(event, "timestamp"));
    if (std::abs(timestamp) > 9e15) return Corruption("`timestamp` is out of range");
    one.timestamp_ms = static_cast<std::int64_t>(timestamp);
  }
  return user;
}

Result<float> ReadSignal(const JsonValue& object, const char* key) {
  FRESHET_ASSIGN(const double number, ReadNumber(object, key));
  if (!(std::abs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) {
    return Corruption(StrCat("`", key, "` must be a finite float"));
  }
  return static_cast<float>(number);
}

Result<RerankGolden> ReadRerank(const JsonValue& entry, std::size_t dim) {
  RerankGolden golden;
  FRESHET_ASSIGN(golden.user, ReadUser(entry));
  FRESHET_ASSIGN(golden.user_vector, ReadFloats(entry, "vector", dim));
  const JsonValue* items = JsonFind(entry, "items");
  if (items == nullptr || !items->IsArray() || items->Empty() || items->Size() > kMaxGoldens) {
    return Corruption(StrCat("`items` must be a list of 1 to ", kMaxGoldens));
  }
  for (const JsonValue& item : items->GetArray()) {
    RerankCandidate& candidate = golden.candidates.emplace_back();
    FRESHET_ASSIGN(candidate.item, ReadItem(item, dim));
    FRESHET_ASSIGN(candidate.similarity, ReadSignal(item, "similarity"));
    FRESHET_ASSIGN(candidate.popularity, ReadSignal(item, "popularity"));
    FRESHET_ASSIGN(candidate.age_hours, ReadSignal(item, "age_hours"));
  }
  FRESHET_ASSIGN(golden.scores, ReadFloats(entry, "scores", golden.candidates.size()));
  return golden;
}

Status ReadEntry(std::string_view list, const JsonValue& entry, std::size_t dim, Goldens* goldens) {
  if (list == "items") {
    FRESHET_ASSIGN(goldens->items.emplace_back(), ReadItem(entry, dim));
  } else if (list == "users") {
    FRESHET_ASSIGN(goldens->users.emplace_back(), ReadUser(entry));
    FRESHET_ASSIGN(goldens->user_vectors.emplace_back(), ReadFloats(entry, "vector", dim));
  } else {
    FRESHET_ASSIGN(goldens->reranks.emplace_back(), ReadRerank(entry, dim));
  }
  return Status::Ok();
}

void WriteItem(const ItemUpdate& item, JsonWriter* out) {
  out->Key("item_id").String(item.item_id).Key("features").Raw(FeaturesToJson(item.features));
  WriteFloats("vector", item.vector, out);
}

void WriteUser(const UserContext& user, const std::vector<float>& vector, JsonWriter* out) {
  out->Key("user_id").String(user.user_id).Key("features").Raw(FeaturesToJson(user.features));
  out->Key("history").BeginArray();
  for (const HistoryEntry& event : user.history) {
    out->BeginObject().Key("item_id").String(event.item_id).Key("event").String(event.event);
    out->Key("value").Double(event.value).Key("timestamp").Int(event.timestamp_ms).EndObject();
  }
  out->EndArray();
  WriteFloats("vector", vector, out);
}

void WriteReranks(const std::vector<RerankGolden>& reranks, JsonWriter* out) {
  out->Key("reranks").BeginArray();
  for (const RerankGolden& golden : reranks) {
    out->BeginObject();
    WriteUser(golden.user, golden.user_vector, out);
    out->Key("items").BeginArray();
    for (const RerankCandidate& candidate : golden.candidates) {
      out->BeginObject();
      WriteItem(candidate.item, out);
      out->Key("similarity").Double(static_cast<double>(candidate.similarity));
      out->Key("popularity").Double(static_cast<double>(candidate.popularity));
      out->Key("age_hours").Double(static_cast<double>(candidate.age_hours)).EndObject();
    }
    out->EndArray();
    WriteFloats("scores", golden.scores, out);
    out->EndObject();
  }
  out->EndArray();
}

// Too little memory says nothing of the model.
Status NotAnswered(std::string_view where, const Status& status) {
  if (status.category() == Category::kTransient) return status.Prefixed(where);
  return Corruption(StrCat(where, ": ", status.message()));
}

Status Compare(const std::string& what, const Goldens& goldens, Metric metric, std::vector<float> wanted,
               std::span<const float> got) {
  const std::string where = StrCat(kGoldensFile, ": ", what, ": ");
  if (const Status status = PrepareVector(metric, static_cast<int>(got.size()), wanted); !status.ok()) {
    return Corruption(where + status.message());
  }
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(wanted[i]) - static_cast<double>(got[i])));
  }
  if (worst <= goldens.tolerance) return Status::Ok();
  return Corruption(StrCat(where, "the tower's answer is off by ", worst, " (tolerance ", goldens.tolerance, ")"));
}

}  // namespace

std::string GoldensToJson(const Goldens& goldens) {
  JsonWriter out;
  out.BeginObject().Key("tolerance").Double(goldens.tolerance).Key("items").BeginArray();
  for (const ItemUpdate& item : goldens.items) {
    out.BeginObject();
    WriteItem(item, &out);
    out.EndObject();
  }
  out.EndArray().Key("users").BeginArray();
  for (std::size_t i = 0; i < goldens.users.size(); ++i) {
    out.BeginObject();
    WriteUser(goldens.users[i], goldens.user_vectors[i], &out);
    out.EndObject();
  }
  out.EndArray();
  if (!goldens.reranks.empty()) WriteReranks(goldens.reranks, &out);
  out.EndObject();
  return out.Take();
}

Result<Goldens> GoldensFromJson(const std::string& text, int dim) {
  const auto parsed = ParseJson(text);
  if (!parsed.ok()) return Corruption(StrCat(kGoldensFile, ": ", parsed.status().message()));
  const JsonValue& root = **parsed;
  Goldens goldens;
  const Result<double> tolerance = ReadNumber(root, "tolerance");
  if (!tolerance.ok() || *tolerance <= 0 || *tolerance > 0.01) {
    return Corruption(StrCat(kGoldensFile, ": `tolerance` must be above 0 and at most 0.01"));
  }
  goldens.tolerance = *tolerance;
  for (const char* key : {"items", "users", "reranks"}) {
    const JsonValue* list = JsonFind(root, key);
    if (list == nullptr && std::string_view(key) == "reranks") continue;
    if (list == nullptr || !list->IsArray() || list->Empty() || list->Size() > kMaxGoldens) {
      return Corruption(StrCat(kGoldensFile, ": `", key, "` must be a list of 1 to ", kMaxGoldens));
    }
    for (const JsonValue& entry : list->GetArray()) {
      const Status status = ReadEntry(key, entry, static_cast<std::size_t>(dim), &goldens);
      if (!status.ok()) return status.Prefixed(StrCat(kGoldensFile, ": ", key));
    }
  }
  return goldens;
}

Status CheckGoldens(const Goldens& goldens, Metric metric, ItemEncoder* encoder) {
  const auto dim = static_cast<std::size_t>(encoder->dim());
  std::vector<const ItemUpdate*> items;
  for (const ItemUpdate& item : goldens.items) items.push_back(&item);
  std::vector<float> out(items.size() * dim);
  // All in one batch: rows must not depend on their neighbours, so each must equal what was computed when it was
  // written.
  if (const Status status = encoder->Encode(items, out); !status.ok()) {
    return NotAnswered(kGoldensFile, status);
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    FRESHET_TRY(Compare(StrCat("item `", items[i]->item_id, "`"), goldens, metric, items[i]->vector,
                        std::span(out).subspan(i * dim, dim)));
  }
  return Status::Ok();
}

Status CheckGoldens(const Goldens& goldens, Metric metric, const UserEncoder& encoder) {
  std::vector<float> out(static_cast<std::size_t>(encoder.dim()));
  for (std::size_t i = 0; i < goldens.users.size(); ++i) {
    const std::string what = StrCat("user `", goldens.users[i].user_id, "`");
    if (const Status status = encoder.Encode(goldens.users[i], out); !status.ok()) {
      return NotAnswered(StrCat(kGoldensFile, ": ", what), status);
    }
    FRESHET_TRY(Compare(what, goldens, metric, goldens.user_vectors[i], out));
  }
  return Status::Ok();
}

Status CheckGoldens(const Goldens& goldens, const Reranker& reranker) {
  for (const RerankGolden& golden : goldens.reranks) {
    const std::string where = StrCat(kGoldensFile, ": re-ranking for `", golden.user.user_id, "`");
    std::vector<float> scores(golden.scores.size());
    const Status status = reranker.Score(golden.user, golden.user_vector, golden.candidates, scores);
    if (!status.ok()) return NotAnswered(where, status);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const auto wanted = static_cast<double>(golden.scores[i]);
      const double off = std::abs(wanted - static_cast<double>(scores[i]));
      if (off <= goldens.tolerance * std::max(1.0, std::abs(wanted))) continue;
      return Corruption(StrCat(where, ": the score of `", golden.candidates[i].item.item_id, "` is off by ", off,
                               " (tolerance ", goldens.tolerance, ")"));
    }
  }
  return Status::Ok();
}

}  // namespace freshet
