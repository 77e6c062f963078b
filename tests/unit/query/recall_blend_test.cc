// Scores blended of similarity, popularity and recency.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_service.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;

class RecallBlendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    replica_.Put("near", {1, 0}, {{"added", std::string("2011-05-01T00:00:00Z")}, {"kind", std::string("x")}});
    replica_.Put("loved", {0.9F, 0}, {{"kind", std::string("x")}});
    replica_.Put("new", {0.8F, 0}, {{"added", std::string("2011-05-31T17:39:00Z")}, {"kind", std::string("y")}});
    replica_.popular = {{"loved", std::exp(2) - 1}, {"near", 0}};
    replica_.changed_ms = {{"near", replica_.as_of - 48 * kHourMs}, {"loved", replica_.as_of + 5}};
  }
  static RecallRequest Request(const BlendWeights& weights) {
    RecallRequest request;
    request.vector = {1, 0};
    request.weights = weights;
    return request;
  }
  static BlendWeights Weights(double similarity, double popularity, double recency, double half_life_hours = 168) {
    BlendWeights weights;
    weights.similarity = similarity;
    weights.popularity = popularity;
    weights.recency = recency;
    weights.half_life_hours = half_life_hours;
    return weights;
  }
  std::vector<RecallHit> Ask(const RecallRequest& request) {
    const Result<RecallResponse> response = service_.Recall(request);
    EXPECT_OK(response);
    return response.ok() ? response->results : std::vector<RecallHit>{};
  }
  std::string Ids(const RecallRequest& request) {
    std::string ids;
    for (const RecallHit& hit : Ask(request)) ids += StrCat(ids.empty() ? "" : " ", hit.id);
    return ids;
  }

  test::FakeReplica replica_;
  test::FakeUserEncoder encoder_;
  ManualClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
};

TEST_F(RecallBlendTest, EachWeightMovesItsOwn) {
  EXPECT_EQ(Ids(Request(Weights(1, 0, 0))), "near loved new");
  EXPECT_EQ(Ids(Request(Weights(1, 0.1, 0))), "loved near new");
  EXPECT_EQ(Ids(Request(Weights(-1, 0, 0))), "new loved near");
  EXPECT_EQ(Ids(Request(Weights(1, -0.1, 0))), "near new loved");
  BlendWeights by_attribute = Weights(1, 0, 1, 24);
  by_attribute.recency_of = "added";
  EXPECT_EQ(Ids(Request(by_attribute)), "new near loved") << "loved has no such attribute";
}

TEST_F(RecallBlendTest, TheScoreIsTheSumOfItsParts) {
  RecallRequest request = Request(Weights(2, 0.5, 0.25, 24));
  EXPECT_FALSE(Ask(request)[0].parts) << "only where an explanation is asked for";
  request.explain = true;
  std::map<std::string, RecallHit> hits;
  for (const RecallHit& hit : Ask(request)) hits[hit.id] = hit;
  ASSERT_EQ(hits.size(), 3U);
  for (const auto& [id, hit] : hits) {
    ASSERT_TRUE(hit.parts);
    EXPECT_NEAR(hit.score, 2 * hit.parts->similarity + 0.5F * hit.parts->popularity + 0.25F * hit.parts->recency, 1e-6);
  }
  EXPECT_FLOAT_EQ(hits["near"].parts->similarity, 1);
  EXPECT_FLOAT_EQ(hits["near"].parts->recency, 0.25F) << "two half-lives";
  EXPECT_FLOAT_EQ(hits["loved"].parts->popularity, 2);
  EXPECT_FLOAT_EQ(hits["loved"].parts->recency, 1) << "newer than the answer is not more than new";
  EXPECT_FLOAT_EQ(hits["new"].parts->recency, 0) << "nothing is known of when it changed";
}

TEST_F(RecallBlendTest, ThresholdAndMaxPerGoByTheBlendedScore) {
  RecallRequest request = Request(Weights(0, 1, 0));
  request.score_threshold = 1.5F;
  EXPECT_EQ(Ids(request), "loved");
  request = Request(Weights(1, 0.1, 0));
  request.max_per = {{"kind", 1}};
  EXPECT_EQ(Ids(request), "loved new");
  request.k = 1;
  EXPECT_EQ(Ids(request), "loved");
}

TEST_F(RecallBlendTest, WhatIsBlendedAreTheMostSimilarThatMatch) {
  const unsigned seed = std::random_device{}();
  RecordProperty("seed", static_cast<int>(seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0, 0.5F);
  for (int i = 0; i < 1'000; ++i) {
    const std::string id = StrCat("i", i);
    replica_.Put(id, {uniform(random), uniform(random)}, {{"even", i % 2 == 0}});
    replica_.popular.emplace_back(id, uniform(random) * 10);
  }
  for (const bool filtered : {false, true}) {
    RecallRequest request = Request(Weights(1, 0.3, 0));
    request.k = 60;  // of the 240 most similar
    if (filtered) request.filter.emplace().condition = AnyCondition("even", {FilterValue(true)});
    RecallRequest similar = request;
    similar.weights.reset();
    similar.k = 240;
    std::vector<RecallHit> expected = Ask(similar);
    std::map<std::string, double> counts(replica_.popular.begin(), replica_.popular.end());
    for (RecallHit& hit : expected) hit.score += static_cast<float>(0.3 * std::log1p(counts[hit.id]));
    std::sort(expected.begin(), expected.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
    const std::vector<RecallHit> hits = Ask(request);
    ASSERT_EQ(hits.size(), 60U) << "seed " << seed;
    for (std::size_t i = 0; i < hits.size(); ++i)
      EXPECT_NEAR(hits[i].score, expected[i].score, 1e-5) << "seed " << seed;
  }
}

TEST_F(RecallBlendTest, GivenIdsAreBlendedToo) {
  const auto scored = service_.Score(Request(Weights(1, 0.1, 0)), {"near", "loved", "gone"});
  ASSERT_OK(scored);
  ASSERT_EQ(scored->answer.results.size(), 2U);
  EXPECT_EQ(scored->answer.results[0].id, "loved");
  EXPECT_FLOAT_EQ(scored->answer.results[0].score, 1.1F);
}

TEST_F(RecallBlendTest, PopularItemsAreAnsweredAsTheyAre) {
  RecallRequest request;
  request.user = "nobody";
  request.weights = Weights(1, -1, 0);
  EXPECT_EQ(Ids(request), "loved near new");
}

TEST_F(RecallBlendTest, NamesTheWrongWeight) {
  const auto refusal = [&](const BlendWeights& weights) {
    const Status status = service_.Recall(Request(weights)).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return std::string(status.message().substr(0, status.message().find(':')));
  };
  EXPECT_EQ(refusal(Weights(std::nan(""), 0, 0)), "/weights/similarity");
  EXPECT_EQ(refusal(Weights(1, 1e7, 0)), "/weights/popularity");
  EXPECT_EQ(refusal(Weights(1, 0, -std::numeric_limits<double>::infinity())), "/weights/recency");
  EXPECT_EQ(refusal(Weights(1, 0, 0, 0)), "/weights/half_life_hours");
  EXPECT_EQ(refusal(Weights(1, 0, 0, std::nan(""))), "/weights/half_life_hours");
  // The largest numbers there are still give a score that is one.
  replica_.Put("huge", {std::numeric_limits<float>::max(), 0});
  EXPECT_EQ(Ask(Request(Weights(kMaxWeight, 0, 0)))[0].score, std::numeric_limits<float>::max());
}

}  // namespace
}  // namespace freshet
