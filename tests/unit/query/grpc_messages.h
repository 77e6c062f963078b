// Messages of gRPC, from text and back to what HTTP would have written.
#pragma once

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/query/recall_service.h"
#include "freshet/v1/recall.pb.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

// Back to what HTTP would have written.
template <typename Map>
Attributes AttributesOf(const Map& map) {
  Attributes attributes;
  for (const auto& [name, value] : map) {
    AttributeValue read;
    switch (value.kind_case()) {
      case v1::AttributeValue::kFlag:
        read = value.flag();
        break;
      case v1::AttributeValue::kInteger:
        read = std::int64_t{value.integer()};
        break;
      case v1::AttributeValue::kNumber:
        read = value.number();
        break;
      case v1::AttributeValue::kText:
        read = value.text();
        break;
      case v1::AttributeValue::kTexts:
        read = std::vector<std::string>(value.texts().values().begin(), value.texts().values().end());
        break;
      case v1::AttributeValue::kFlags:
        read = std::vector<bool>(value.flags().values().begin(), value.flags().values().end());
        break;
      case v1::AttributeValue::kIntegers:
        read = std::vector<std::int64_t>(value.integers().values().begin(), value.integers().values().end());
        break;
      case v1::AttributeValue::kNumbers:
        read = std::vector<double>(value.numbers().values().begin(), value.numbers().values().end());
        break;
      case v1::AttributeValue::KIND_NOT_SET:
        ADD_FAILURE() << name << " has no value";
    }
    attributes.emplace_back(name, std::move(read));
  }
  std::sort(attributes.begin(), attributes.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return attributes;
}

inline RecallResponse ResponseOf(const v1::RecallResponse& message) {
  RecallResponse response;
  for (const v1::Hit& hit : message.results()) {
    RecallHit& one = response.results.emplace_back();
    one.id = hit.id();
    one.score = hit.score();
    one.attributes = AttributesOf(hit.attributes());
    if (hit.has_parts()) {
      one.parts = ScoreParts{hit.parts().similarity(), hit.parts().popularity(), hit.parts().recency()};
    }
    if (hit.has_similarity()) one.similarity = hit.similarity();
  }
  response.index_version = message.index_version();
  response.model_version = message.model_version();
  response.as_of_ms = message.as_of_ms();
  response.took_ms = message.took_ms();
  response.degraded = message.degraded();
  if (message.has_explain()) {
    Explanation& explanation = response.explanation.emplace();
    explanation.path = message.explain().path();
    explanation.live = message.explain().live();
    explanation.matching = message.explain().matching();
    explanation.candidates = message.explain().candidates();
    explanation.searches = message.explain().searches();
    if (message.explain().has_reranked()) explanation.reranked = message.explain().reranked();
    for (const auto& [stage, ms] : message.explain().stage_ms()) explanation.stage_ms.emplace_back(stage, ms);
  }
  return response;
}

// Without what no two answers have in common: times.
inline std::string Timeless(const std::string& json) {
  const auto document = ParseJson(json);
  EXPECT_OK(document);
  if (!document.ok()) return json;
  JsonDocument& root = **document;
  for (const char* answer : {"/answer", ""}) {
    JsonValue* value = JsonPointer(answer).Get(root);
    if (value == nullptr || !value->IsObject()) continue;
    value->RemoveMember("took_ms");
    if (value->HasMember("explain")) (*value)["explain"].RemoveMember("stage_ms");
  }
  return ToJson(root);
}

}  // namespace freshet::test
