// Filters, diversity, examples and the rest of what a request may ask, against the service.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_service.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using test::FakeReplica;
using test::FakeUserEncoder;
using Ids = std::vector<std::string>;

Filter Of(Condition condition) {
  Filter filter;
  filter.condition = std::move(condition);
  return filter;
}

class RecallFilterTest : public ::testing::Test {
 protected:
  static RecallRequest ByVector(std::vector<float> vector, std::size_t k = 10) {
    RecallRequest request;
    request.vector = std::move(vector);
    request.k = k;
    return request;
  }
  Ids Ask(const RecallRequest& request) {
    const Result<RecallResponse> response = service_.Recall(request);
    if (!response.ok()) return {response.status().ToString()};
    Ids ids;
    for (const RecallHit& hit : response->results) ids.push_back(hit.id);
    return ids;
  }
  double ShortAnswers() { return metrics_.GetCounter("freshet_query_short_answers_total", "").Value(); }

  FakeReplica replica_;
  FakeUserEncoder encoder_;
  ManualClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
};

TEST_F(RecallFilterTest, AnswersWithWhatMatches) {
  replica_.Put("a", {0.9F, 0}, {{"year", std::int64_t{1989}}});
  replica_.Put("b", {0.5F, 0}, {{"year", std::int64_t{1990}}});
  replica_.Put("c", {0.7F, 0}, {{"year", 1995.5}});
  replica_.Put("d", {0.8F, 0}, {});
  RecallRequest request = ByVector({1, 0});
  request.filter = Of(NumberCondition("year", {.gt = {}, .gte = std::int64_t{1990}, .lt = {}, .lte = {}}));
  EXPECT_EQ(Ask(request), (Ids{"c", "b"}));
  request.exclude_ids = {"c", "a"};
  EXPECT_EQ(Ask(request), Ids{"b"});
  request.exclude_ids.clear();
  request.score_threshold = 0.6F;
  EXPECT_EQ(Ask(request), Ids{"c"});
  request.filter = Of(ExistsCondition("nothing", true));
  EXPECT_EQ(Ask(request), Ids{});
  EXPECT_EQ(ShortAnswers(), 0);
}

TEST_F(RecallFilterTest, AnItemThatStopsMatchingDuringTheSearchIsNotReturned) {
  replica_.Put("a", {1, 0}, {{"ok", true}});
  replica_.Put("b", {0.5F, 0}, {{"ok", true}});
  RecallRequest request = ByVector({1, 0}, 1);
  request.filter = Of(AnyCondition("ok", {true}));
  bool changed = false;
  replica_.hooked_index().before_search = [&](const SearchOptions&) {
    if (!std::exchange(changed, true)) replica_.Put("a", {1, 0}, {{"ok", false}});
  };
  EXPECT_EQ(Ask(request), Ids{"b"});
  EXPECT_TRUE(changed);
}

