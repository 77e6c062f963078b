// `max_per` where it is hard, and popular items.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_service.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Ids = std::vector<std::string>;

// Each look at it takes a millisecond.
class TickingClock final : public Clock {
 public:
  [[nodiscard]] std::int64_t WallMs() const override { return 1'700'000'000'000; }
  [[nodiscard]] std::int64_t MonotonicUs() const override { return ticks_ += 1'000; }

 private:
  mutable std::int64_t ticks_ = 0;
};

class RecallDiverseTest : public ::testing::Test {
 protected:
  // Items of one category lie together, by score and by slot.
  void PutCategories(int categories, int of_each) {
    for (int c = 0; c < categories; ++c) {
      for (int i = 0; i < of_each; ++i) {
        const float score = 1.0F - static_cast<float>(c) * 1e-2F - static_cast<float>(i) * 1e-5F;
        replica_.Put(StrCat("c", c, "-", i), {score, 0}, {{"category", StrCat("c", c)}});
      }
    }
  }
  static RecallRequest OnePer(const std::string& attribute, std::size_t k) {
    RecallRequest request;
    request.vector = {1, 0};
    request.max_per = {{attribute, 1}};
    request.k = k;
    return request;
  }
  static RecallRequest PopularOnePer(const std::string& attribute, std::size_t k) {
    RecallRequest request = OnePer(attribute, k);
    request.vector.reset();
    request.user = "nobody";
    request.explain = true;
    return request;
  }
  double Count(const std::string& name) { return metrics_.GetCounter(name, "").Value(); }
  double ShortAnswers() { return Count("freshet_query_short_answers_total"); }

  test::FakeReplica replica_;
  ManualClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, nullptr, &clock_, &metrics_};
};

TEST_F(RecallDiverseTest, SaysWhereItGaveUp) {
  PutCategories(60, 60);
  auto response = service_.Recall(OnePer("category", 20));
  ASSERT_OK(response);
  EXPECT_EQ(response->results.size(), 20U);
  EXPECT_EQ(response->degraded, "");
  EXPECT_EQ(ShortAnswers(), 0);
  // Each search brings one more category: that ends before it has brought sixty.
  response = service_.Recall(OnePer("category", 60));
  ASSERT_OK(response);
  EXPECT_GT(response->results.size(), 20U);
  EXPECT_LT(response->results.size(), 60U);
  EXPECT_EQ(response->degraded, "max_per");
  EXPECT_EQ(Count("freshet_query_degraded_total"), 1);
  EXPECT_EQ(ShortAnswers(), 1);
}

// Blending looks for more than are asked for. Where an index that forgets brings fewer of those, none is missing yet.
TEST_F(RecallDiverseTest, ABlendedAnswerIsShortOnlyOfWhatWasAskedFor) {
  for (int i = 0; i < 300; ++i) {
    replica_.Put(StrCat("i", i), {1.0F - static_cast<float>(i) * 1e-3F, 0},
                 {{"even", i % 2 == 0}, {"category", StrCat("c", i % 40)}});
  }
  // Of those that are live the index has lost most: a mistake of ours, which is to be noticed where it matters.
  for (int i = 50; i < 300; ++i) {
    replica_.Tombstone(*replica_.catalog().LabelOf(StrCat("i", i)));
    replica_.vectors.erase(StrCat("i", i));
  }
  RecallRequest request;
  request.vector = {1, 0};
  request.weights.emplace();
  request.k = 20;
  for (const bool filtered : {false, true}) {
    for (const bool diverse : {false, true}) {
      SCOPED_TRACE(StrCat(filtered, diverse));
      request.filter.reset();
      if (filtered) request.filter.emplace().condition = AnyCondition("even", {FilterValue(true)});
      request.max_per.clear();
      if (diverse) request.max_per = {{"category", 10}};
      const auto response = service_.Recall(request);
      ASSERT_OK(response);
      EXPECT_EQ(response->results.size(), 20U);
      EXPECT_EQ(ShortAnswers(), 0);
    }
  }
  request.filter.reset();
  request.max_per.clear();
  request.k = 60;
  ASSERT_OK(service_.Recall(request));
  EXPECT_EQ(ShortAnswers(), 1);
}

