// Candidates scored once more by a re-ranker, and what becomes of a recall whose re-ranker fails.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <tuple>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_service.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;

class RecallRerankTest : public ::testing::Test {
 protected:
  void SetUp() override {
    replica_.Put("a", {0.9F, 0}, {{"kind", std::string("x")}, {"price", std::int64_t{3}}});
    replica_.Put("b", {0.8F, 0}, {{"kind", std::string("x")}});
    replica_.Put("c", {0.7F, 0}, {{"kind", std::string("y")}});
    reranker_.scores = {{"a", 1}, {"b", 3}, {"c", 2}};
  }
  static RecallRequest Request(std::size_t k = 100, std::size_t candidates = 0) {
    RecallRequest request;
    request.vector = {1, 0};
    request.k = k;
    request.rerank = RerankOptions{candidates};
    return request;
  }
  RecallResponse Ask(const RecallRequest& request) {
    Result<RecallResponse> response = service_.Recall(request);
    EXPECT_OK(response);
    return response.ok() ? std::move(*response) : RecallResponse{};
  }
  static std::string Ids(const RecallResponse& response) {
    std::string ids;
    for (const RecallHit& hit : response.results) ids += StrCat(ids.empty() ? "" : " ", hit.id);
    return ids;
  }
  std::string Ids(const RecallRequest& request) { return Ids(Ask(request)); }
  double Failures() { return metrics_.GetCounter("freshet_query_rerank_failures_total", "").Value(); }

  test::FakeReplica replica_;
  test::FakeUserEncoder encoder_;
  test::FakeReranker reranker_;
  ManualClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_, {}, &reranker_};
};

TEST_F(RecallRerankTest, TheScoresAreTheRerankersAndTiesGoById) {
  const RecallResponse response = Ask(Request());
  EXPECT_EQ(Ids(response), "b c a");
  EXPECT_EQ(response.results[0].score, 3);
  EXPECT_EQ(response.degraded, "");
  EXPECT_EQ(Ids(Request(1)), "b");
  reranker_.scores = {{"a", 1}, {"b", 2}, {"c", 2}};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Ids(Request()), "b c a");
  RecallRequest plain = Request();
  plain.rerank.reset();
  EXPECT_EQ(Ids(plain), "a b c");
  EXPECT_EQ(Failures(), 0);
}

TEST_F(RecallRerankTest, OnlySoManyCandidatesAreLookedAt) {
  EXPECT_EQ(Ids(Request(1, 2)), "b");
  EXPECT_EQ(reranker_.last.size(), 2U);
  reranker_.scores["c"] = 9;
  EXPECT_EQ(Ids(Request(2, 2)), "b a") << "c is not among the two most similar";
  for (int i = 0; i < 300; ++i) replica_.Put(StrCat("i", i), {0.1F, 0});
  EXPECT_EQ(Ids(Request(1)), "c");
  EXPECT_EQ(reranker_.last.size(), 200U);
  (void)Ask(Request(70));
  EXPECT_EQ(reranker_.last.size(), 280U);
  const auto refusal = [&](std::size_t k, std::size_t candidates) {
    const Status status = service_.Recall(Request(k, candidates)).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return std::string(status.message().substr(0, status.message().find(':')));
  };
  EXPECT_EQ(refusal(10, 9), "/rerank/candidates");
  EXPECT_EQ(refusal(10, kMaxRerankCandidates + 1), "/rerank/candidates");
  EXPECT_OK(service_.Recall(Request(kMaxK)));
}

TEST_F(RecallRerankTest, GetsAllThatIsKnown) {
  replica_.users["ann"].history = {{"x", "view", 1, 0}};  // looks along (1, 0)
  replica_.users["ann"].features = {{"age", 33.0}};
  replica_.popular = {{"b", std::exp(2) - 1}};
  replica_.changed_ms = {{"a", replica_.as_of - 48 * kHourMs}, {"b", replica_.as_of + 5}};
  RecallRequest request = Request();
  request.vector.reset();
  request.user = "ann";
  (void)Ask(request);
  EXPECT_EQ(reranker_.last_user.user_id, "ann");
  EXPECT_EQ(reranker_.last_user.history.size(), 1U);
  EXPECT_EQ(reranker_.last_user.features.size(), 1U);
  EXPECT_EQ(reranker_.last_vector, (std::vector<float>{1, 0}));
  ASSERT_EQ(reranker_.last.size(), 3U);
  const auto& [a, b, c] = std::tie(reranker_.last[0], reranker_.last[1], reranker_.last[2]);
  EXPECT_EQ(a.item.item_id, "a");
  EXPECT_EQ(a.item.vector, (std::vector<float>{0.9F, 0}));
  EXPECT_FLOAT_EQ(a.similarity, 0.9F);
  EXPECT_FLOAT_EQ(a.age_hours, 48);
  EXPECT_FLOAT_EQ(b.age_hours, 0) << "newer than the answer is not younger than new";
  EXPECT_FLOAT_EQ(c.age_hours, -1);
  EXPECT_FLOAT_EQ(b.popularity, 2);
  EXPECT_TRUE(a.item.features.empty()) << "not asked for";
  reranker_.features = true;
  (void)Ask(Request());
  EXPECT_EQ(reranker_.last[0].item.features, (Features{{"kind", std::string("x")}, {"price", 3.0}}));
  EXPECT_EQ(reranker_.last_user.user_id, "") << "a vector is nobody's";
}

