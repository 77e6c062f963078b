#include <gtest/gtest.h>

#include <random>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(RecallJsonTest, ReadsEveryField) {
  const auto request = ParseRecallRequest(
      R"({"user": "u1", "k": 5, "exclude_ids": ["a", "é"], "exclude_seen": true, "params": {"ef": 200, "exact": true},
          "with_attributes": true, "score_threshold": -0.25, "timeout_ms": 50})");
  ASSERT_OK(request);
  EXPECT_EQ(request->user, "u1");
  EXPECT_FALSE(request->item);
  EXPECT_FALSE(request->vector);
  EXPECT_EQ(request->k, 5U);
  EXPECT_EQ(request->exclude_ids, (std::vector<std::string>{"a", "é"}));
  EXPECT_TRUE(request->exclude_seen);
  EXPECT_EQ(request->ef, 200U);
  EXPECT_TRUE(request->exact);
  EXPECT_TRUE(request->with_attributes);
  EXPECT_EQ(request->score_threshold, -0.25F);
  EXPECT_EQ(request->timeout_ms, 50);
  EXPECT_EQ(request->deadline_us, 0);
}

TEST(RecallJsonTest, HasDefaults) {
  const auto request = ParseRecallRequest(R"({"item": "i"})");
  ASSERT_OK(request);
  EXPECT_EQ(request->item, "i");
  EXPECT_EQ(request->k, 100U);
  EXPECT_FALSE(request->exclude_seen);
  EXPECT_FALSE(request->with_attributes);
  EXPECT_FALSE(request->score_threshold);
  EXPECT_EQ(request->timeout_ms, 0);
}

TEST(RecallJsonTest, ReadsOtherForms) {
  auto request = ParseRecallRequest(R"({"user": {"id": "u1"}, "with_payload": true})");
  ASSERT_OK(request);
  EXPECT_EQ(request->user, "u1");
  EXPECT_TRUE(request->with_attributes);
  request = ParseRecallRequest(R"({"vector": [1, -2.5, 3e-2, 0]})");
  ASSERT_OK(request);
  EXPECT_EQ(*request->vector, (std::vector<float>{1, -2.5F, 0.03F, 0}));
}

TEST(RecallJsonTest, ReadsHowToRerank) {
  const auto read = [](const std::string& rerank) {
    auto request = ParseRecallRequest(R"({"item": "i", "rerank": )" + rerank + "}");
    EXPECT_OK(request);
    return request.ok() ? request->rerank : std::nullopt;
  };
  EXPECT_FALSE(ParseRecallRequest(R"({"item": "i"})")->rerank);
  EXPECT_FALSE(read("false"));
  EXPECT_EQ(read("true")->candidates, 0U);
  EXPECT_EQ(read("{}")->candidates, 0U);
  EXPECT_EQ(read(R"({"candidates": 500})")->candidates, 500U);
}

TEST(RecallJsonTest, RefusesWithThePointerFirst) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"item": "i", "rerank": 1})", "/rerank: "},
      {R"({"item": "i", "rerank": {"candidate": 1}})", "/rerank/candidate: "},
      {R"({"item": "i", "rerank": {"candidates": 0}})", "/rerank/candidates: "},
      {R"({"item": "i", "rerank": {"candidates": 4001}})", "/rerank/candidates: "},
      {R"({"user": 7})", "/user: "},
      {R"({"user": ""})", "/user: "},
      {R"({"user": {}})", "/user/id: "},
      {R"({"user": {"id": null}})", "/user/id: "},
      {R"({"user": {"id": "a", "age": 3}})", "/user/age: "},
      {R"({"item": null})", "/item: "},
      {R"({"vector": 1})", "/vector: "},
      {R"({"vector": [1, "2"]})", "/vector/1: "},
      {R"({"vector": [1, null]})", "/vector/1: "},
      {R"({"vector": [1e39]})", "/vector/0: "},
      {R"({"k": 0})", "/k: "},
      {R"({"k": -1})", "/k: "},
      {R"({"k": 1001})", "/k: "},
      {R"({"k": 99999999999999999999999})", "/k: "},
      {R"({"k": 10.0})", "/k: "},
      {R"({"k": 1e2})", "/k: "},
      {R"({"k": "10"})", "/k: "},
      {R"({"k": true})", "/k: "},
      {R"({"k": 1, "k": 1})", "/k: is given twice"},
      {R"({"exclude_ids": "a"})", "/exclude_ids: "},
      {R"({"exclude_ids": ["a", 1]})", "/exclude_ids/1: "},
      {R"({"exclude_seen": 1})", "/exclude_seen: "},
      {R"({"params": []})", "/params: "},
      {R"({"params": {"ef": 0}})", "/params/ef: "},
      {R"({"params": {"ef": 1, "ef": 1}})", "/params/ef: is given twice"},
      {R"({"params": {"efs": 1}})", "/params/efs: unknown field"},
      {R"({"params": {"exact": "yes"}})", "/params/exact: "},
      {R"({"with_attributes": 0})", "/with_attributes: "},
      {R"({"with_attributes": true, "with_payload": true})", "/with_payload: "},
      {R"({"score_threshold": "high"})", "/score_threshold: "},
      {R"({"score_threshold": 1e300})", "/score_threshold: "},
      {R"({"timeout_ms": 0})", "/timeout_ms: "},
      {R"({"timeout_ms": 60001})", "/timeout_ms: "},
      {R"({"exclud_ids": []})", "/exclud_ids: unknown field; did you mean `exclude_ids`?"},
      {R"({"a/b: c": 1})", "field \"a/b: c\": unknown field"},
      {R"({"": 1})", "field \"\": unknown field"},
      {R"({"params": {"~": 1}})", "/params: field \"~\": unknown field"},
      {R"([])", "the body must be a JSON object"},
      {R"("user")", "the body must be a JSON object"},
      {"", "JSON is empty"},
      {"{", "JSON at byte "},
      {R"({"k": NaN})", "JSON at byte "},
      {R"({"score_threshold": 1e999})", "JSON at byte "},
      {R"({"k": 1} x)", "JSON at byte "},
      {"{\"user\": \"\xff\"}", "JSON is not UTF-8"},
      {StrCat(R"({"user": )", std::string(40, '['), std::string(40, ']'), "}"), "JSON at byte "},
  };
  for (const auto& [body, start] : cases) {
    const auto request = ParseRecallRequest(body);
    ASSERT_FALSE(request.ok()) << body;
    EXPECT_EQ(request.status().code(), Code::kInvalidArgument) << body;
    EXPECT_TRUE(request.status().message().starts_with(start)) << body << " -> " << request.status().message();
  }
}