TEST_F(RecallDiverseTest, PopularItemsAreLookedAtByPages) {
  PutCategories(3, 20'000);
  replica_.Put("alone", {1, 0}, {});
  const auto response = service_.Recall(PopularOnePer("category", 4));
  ASSERT_OK(response);
  Ids ids;
  for (const RecallHit& hit : response->results) ids.push_back(hit.id);
  EXPECT_EQ(ids, (Ids{"alone", "c0-0", "c1-0", "c2-0"}));
  EXPECT_EQ(response->explanation->matching, 60'001U);
  // What a full value could bring is passed over, not read.
  EXPECT_LT(response->explanation->candidates, 10'000U);
}

TEST_F(RecallDiverseTest, PopularItemsKnowTheDeadline) {
  PutCategories(40, 2'000);
  const TickingClock clock;
  const RecallService service(&replica_, nullptr, &clock, &metrics_);
  RecallRequest request = PopularOnePer("category", 40);
  request.timeout_ms = 10'000;
  auto response = service.Recall(request);
  ASSERT_OK(response);
  EXPECT_EQ(response->results.size(), 40U);
  request.timeout_ms = 15;
  EXPECT_EQ(service.Recall(request).status().code(), Code::kDeadlineExceeded);
}

// Greedy by popularity, then by slot, whatever the pages are.
TEST_F(RecallDiverseTest, PopularItemsEqualTheGreedyOracle) {
  std::mt19937_64 random(test::TestSeed());
  const auto uniform = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  for (int round = 0; round < 10; ++round) {
    test::FakeReplica replica;
    const RecallService service(&replica, nullptr, &clock_, &metrics_);
    struct Item {
      std::string id, brand;
      Ids tags;
    };
    std::vector<Item> items;
    const int count = 1 + uniform(5'000);
    const int run = 1 + uniform(2'000);  // of one brand, one after the other
    for (int i = 0; i < count; ++i) {
      Item item{StrCat("i", i), StrCat("b", i / run), {}};
      for (int t = uniform(3); t > 0; --t) item.tags.push_back(StrCat("t", uniform(40), "-", t));
      replica.Put(item.id, {1, 0}, {{"brand", item.brand}, {"tags", item.tags}});
      items.push_back(item);
    }
    std::vector<Item> in_order;
    std::map<std::string, bool> is_popular;
    for (int p = uniform(60); p > 0; --p) {
      const Item& item = items[static_cast<std::size_t>(uniform(count))];
      if (!is_popular.emplace(item.id, true).second) continue;
      replica.popular.emplace_back(item.id, static_cast<double>(p));
      in_order.push_back(item);
    }
    for (const Item& item : items) {
      if (!is_popular.contains(item.id)) in_order.push_back(item);
    }
    RecallRequest request = PopularOnePer("brand", static_cast<std::size_t>(1 + uniform(60)));
    request.max_per = {{"brand", static_cast<std::size_t>(1 + uniform(20))},
                       {"tags", static_cast<std::size_t>(1 + uniform(3))}};
    for (int i = uniform(5); i > 0; --i) request.exclude_ids.push_back(StrCat("i", uniform(count)));
    std::map<std::string, std::size_t> brands, tags;
    Ids expected;
    for (const Item& item : in_order) {
      if (expected.size() == request.k) break;
      if (std::count(request.exclude_ids.begin(), request.exclude_ids.end(), item.id) > 0) continue;
      if (brands[item.brand] >= request.max_per[0].second) continue;
      if (std::any_of(item.tags.begin(), item.tags.end(),
                      [&](const std::string& tag) { return tags[tag] >= request.max_per[1].second; })) {
        continue;
      }
      ++brands[item.brand];
      for (const std::string& tag : item.tags) ++tags[tag];
      expected.push_back(item.id);
    }
    const auto response = service.Recall(request);
    ASSERT_OK(response);
    Ids ids;
    for (const RecallHit& hit : response->results) ids.push_back(hit.id);
    std::sort(ids.begin(), ids.end());
    std::sort(expected.begin(), expected.end());
    ASSERT_EQ(ids, expected) << "round " << round;
  }
}

}  // namespace
}  // namespace freshet
