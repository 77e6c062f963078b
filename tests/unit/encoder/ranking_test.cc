#include "ranking.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "bootstrap.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr float kOut = -INFINITY;

TEST(RankingTest, TopKEqualsASort) {
  std::mt19937_64 random(test::TestSeed());
  for (int round = 0; round < 50; ++round) {
    const std::size_t count = 1 + random() % 200;
    std::vector<float> scores;
    for (std::size_t i = 0; i < count; ++i) {
      scores.push_back(random() % 5 == 0 ? kOut : static_cast<float>(random() % 10));  // many ties
    }
    std::vector<std::uint32_t> tie(count);
    std::iota(tie.begin(), tie.end(), 0U);
    std::shuffle(tie.begin(), tie.end(), random);
    std::vector<std::int32_t> all;
    for (std::size_t i = 0; i < count; ++i) {
      if (scores[i] != kOut) all.push_back(static_cast<std::int32_t>(i));
    }
    std::sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) {
      const auto x = static_cast<std::size_t>(a);
      const auto y = static_cast<std::size_t>(b);
      return scores[x] != scores[y] ? scores[x] > scores[y] : tie[x] < tie[y];
    });
    const std::vector<std::int32_t> wanted(all.begin(),
                                           all.begin() + static_cast<int>(std::min<std::size_t>(7, all.size())));
    EXPECT_EQ(TopK(scores, tie, 7), wanted);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::int32_t relevant[] = {all[i]};
      EXPECT_DOUBLE_EQ(ReciprocalRank(scores, tie, relevant), 1.0 / static_cast<double>(i + 1));
    }
  }
}

TEST(RankingTest, AConstantScoreDoesNotProfitFromTheOrderOfItems) {
  const std::vector<float> scores(4, 1.0F);
  const std::vector<std::uint32_t> tie = {3, 1, 0, 2};
  EXPECT_EQ(TopK(scores, tie, 3), (std::vector<std::int32_t>{2, 1, 3}));
}

TEST(RankingTest, WhatIsNotRankedIsNoHit) {
  const std::vector<float> scores = {1, kOut, 2};
  const std::vector<std::uint32_t> tie = {0, 1, 2};
  EXPECT_EQ(TopK(scores, tie, 3), (std::vector<std::int32_t>{2, 0}));
  EXPECT_EQ(ReciprocalRank(scores, tie, std::vector<std::int32_t>{1}), 0);
}

// By hand: hits at ranks 1 and 3 of 4, three relevant.
TEST(RankingTest, MetricsByHand) {
  const std::vector<std::int32_t> ranked = {7, 1, 9, 2};
  const std::vector<std::int32_t> relevant = {7, 8, 9};
  const RankMetrics all = JudgeRanking(ranked, relevant, 4);
  EXPECT_DOUBLE_EQ(all.recall, 2.0 / 3);
  EXPECT_DOUBLE_EQ(all.hit_rate, 1);
  EXPECT_DOUBLE_EQ(all.hits, 2);
  EXPECT_NEAR(all.ndcg, (1 + 0.5) / (1 + 1 / std::log2(3.0) + 0.5), 1e-12);
  const RankMetrics two = JudgeRanking(ranked, relevant, 2);
  EXPECT_DOUBLE_EQ(two.recall, 1.0 / 3);
  EXPECT_NEAR(two.ndcg, 1 / (1 + 1 / std::log2(3.0)), 1e-12) << "the ideal is of two";
  EXPECT_DOUBLE_EQ(JudgeRanking(std::vector<std::int32_t>{1, 2}, relevant, 2).hit_rate, 0);
}

TEST(BootstrapTest, IntervalsHoldTheValueAndShrinkWithUsers) {
  std::mt19937_64 random(test::TestSeed());
  double width[2] = {};
  for (int size = 0; size < 2; ++size) {
    std::vector<UserSums> systems(2, UserSums(1));
    for (int user = 0; user < (size == 0 ? 40 : 4000); ++user) {
      const auto x = static_cast<double>(random() % 100);
      systems[0].Add(x, 1);
      systems[1].Add(2 * x, 1);
    }
    const std::vector<Resampled> results = Bootstrap(systems, 0, 300, 1);
    const Measured& one = results[0].metrics[0];
    EXPECT_LT(one.low, one.value);
    EXPECT_GT(one.high, one.value);
    width[size] = one.high - one.low;
    // The same users are drawn for both: their ratio does not vary at all.
    EXPECT_NEAR(results[1].ratios[0].low, 2, 1e-9);
    EXPECT_NEAR(results[1].ratios[0].high, 2, 1e-9);
  }
  EXPECT_LT(width[1], width[0] / 4);
}

TEST(BootstrapTest, SumsAreDividedAfterwards) {
  std::vector<UserSums> systems(1, UserSums(1));
  systems[0].Add(1, 1);
  systems[0].Add(0, 3);
  const std::vector<Resampled> results = Bootstrap(systems, 0, 0, 1);
  EXPECT_DOUBLE_EQ(results[0].metrics[0].value, 0.25);
  EXPECT_DOUBLE_EQ(results[0].metrics[0].high, 0.25) << "no resamples, no interval";
}

}  // namespace
}  // namespace freshet