TEST(RecallJsonTest, BoundsTheExcludedIds) {
  std::string body = R"({"exclude_ids": ["x")";
  for (std::size_t i = 1; i < kMaxExcludeIds; ++i) body += R"(,"x")";
  EXPECT_OK(ParseRecallRequest(body + "]}"));
  const auto request = ParseRecallRequest(body + R"(,"x"]})");
  ASSERT_FALSE(request.ok());
  EXPECT_TRUE(request.status().message().starts_with("/exclude_ids: ")) << request.status().message();
}

TEST(RecallJsonTest, SurvivesDamagedBodies) {
  std::mt19937_64 random(test::TestSeed());
  const std::string body =
      R"({"user":{"id":"u1"},"vector":[0.5,1e3],"k":5,"exclude_ids":["a","b"],"params":{"ef":20},"timeout_ms":50})";
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string damaged = body;
    for (std::uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      damaged[random() % damaged.size()] = static_cast<char>(random() % 256);
    }
    const auto request = ParseRecallRequest(damaged);
    if (request.ok()) {
      ++accepted;
      EXPECT_LE(request->k, kMaxK);
    } else {
      EXPECT_EQ(request.status().code(), Code::kInvalidArgument);
      EXPECT_TRUE(IsValidUtf8(request.status().message())) << damaged;
    }
  }
  EXPECT_LT(accepted, 20'000);
}

TEST(RecallJsonTest, WritesAnAnswer) {
  RecallResponse response;
  response.results.push_back({"a\"b", 0.9F, {{"in_stock", true}, {"title", std::string("Toy Story")}}});
  response.results.push_back({"c", 1e-7F, {}});
  response.index_version = 18'446'744'073'709'551'615U;
  response.model_version = "demo-1";
  response.as_of_ms = 1'306'863'540'123;
  response.took_ms = 0.5;
  EXPECT_EQ(RecallResponseToJson(response),
            R"({"results":[{"id":"a\"b","score":0.9,"attributes":{"in_stock":true,"title":"Toy Story"}},)"
            R"({"id":"c","score":1e-07}],"index_version":18446744073709551615,"model_version":"demo-1",)"
            R"("as_of":"2011-05-31T17:39:00.123Z","as_of_ms":1306863540123,"took_ms":0.5})");
}

TEST(RecallJsonTest, SaysWhenFreshnessIsUnknownAndTheAnswerIsDegraded) {
  RecallResponse response;
  response.degraded = "popularity";
  EXPECT_EQ(RecallResponseToJson(response),
            R"({"results":[],"index_version":0,"model_version":"","as_of":null,"as_of_ms":null,"took_ms":0.0,)"
            R"("degraded":"popularity"})");
}

TEST(RecallJsonTest, ScoresReadBackAsTheSameFloat) {
  std::mt19937_64 random(test::TestSeed());
  for (int i = 0; i < 1'000; ++i) {
    RecallResponse response;
    const float score = std::uniform_real_distribution<float>(-1, 1)(random);
    response.results.push_back({"a", score, {}});
    const auto json = ParseJson(RecallResponseToJson(response));
    ASSERT_OK(json);
    EXPECT_EQ(static_cast<float>((**json)["results"][0]["score"].GetDouble()), score);
  }
}

}  // namespace
}  // namespace freshet