// The same filters again and again, of which an index remembers what they allowed, while items come, go and change.
TEST_F(RecallFilterTest, FiltersThatAreRepeatedGoByWhatItemsSayNow) {
  std::mt19937_64 random(test::TestSeed());
  HnswOptions options;
  options.dim = 2;
  options.metric = Metric::kInnerProduct;
  options.capacity = 100'000;
  Result<std::unique_ptr<Index>> index = MakeHnswIndex(options);
  ASSERT_OK(index);
  FakeReplica replica(std::move(*index));
  const RecallService service(&replica, nullptr, &clock_, &metrics_);
  const auto some = [&](std::uint64_t below) { return static_cast<std::int64_t>(random() % below); };
  const auto put = [&](std::int64_t i) {
    replica.Put(StrCat("i", i), {static_cast<float>(some(1'000'000)) * 1e-6F, 0}, {{"n", some(3)}});
  };
  for (std::int64_t i = 0; i < 1'000; ++i) put(i);
  bool owned = true;
  for (int round = 0; round < 600; ++round) {
    const std::string id = StrCat("i", some(1'100));
    if (some(50) == 0) replica.Own(owned = !owned);
    if (some(3) == 0) {
      put(some(1'100));
    } else if (some(3) == 0) {
      replica.Delete(id);
    } else if (replica.items.contains(id)) {
      replica.SetAttributes(id, {{"n", some(3)}});
    }
    const std::int64_t wanted = some(3);
    RecallRequest request = ByVector({1, 0}, 10);
    request.filter = Of(AnyCondition("n", {wanted}));
    std::vector<std::pair<float, std::string>> matching;
    for (const auto& [item, attributes] : replica.items) {
      if (owned && attributes == Attributes{{"n", wanted}}) matching.emplace_back(-replica.vectors[item][0], item);
    }
    std::sort(matching.begin(), matching.end());
    if (some(2) == 0 && !matching.empty()) {
      request.exclude_ids = {matching[0].second};
      matching.erase(matching.begin());
    }
    Ids expected;
    for (std::size_t i = 0; i < std::min<std::size_t>(10, matching.size()); ++i) expected.push_back(matching[i].second);
    request.exact = some(2) == 0;
    const Result<RecallResponse> response = service.Recall(request);
    ASSERT_OK(response);
    Ids ids;
    for (const RecallHit& hit : response->results) ids.push_back(hit.id);
    if (request.exact) {
      ASSERT_EQ(ids, expected) << "round " << round;
    } else {
      ASSERT_EQ(ids.size(), expected.size()) << "round " << round;
    }
    for (const std::string& one : ids) ASSERT_EQ(replica.items[one], (Attributes{{"n", wanted}})) << "round " << round;
  }
  EXPECT_GT(replica.index().Stats().filter_bytes, 0U);
}

TEST_F(RecallFilterTest, FindsAllThoughTheIndexForgetsHalf) {
  for (int i = 0; i < 400; ++i) {
    replica_.Put(StrCat("i", i), {1.0F - static_cast<float>(i) * 1e-3F, 0}, {{"even", i % 2 == 0}});
  }
  replica_.hooked_index().forgets = true;
  RecallRequest request = ByVector({1, 0}, 150);
  request.filter = Of(AnyCondition("even", {true}));
  EXPECT_EQ(Ask(request).size(), 150U);
  request.k = 1000;
  EXPECT_EQ(Ask(request).size(), 200U);
  EXPECT_EQ(ShortAnswers(), 0);
}

TEST_F(RecallFilterTest, AtMostSoManyOfEachValue) {
  for (int i = 0; i < 100; ++i) {
    replica_.Put(StrCat("film", i), {1.0F - static_cast<float>(i) * 1e-4F, 0}, {{"category", std::string("film")}});
  }
  replica_.Put("book0", {0.5F, 0}, {{"category", std::string("book")}});
  replica_.Put("book1", {0.4F, 0}, {{"category", std::string("book")}});
  replica_.Put("book2", {0.3F, 0}, {{"category", std::string("book")}});
  replica_.Put("thing", {0.1F, 0}, {});
  RecallRequest request = ByVector({1, 0}, 5);
  request.max_per = {{"category", 2}};
  EXPECT_EQ(Ask(request), (Ids{"film0", "film1", "book0", "book1", "thing"}));
  request.k = 3;
  EXPECT_EQ(Ask(request), (Ids{"film0", "film1", "book0"}));
  request.filter = Of(ExistsCondition("category", true));
  request.k = 50;
  EXPECT_EQ(Ask(request), (Ids{"film0", "film1", "book0", "book1"}));
  EXPECT_EQ(ShortAnswers(), 0);
}

// Greedy by score over everything is what max_per means.
TEST_F(RecallFilterTest, DiversityEqualsTheGreedyOracle) {
  std::mt19937_64 random(test::TestSeed());
  const auto uniform = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  for (int round = 0; round < 40; ++round) {
    FakeReplica replica;
    const RecallService service(&replica, nullptr, &clock_, &metrics_);
    struct Item {
      float score;
      std::string id, brand;
      Ids tags;
    };
    std::vector<Item> items;
    for (int i = uniform(200); i > 0; --i) {
      Item item{static_cast<float>(uniform(1'000'000)) * 1e-6F, StrCat("i", i), StrCat("b", uniform(6)), {}};
      for (int t = uniform(3); t > 0; --t) item.tags.push_back(StrCat("t", uniform(5), "-", t));
      replica.Put(item.id, {item.score, 0}, {{"brand", item.brand}, {"tags", item.tags}});
      items.push_back(item);
    }
    RecallRequest request = ByVector({1, 0}, static_cast<std::size_t>(1 + uniform(30)));
    request.max_per = {{"brand", static_cast<std::size_t>(1 + uniform(4))},
                       {"tags", static_cast<std::size_t>(1 + uniform(4))}};
    std::sort(items.begin(), items.end(),
              [](const Item& a, const Item& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; });
    std::map<std::string, std::size_t> brands, tags;
    Ids expected;
    for (const Item& item : items) {
      if (expected.size() == request.k) break;
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
    ASSERT_EQ(ids, expected) << "round " << round;
  }
}

TEST_F(RecallFilterTest, LikeTheseAndUnlikeThose) {
  replica_.Put("x", {1, 0});
  replica_.Put("y", {0, 1});
  replica_.Put("xy", {0.8F, 0.8F});
  replica_.Put("xx", {0.9F, -0.5F});
  RecallRequest request;
  request.items = {"x", "y"};
  EXPECT_EQ(Ask(request), (Ids{"xy", "xx"}));
  request.items = {"x"};
  request.negative = {"y"};
  EXPECT_EQ(Ask(request), (Ids{"xx", "xy"}));
  request.negative = {"nobody"};
  Status status = service_.Recall(request).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_TRUE(status.message().starts_with("/negative/0: ")) << status.message();
  request = ByVector({1, 0});
  request.negative = {"y"};
  status = service_.Recall(request).status();
  EXPECT_TRUE(status.message().starts_with("/negative: ")) << status.message();
}

TEST_F(RecallFilterTest, AUserWhomNobodyKnowsMayBringAHistory) {
  replica_.Put("x", {1, 0});
  replica_.Put("y", {0, 1});
  UserContext given;
  encoder_.on_encode = [&](const UserContext& user) { given = user; };
  RecallRequest request;
  request.user_history = {{"y", "view", 1, 0}};
  request.user_features = Features{{"age", 33.0}};
  EXPECT_EQ(Ask(request), (Ids{"y", "x"}));
  EXPECT_EQ(given.user_id, "");
  EXPECT_EQ(given.features, *request.user_features);
  request.exclude_seen = true;
  EXPECT_EQ(Ask(request), Ids{"x"});
  // Over what is stored.
  replica_.users["ann"].history = {{"x", "view", 1, 0}};
  request.user = "ann";
  EXPECT_EQ(Ask(request), Ids{"x"});
  EXPECT_EQ(given.history.at(0).item_id, "y");
}

TEST_F(RecallFilterTest, WaitsForFreshnessWithinItsDeadline) {
  replica_.Put("a", {1, 0});
  RecallRequest request = ByVector({1, 0});
  request.min_as_of_ms = replica_.as_of;
  EXPECT_EQ(Ask(request), Ids{"a"});
  request.min_as_of_ms = replica_.as_of + 1;
  EXPECT_EQ(service_.Recall(request).status().code(), Code::kUnavailable);  // no deadline: no waiting
  request.timeout_ms = 100;
  replica_.on_as_of = [&] { clock_.AdvanceMs(10); };
  EXPECT_EQ(service_.Recall(request).status().code(), Code::kUnavailable);
  int asked = 0;
  replica_.on_as_of = [&] { replica_.as_of += ++asked == 3 ? 1 : 0; };
  EXPECT_EQ(Ask(request), Ids{"a"});
}

TEST_F(RecallFilterTest, ScoresWhatAnotherRecallerFound) {
  replica_.Put("a", {0.5F, 0});
  replica_.Put("b", {0.9F, 0});
  const auto scores = service_.Score(ByVector({1, 0}), {"a", "nobody", "b", "a"});
  ASSERT_OK(scores);
  ASSERT_EQ(scores->answer.results.size(), 2U);
  EXPECT_EQ(scores->answer.results[0].id, "b");
  EXPECT_FLOAT_EQ(scores->answer.results[0].score, 0.9F);
  EXPECT_EQ(scores->unknown, Ids{"nobody"});
  EXPECT_EQ(service_.Score(ByVector({1, 0}), {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(service_.Score(ByVector({1, 0}), {""}).status().code(), Code::kInvalidArgument);
}

TEST_F(RecallFilterTest, ShowsWhatIsKnownOfAUser) {
  replica_.users["ann"].history = {{"x", "view", 1, 5}};
  const auto user = service_.GetUser("ann");
  ASSERT_OK(user);
  EXPECT_EQ(user->state.history.at(0).item_id, "x");
  EXPECT_EQ(service_.GetUser("bob").status().code(), Code::kNotFound);
}

TEST_F(RecallFilterTest, NobodyKnowsTheUserSoThePopularOnes) {
  for (const char* id : {"a", "b", "c", "d"}) {
    replica_.Put(id, {1, 0}, {{"kind", std::string(*id == 'd' ? "other" : "one")}});
  }
  replica_.popular = {{"gone", 9.0}, {"c", 3.5}, {"d", 2.0}, {"b", 1.0}};
  RecallRequest request;
  request.user = "nobody";
  auto response = service_.Recall(request);
  ASSERT_OK(response);
  EXPECT_EQ(response->degraded, "popularity");
  EXPECT_EQ(Ask(request), (Ids{"c", "d", "b", "a"}));
  EXPECT_FLOAT_EQ(response->results[0].score, 3.5F);
  EXPECT_FLOAT_EQ(response->results[3].score, 0.0F);
  request.k = 2;
  request.exclude_ids = {"c"};
  EXPECT_EQ(Ask(request), (Ids{"d", "b"}));
  request.filter = Of(AnyCondition("kind", {std::string("one")}));
  EXPECT_EQ(Ask(request), (Ids{"b", "a"}));
  request.filter.reset();
  request.exclude_ids.clear();
  request.max_per = {{"kind", 1}};
  request.k = 4;
  EXPECT_EQ(Ask(request), (Ids{"c", "d"}));
  const auto scores = service_.Score(request, {"a", "b", "c", "gone"});
  ASSERT_OK(scores);
  EXPECT_EQ(scores->answer.results[0].id, "c");
  EXPECT_EQ(scores->answer.results.size(), 3U);
}

// At every selectivity from all to one in ten thousand, through adds, updates and deletes: exactly min(k, matching)
// items, all live and matching, none twice; and, over a graph, nearly the best ones.
class SelectivityTest : public ::testing::TestWithParam<bool> {};

TEST_P(SelectivityTest, AnswersExactlyWhatMatches) {
  const bool graph = GetParam();
  constexpr int kDim = 8;
  constexpr int kItems = 10'000;
  std::mt19937_64 random(test::TestSeed());
  const auto uniform = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  HnswOptions options;
  options.dim = kDim;
  options.metric = Metric::kInnerProduct;
  options.capacity = 2 * kItems;
  options.ef_construction = 64;
  std::unique_ptr<Index> index = MakeFlatIndex(kDim, Metric::kInnerProduct);
  if (graph) {
    auto made = MakeHnswIndex(options);
    ASSERT_OK(made);
    index = std::move(*made);
  }
  FakeReplica replica(std::move(index));
  ManualClock clock;
  Metrics metrics;
  const RecallService service(&replica, nullptr, &clock, &metrics);
  std::map<std::string, std::int64_t> buckets;
  const auto put = [&](int i) {
    std::vector<float> vector(kDim);
    for (float& x : vector) x = static_cast<float>(uniform(2'001) - 1'000) * 1e-3F;
    const std::string id = StrCat("i", i);
    buckets[id] = 1 + uniform(9'999);
    replica.Put(id, vector, {{"bucket", buckets[id]}});
  };
  for (int i = 0; i < kItems; ++i) put(i);
  buckets["i0"] = 0;  // one in ten thousand, and no other
  replica.Put("i0", replica.vectors["i0"], {{"bucket", std::int64_t{0}}});

  double recalled = 0;
  double wanted = 0;
  std::map<std::string, int> paths;
  for (int round = 0; round < 4; ++round) {
    for (const std::int64_t below : {10'000, 3'000, 1'000, 100, 10, 1}) {
      RecallRequest request;
      request.vector.emplace(kDim);
      for (float& x : *request.vector) x = static_cast<float>(uniform(2'001) - 1'000) * 1e-3F;
      request.k = static_cast<std::size_t>(1 + uniform(100));
      request.explain = true;
      request.filter = Of(NumberCondition("bucket", {.gt = {}, .gte = {}, .lt = below, .lte = {}}));
      std::vector<std::pair<float, std::string>> oracle;
      for (const auto& [id, bucket] : buckets) {
        if (bucket >= below) continue;
        float score = 0;
        for (std::size_t d = 0; d < kDim; ++d) score += (*request.vector)[d] * replica.vectors[id][d];
        oracle.emplace_back(-score, id);
      }
      std::sort(oracle.begin(), oracle.end());
      const auto response = service.Recall(request);
      ASSERT_OK(response);
      ++paths[response->explanation->path];
      EXPECT_EQ(response->explanation->matching, oracle.size());
      ASSERT_EQ(response->results.size(), std::min(request.k, oracle.size())) << "below " << below;
      std::map<std::string, bool> best;
      for (std::size_t i = 0; i < response->results.size(); ++i) best[oracle[i].second] = true;
      std::map<std::string, int> ids;
      for (std::size_t i = 0; i < response->results.size(); ++i) {
        const RecallHit& hit = response->results[i];
        ASSERT_EQ(++ids[hit.id], 1) << hit.id << " twice";
        ASSERT_LT(buckets.at(hit.id), below) << hit.id;
        recalled += best.contains(hit.id) ? 1 : 0;
        if (!graph) {
          ASSERT_NEAR(hit.score, -oracle[i].first, 1e-5F) << "rank " << i;
        }
      }
      wanted += static_cast<double>(response->results.size());
    }
    for (int change = 0; change < 300; ++change) {
      const int i = 1 + uniform(kItems - 1);
      if (uniform(3) == 0) {
        buckets.erase(StrCat("i", i));
        replica.Delete(StrCat("i", i));
      } else {
        put(i);
      }
    }
  }
  EXPECT_GE(recalled / wanted, 0.95);
  EXPECT_GT(paths["set"], 0);
  EXPECT_GT(paths["scan"] + paths["graph"], 0);
  EXPECT_EQ(metrics.GetCounter("freshet_query_short_answers_total", "").Value(), 0);
}

INSTANTIATE_TEST_SUITE_P(FlatAndGraph, SelectivityTest, ::testing::Bool());

}  // namespace
}  // namespace freshet
