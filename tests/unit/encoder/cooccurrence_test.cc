#include "cooccurrence.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

// Users with up to 80 interactions, some items far more popular than others.
EvaluationHistory RandomHistory(std::uint64_t seed, std::size_t users, std::size_t items) {
  std::mt19937_64 random(seed);
  EvaluationHistory history;
  history.items.resize(items);
  history.users.resize(users);
  history.seen.resize(users);
  history.counts.resize(items);
  for (auto& seen : history.seen) {
    for (std::size_t left = random() % 80; left > 0; --left) {
      const std::size_t item = (random() % items) * (random() % items) / items;
      seen.push_back(static_cast<std::int32_t>(item));
      ++history.counts[item];
    }
  }
  return history;
}

std::vector<float> Scores(Scorer* scorer, const EvaluationHistory& history) {
  std::vector<std::int32_t> users;
  for (std::size_t user = 0; user < history.users.size(); ++user) users.push_back(static_cast<std::int32_t>(user));
  std::vector<float> out(users.size() * history.items.size());
  EXPECT_OK(scorer->Score(users, out));
  return out;
}

// As it is defined, user by user.
std::vector<double> ByDefinition(const EvaluationHistory& history) {
  const std::size_t items = history.items.size();
  std::vector<std::set<std::int32_t>> taken;
  for (const auto& seen : history.seen) taken.emplace_back(seen.begin(), seen.end());
  std::vector<double> users(items);
  for (const auto& one : taken) {
    for (const std::int32_t item : one) ++users[static_cast<std::size_t>(item)];
  }
  const auto most = static_cast<double>(*std::max_element(history.counts.begin(), history.counts.end()));
  std::vector<double> out;
  for (std::size_t user = 0; user < taken.size(); ++user) {
    const auto& seen = history.seen[user];
    const std::set<std::int32_t> newest(
        seen.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(seen.size(), 50)), seen.end());
    for (std::size_t j = 0; j < items; ++j) {
      double score = 1e-6 * static_cast<double>(history.counts[j]) / most;
      for (const std::int32_t i : newest) {
        double both = 0;
        for (std::size_t other = 0; other < taken.size(); ++other) {
          both += other != user && taken[other].contains(i) && taken[other].contains(static_cast<std::int32_t>(j));
        }
        if (both > 0) score += both / std::sqrt(users[static_cast<std::size_t>(i)] * users[j]);
      }
      out.push_back(score);
    }
  }
  return out;
}

TEST(CooccurrenceTest, IsWhatItsDefinitionSays) {
  const EvaluationHistory history = RandomHistory(3, 40, 60);
  const auto scorer = MakeCooccurrenceScorer(history, {});
  const std::vector<double> wanted = ByDefinition(history);
  for (int again = 0; again < 2; ++again) {
    const std::vector<float> scores = Scores(scorer.get(), history);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      ASSERT_NEAR(scores[i], wanted[i], 1e-5 * (1 + wanted[i])) << "user " << i / 60 << ", item " << i % 60;
    }
  }
}

// Of 300 items each keeps 50: the most similar, so what comes first still comes first.
TEST(CooccurrenceTest, KeepsTheMostSimilarWhereNeighboursAreTooMany) {
  EvaluationHistory history = RandomHistory(4, 400, 300);
  // One more user, with a single item: the scores are the similarities to it.
  history.users.emplace_back();
  history.seen.push_back({7});
  ++history.counts[7];
  const std::vector<float> exact = Scores(MakeCooccurrenceScorer(history, {}).get(), history);
  CooccurrenceLimits few;
  few.neighbours = 1;
  const std::vector<float> cut = Scores(MakeCooccurrenceScorer(history, few).get(), history);
  std::vector<float> a(exact.end() - 300, exact.end());
  std::vector<float> b(cut.end() - 300, cut.end());
  EXPECT_EQ(std::count_if(b.begin(), b.end(), [](float score) { return score > 1e-5F; }), 50);
  EXPECT_GT(std::count_if(a.begin(), a.end(), [](float score) { return score > 1e-5F; }), 100);
  for (std::size_t item = 0; item < 300; ++item) {
    if (b[item] > 1e-5F) {
      EXPECT_EQ(a[item], b[item]);
    }
  }
  std::sort(a.begin(), a.end(), std::greater<>());
  std::sort(b.begin(), b.end(), std::greater<>());
  for (std::size_t i = 0; i < 50; ++i) EXPECT_NEAR(a[i], b[i], 1e-5) << "popularity may part equals";
}

TEST(CooccurrenceTest, CountsAFixedSampleWhereUsersAreTooMany) {
  EvaluationHistory history = RandomHistory(5, 200, 50);
  // A crawler that alone is too much is left out, and nobody else with it.
  CooccurrenceLimits limits;
  limits.looks = 1500.0 * 1500;
  EvaluationHistory crawled = history;
  crawled.items.resize(2000);
  history.items.resize(2000);
  history.counts.resize(2000);
  crawled.counts.resize(2000);
  crawled.users.emplace_back();
  crawled.seen.emplace_back();
  for (std::int32_t item = 0; item < 2000; ++item) crawled.seen.back().push_back(item);
  const std::vector<float> without = Scores(MakeCooccurrenceScorer(history, limits).get(), history);
  std::vector<float> with = Scores(MakeCooccurrenceScorer(crawled, limits).get(), crawled);
  with.resize(without.size());
  EXPECT_EQ(with, without);

  limits.looks = 10'000;
  const std::vector<float> sampled = Scores(MakeCooccurrenceScorer(history, limits).get(), history);
  EXPECT_NE(sampled, without);
  EXPECT_EQ(sampled, Scores(MakeCooccurrenceScorer(history, limits).get(), history)) << "by seed";
  EXPECT_TRUE(std::all_of(sampled.begin(), sampled.end(), [](float score) { return std::isfinite(score); }));
}

}  // namespace
}  // namespace freshet