TEST_F(RecallRerankTest, AFailureAnswersTheRecallsOrderAndSaysSo) {
  reranker_.fails_from = 1;
  RecallRequest request = Request();
  request.explain = true;
  const RecallResponse response = Ask(request);
  EXPECT_EQ(Ids(response), "a b c");
  EXPECT_FLOAT_EQ(response.results[0].score, 0.9F);
  EXPECT_FALSE(response.results[0].similarity);
  EXPECT_EQ(response.degraded, "rerank");
  EXPECT_EQ(response.explanation->reranked, 0U);
  EXPECT_EQ(Failures(), 1);
  EXPECT_EQ(metrics_.GetCounter("freshet_query_degraded_total", "").Value(), 1);
  request.k = 2;
  EXPECT_EQ(Ids(request), "a b");
}

TEST_F(RecallRerankTest, WithoutOneOrOfAnotherSpaceLikewise) {
  const RecallService without(&replica_, &encoder_, &clock_, &metrics_);
  auto response = without.Recall(Request(2));
  ASSERT_OK(response);
  EXPECT_EQ(Ids(*response), "a b");
  EXPECT_EQ(response->degraded, "rerank");
  reranker_.space = "space-2";
  EXPECT_EQ(Ask(Request()).degraded, "rerank");
  EXPECT_EQ(reranker_.calls, 0) << "never sees vectors of another space";
  EXPECT_EQ(Failures(), 2);
}

TEST_F(RecallRerankTest, MaxPerGoesByItsScores) {
  RecallRequest request = Request();
  request.max_per = {{"kind", 1}};
  EXPECT_EQ(Ids(request), "b c");
  // It fails where the search for other values goes on: no two kinds of scores in one answer.
  reranker_.calls = 0;
  reranker_.fails_from = 2;
  const RecallResponse response = Ask(request);
  EXPECT_EQ(reranker_.calls, 2);
  EXPECT_EQ(Ids(response), "a c");
  EXPECT_FLOAT_EQ(response.results[0].score, 0.9F);
  EXPECT_EQ(response.degraded, "rerank");
}

TEST_F(RecallRerankTest, ThresholdsAreOfTheRecallsScores) {
  RecallRequest request = Request();
  request.score_threshold = 0.75F;
  EXPECT_EQ(Ids(request), "b a");
}

TEST_F(RecallRerankTest, PopularItemsAreAnsweredAsTheyAre) {
  replica_.popular = {{"a", 2}};
  RecallRequest request = Request();
  request.vector.reset();
  request.user = "nobody";
  const RecallResponse response = Ask(request);
  EXPECT_EQ(Ids(response), "a b c");
  EXPECT_EQ(response.degraded, "popularity");
  EXPECT_EQ(reranker_.calls, 0);
}

TEST_F(RecallRerankTest, ExplainsItself) {
  reranker_.on_score = [&] { clock_.AdvanceMs(3); };
  RecallRequest request = Request();
  request.explain = true;
  const RecallResponse response = Ask(request);
  EXPECT_EQ(response.explanation->reranked, 3U);
  std::map<std::string, double> stages(response.explanation->stage_ms.begin(), response.explanation->stage_ms.end());
  EXPECT_DOUBLE_EQ(stages["rerank"], 3);
  EXPECT_DOUBLE_EQ(stages["search"], 0) << "without it";
  ASSERT_TRUE(response.results[0].similarity);
  EXPECT_FLOAT_EQ(*response.results[0].similarity, 0.8F);
  request.explain = false;
  EXPECT_FALSE(Ask(request).results[0].similarity);
}

TEST_F(RecallRerankTest, HasTheRequestsTime) {
  reranker_.on_score = [&] { clock_.AdvanceMs(20); };
  RecallRequest request = Request();
  request.timeout_ms = 10;
  EXPECT_EQ(service_.Recall(request).status().code(), Code::kDeadlineExceeded);
}

TEST_F(RecallRerankTest, WhatHasGoneMeanwhileIsNoCandidate) {
  replica_.vectors.erase("b");
  EXPECT_EQ(Ids(Request()), "c a");
}

TEST_F(RecallRerankTest, GivenIdsAreRerankedToo) {
  auto scored = service_.Score(Request(), {"a", "b", "gone"});
  ASSERT_OK(scored);
  EXPECT_EQ(Ids(scored->answer), "b a");
  reranker_.fails_from = 1;
  scored = service_.Score(Request(), {"a", "b"});
  ASSERT_OK(scored);
  EXPECT_EQ(Ids(scored->answer), "a b");
  EXPECT_EQ(scored->answer.degraded, "rerank");
}

TEST_F(RecallRerankTest, OnlyOneMakesTheScores) {
  RecallRequest request = Request();
  request.weights.emplace();
  const Status status = service_.Recall(request).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(status.message().starts_with("/rerank: ")) << status.message();
}

}  // namespace
}  // namespace freshet
