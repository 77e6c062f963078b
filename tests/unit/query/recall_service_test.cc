#include "freshet/query/recall_service.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using test::FakeReplica;
using test::FakeUserEncoder;

class RecallServiceTest : public ::testing::Test {
 protected:
  static RecallRequest ByVector(std::vector<float> vector, std::size_t k = 10) {
    RecallRequest request;
    request.vector = std::move(vector);
    request.k = k;
    return request;
  }
  static RecallRequest ByItem(const std::string& item, std::size_t k = 10) {
    RecallRequest request;
    request.item = item;
    request.k = k;
    return request;
  }
  static RecallRequest ByUser(const std::string& user, std::size_t k = 10) {
    RecallRequest request;
    request.user = user;
    request.k = k;
    return request;
  }
  std::vector<std::string> Ask(const RecallRequest& request) {
    const Result<RecallResponse> response = service_.Recall(request);
    if (!response.ok()) return {response.status().ToString()};
    std::vector<std::string> ids;
    for (const RecallHit& hit : response->results) ids.push_back(hit.id);
    return ids;
  }
  Status Refusal(const RecallRequest& request) { return service_.Recall(request).status(); }
  double Count(const std::string& name) { return metrics_.GetCounter(name, "").Value(); }

  FakeReplica replica_;
  FakeUserEncoder encoder_;
  ManualClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
};

using Ids = std::vector<std::string>;

TEST_F(RecallServiceTest, AnswersAVectorByDescendingScore) {
  replica_.Put("low", {0.1F, 0});
  replica_.Put("high", {0.9F, 0});
  replica_.Put("middle", {0.5F, 0});
  const auto response = service_.Recall(ByVector({1, 0}, 2));
  ASSERT_OK(response);
  ASSERT_EQ(response->results.size(), 2U);
  EXPECT_EQ(response->results[0].id, "high");
  EXPECT_FLOAT_EQ(response->results[0].score, 0.9F);
  EXPECT_EQ(response->results[1].id, "middle");
  EXPECT_EQ(response->index_version, 7U);
  EXPECT_EQ(response->model_version, "space-1");
  EXPECT_EQ(response->as_of_ms, replica_.as_of);
  EXPECT_EQ(response->degraded, "");
}

TEST_F(RecallServiceTest, OrdersEqualScoresById) {
  for (const char* id : {"c", "a", "b"}) replica_.Put(id, {1, 0});
  EXPECT_EQ(Ask(ByVector({1, 0})), (Ids{"a", "b", "c"}));
}

TEST_F(RecallServiceTest, AnswersAllWhenFewerThanKAreLive) {
  EXPECT_EQ(Ask(ByVector({1, 0})), Ids{});
  replica_.Put("a", {1, 0});
  EXPECT_EQ(Ask(ByVector({1, 0}, kMaxK)), Ids{"a"});
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 0);
}

TEST_F(RecallServiceTest, NamesTheWrongField) {
  replica_.Put("a", {1, 0});
  const auto refused = [&](const RecallRequest& request, const std::string& start) {
    const Status status = Refusal(request);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.ToString();
    EXPECT_TRUE(status.message().starts_with(start)) << status.message();
  };
  refused(RecallRequest{}, "exactly one of");
  RecallRequest two = ByVector({1, 0});
  two.item = "a";
  refused(two, "exactly one of");
  refused(ByVector({1, 0}, 0), "/k: ");
  refused(ByVector({1, 0}, kMaxK + 1), "/k: ");
  refused(ByVector({1, 0, 0}), "/vector: ");
  refused(ByVector({}), "/vector: ");
  refused(ByVector({1, std::nanf("")}), "/vector: ");
  refused(ByVector({1, std::numeric_limits<float>::infinity()}), "/vector: ");
  refused(ByVector({0, 0}), "/vector: ");
  refused(ByItem(""), "/item: ");
  refused(ByUser("\xff"), "/user: ");
  RecallRequest request = ByVector({1, 0});
  request.exclude_ids = {"fine", ""};
  refused(request, "/exclude_ids/1: ");
  request.exclude_ids.assign(kMaxExcludeIds + 1, "x");
  refused(request, "/exclude_ids: ");
  request = ByItem("a");
  request.exclude_seen = true;
  refused(request, "/exclude_seen: ");
  request = ByVector({1, 0});
  request.ef = kMaxEf + 1;
  refused(request, "/params/ef: ");
  request = ByVector({1, 0});
  request.score_threshold = std::nanf("");
  refused(request, "/score_threshold: ");
}

TEST_F(RecallServiceTest, PreparesTheVectorForCosine) {
  FakeReplica cosine(2, Metric::kCosine);
  cosine.Put("a", {1, 0});
  const RecallService service(&cosine, nullptr, &clock_, &metrics_);
  const auto response = service.Recall(ByVector({250, 0}));
  ASSERT_OK(response);
  ASSERT_EQ(response->results.size(), 1U);
  EXPECT_FLOAT_EQ(response->results[0].score, 1.0F);
}

TEST_F(RecallServiceTest, AnItemIsNotLikeItself) {
  replica_.Put("a", {1, 0});
  replica_.Put("b", {0.9F, 0.1F});
  replica_.Put("c", {0, 1});
  EXPECT_EQ(Ask(ByItem("a")), (Ids{"b", "c"}));
  EXPECT_EQ(Ask(ByItem("a", 1)), Ids{"b"});
}

TEST_F(RecallServiceTest, AnUnknownOrDeletedItemIsNotFound) {
  replica_.Put("a", {1, 0});
  EXPECT_EQ(Refusal(ByItem("b")).code(), Code::kNotFound);
  replica_.Publish("a", std::nullopt);  // deleted; the store's row is still to go
  EXPECT_EQ(Refusal(ByItem("a")).code(), Code::kNotFound);
}

TEST_F(RecallServiceTest, AUserIsAnsweredByTheTower) {
  replica_.Put("x", {1, 0});
  replica_.Put("y", {0, 1});
  UserState state;
  state.features = {{"age", 33.0}};
  state.history = {{"x", "view", 1, 1}, {"y", "view", 1, 2}};
  replica_.users["ann"] = state;
  UserContext given;
  encoder_.on_encode = [&](const UserContext& user) { given = user; };
  const auto response = service_.Recall(ByUser("ann"));
  ASSERT_OK(response);
  EXPECT_EQ(response->results.at(0).id, "y");
  EXPECT_EQ(response->degraded, "");
  EXPECT_EQ(given.user_id, "ann");
  EXPECT_EQ(given.features, state.features);
  ASSERT_EQ(given.history.size(), 2U);
  EXPECT_EQ(given.history[1].item_id, "y");
}

TEST_F(RecallServiceTest, SaysWhenAnAnswerIsNotPersonal) {
  replica_.Put("x", {1, 0});
  replica_.users["new"].features = {{"age", 33.0}};
  auto response = service_.Recall(ByUser("nobody"));
  ASSERT_OK(response);
  EXPECT_EQ(response->degraded, "popularity");
  EXPECT_EQ(response->results.size(), 1U);
  response = service_.Recall(ByUser("new"));
  ASSERT_OK(response);
  EXPECT_EQ(response->degraded, "no_history");
  // Who gave everything back has taken nothing.
  replica_.users["new"].history = {{"x", "return", -1, 5}};
  response = service_.Recall(ByUser("new"));
  ASSERT_OK(response);
  EXPECT_EQ(response->degraded, "no_history");
  replica_.users["new"].features.clear();
  response = service_.Recall(ByUser("new"));
  ASSERT_OK(response);
  EXPECT_EQ(response->degraded, "popularity");
  EXPECT_EQ(Count("freshet_query_degraded_total"), 4);
}

TEST_F(RecallServiceTest, NeverMixesEmbeddingSpaces) {
  replica_.Put("x", {1, 0});
  encoder_.space = "space-2";
  EXPECT_EQ(Refusal(ByUser("ann")).code(), Code::kUnavailable);
  EXPECT_EQ(Ask(ByItem("x")), Ids{});  // items and vectors need no tower
  EXPECT_EQ(Ask(ByVector({1, 0})), Ids{"x"});
}

TEST_F(RecallServiceTest, WithoutATowerUsersAreUnavailable) {
  const RecallService service(&replica_, nullptr, &clock_, &metrics_);
  replica_.users["ann"].history = {{"x", "view", 1, 1}};
  replica_.users["new"].features = {{"age", 33.0}};
  EXPECT_EQ(service.Recall(ByUser("ann")).status().code(), Code::kUnavailable);
  EXPECT_EQ(service.Recall(ByUser("new")).status().code(), Code::kUnavailable);
}

TEST_F(RecallServiceTest, ATowerThatFailsIsNotTheCallersMistake) {
  replica_.users["ann"].history = {{"x", "view", 1, 1}};
  encoder_.result = InvalidArgument("non-finite output");
  EXPECT_EQ(Refusal(ByUser("ann")).code(), Code::kInternal);
  encoder_.result = Unavailable("out of memory");
  EXPECT_EQ(Refusal(ByUser("ann")).code(), Code::kUnavailable);
}

TEST_F(RecallServiceTest, ExcludesIdsAndWhatWasSeen) {
  for (const char* id : {"a", "b", "c", "d"}) replica_.Put(id, {1, 1});
  replica_.users["ann"].seen = {"b", "gone"};
  RecallRequest request = ByUser("ann", 2);
  request.exclude_ids = {"a", "a", "never-existed"};
  EXPECT_EQ(Ask(request), (Ids{"b", "c"}));
  request.exclude_seen = true;
  EXPECT_EQ(Ask(request), (Ids{"c", "d"}));
  request.k = 100;
  EXPECT_EQ(Ask(request), (Ids{"c", "d"}));
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 0);
}

TEST_F(RecallServiceTest, AnExcludedItemStaysOutUnderANewLabel) {
  replica_.Put("a", {1, 0});
  replica_.Put("b", {0.5F, 0});
  RecallRequest request = ByVector({1, 0}, 1);
  request.exclude_ids = {"a"};
  bool replaced = false;
  replica_.hooked_index().before_search = [&](const SearchOptions&) {
    if (!std::exchange(replaced, true)) replica_.Publish("a", replica_.Insert({2, 0}));
  };
  EXPECT_EQ(Ask(request), Ids{"b"});
}

TEST_F(RecallServiceTest, AnItemBeingReplacedIsReturnedOnceWithItsNewScore) {
  replica_.Put("a", {1, 0});
  replica_.Put("b", {0.6F, 0});
  replica_.Put("c", {0.5F, 0});
  replica_.Publish("a", replica_.Insert({0.55F, 0}));  // the old label is not tombstoned yet
  const auto response = service_.Recall(ByVector({1, 0}, 3));
  ASSERT_OK(response);
  ASSERT_EQ(response->results.size(), 3U);
  EXPECT_EQ(response->results[0].id, "b");
  EXPECT_EQ(response->results[1].id, "a");
  EXPECT_FLOAT_EQ(response->results[1].score, 0.55F);
  EXPECT_EQ(response->results[2].id, "c");
}

TEST_F(RecallServiceTest, ADeletedItemIsInNoAnswerThoughTheIndexStillKnowsIt) {
  for (int i = 0; i < 20; ++i) replica_.Put(StrCat("dead", i), {2, 0});
  for (int i = 0; i < 5; ++i) replica_.Put(StrCat("live", i), {1, 0});
  for (int i = 0; i < 20; ++i) replica_.Publish(StrCat("dead", i), std::nullopt);
  EXPECT_EQ(Ask(ByVector({1, 0}, 2)), (Ids{"live0", "live1"}));
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 0);
}

TEST_F(RecallServiceTest, LabelsTheCatalogDoesNotKnowYetTakeNoPlaces) {
  for (int i = 0; i < 500; ++i) (void)replica_.Insert({2, 0});
  replica_.Put("a", {1, 0});
  replica_.Put("b", {0.5F, 0});
  EXPECT_EQ(Ask(ByVector({1, 0}, 2)), (Ids{"a", "b"}));
}

TEST_F(RecallServiceTest, AsksExactlyWhenTheIndexFindsTooFew) {
  for (int i = 0; i < 8; ++i) replica_.Put(StrCat("i", i), {1, 0});
  replica_.hooked_index().forgets = true;
  EXPECT_EQ(Ask(ByVector({1, 0}, 4)).size(), 4U);
  EXPECT_EQ(Ask(ByVector({1, 0}, 8)).size(), 8U);
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 0);
}

TEST_F(RecallServiceTest, CountsAnswersThatStayShort) {
  replica_.Put("a", {1, 0});
  replica_.Put("b", {1, 0});
  replica_.Tombstone(*replica_.catalog().LabelOf("b"));  // index and catalog disagree: a mistake of ours
  EXPECT_EQ(Ask(ByVector({1, 0}, 2)), Ids{"a"});
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 1);
}

TEST_F(RecallServiceTest, AThresholdShortensTheAnswer) {
  replica_.Put("near", {1, 0});
  replica_.Put("far", {0.1F, 0});
  RecallRequest request = ByVector({1, 0});
  request.score_threshold = 0.5F;
  EXPECT_EQ(Ask(request), Ids{"near"});
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 0);
}

TEST_F(RecallServiceTest, PassesTheSearchParametersOn) {
  replica_.Put("a", {1, 0});
  RecallRequest request = ByVector({1, 0}, 1);
  request.ef = 321;
  request.exact = true;
  std::vector<SearchOptions> seen;
  replica_.hooked_index().before_search = [&](const SearchOptions& options) { seen.push_back(options); };
  EXPECT_EQ(Ask(request), Ids{"a"});
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].k, 2U) << "one more, which tells whether the cut goes through equal scores";
  EXPECT_EQ(seen[0].ef, 321U);
  EXPECT_TRUE(seen[0].exact);
}

TEST_F(RecallServiceTest, FreshnessIsReadBeforeTheSearch) {
  replica_.Put("a", {1, 0});
  replica_.hooked_index().before_search = [&](const SearchOptions&) {
    replica_.version = 8;
    replica_.as_of += 1'000;
  };
  const std::int64_t before = replica_.as_of;
  const auto response = service_.Recall(ByVector({1, 0}));
  ASSERT_OK(response);
  EXPECT_EQ(response->index_version, 7U);
  EXPECT_EQ(response->as_of_ms, before);
}

TEST_F(RecallServiceTest, GivesUpWhenTheDeadlinePasses) {
  replica_.Put("a", {1, 0});
  RecallRequest request = ByVector({1, 0});
  request.timeout_ms = 10;
  replica_.hooked_index().before_search = [&](const SearchOptions&) { clock_.AdvanceMs(9); };
  EXPECT_OK(Refusal(request));
  replica_.hooked_index().before_search = [&](const SearchOptions&) { clock_.AdvanceMs(10); };
  EXPECT_EQ(Refusal(request).code(), Code::kDeadlineExceeded);

  replica_.hooked_index().before_search = nullptr;
  replica_.users["ann"].history = {{"a", "view", 1, 1}};
  encoder_.on_encode = [&](const UserContext&) { clock_.AdvanceMs(50); };
  request = ByUser("ann");
  request.deadline_us = clock_.MonotonicUs() + 20'000;
  EXPECT_EQ(Refusal(request).code(), Code::kDeadlineExceeded);
  request.deadline_us = clock_.MonotonicUs() + 200'000;
  EXPECT_OK(Refusal(request));
  request.timeout_ms = 40;  // the earlier of the two
  EXPECT_EQ(Refusal(request).code(), Code::kDeadlineExceeded);
  encoder_.on_encode = [](const UserContext&) { ADD_FAILURE() << "the deadline had passed before"; };
  request.deadline_us = clock_.MonotonicUs();
  EXPECT_EQ(Refusal(request).code(), Code::kDeadlineExceeded);
}

TEST_F(RecallServiceTest, ReportsItsTime) {
  replica_.Put("a", {1, 0});
  replica_.hooked_index().before_search = [&](const SearchOptions&) { clock_.AdvanceMs(3); };
  const auto response = service_.Recall(ByVector({1, 0}));
  ASSERT_OK(response);
  EXPECT_DOUBLE_EQ(response->took_ms, 3.0);
  EXPECT_EQ(metrics_.GetHistogram("freshet_query_seconds", "").Count(), 1);
}

TEST_F(RecallServiceTest, ReturnsAttributesWhereAskedFor) {
  replica_.Put("a", {1, 0}, {{"title", std::string("Toy Story")}});
  RecallRequest request = ByVector({1, 0});
  EXPECT_TRUE(service_.Recall(request)->results.at(0).attributes.empty());
  request.with_attributes = true;
  const auto response = service_.Recall(request);
  ASSERT_OK(response);
  ASSERT_EQ(response->results.at(0).attributes.size(), 1U);
  EXPECT_EQ(std::get<std::string>(response->results[0].attributes[0].second), "Toy Story");
}

// Whatever an apply has half done: min(k, live - excluded) distinct items, the best ones, in order.
TEST_F(RecallServiceTest, EqualsTheOracleInTheMiddleOfApplies) {
  std::mt19937_64 random(test::TestSeed());
  const auto uniform = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  const auto vector = [&] {
    std::uniform_real_distribution<float> part(0.01F, 1.0F);
    return std::vector<float>{part(random), part(random)};
  };
  for (int round = 0; round < 60; ++round) {
    FakeReplica replica;
    const RecallService service(&replica, nullptr, &clock_, &metrics_);
    for (int step = uniform(150); step > 0; --step) {
      const std::string id = StrCat("i", uniform(40));
      switch (uniform(5)) {
        case 0:
          replica.Delete(id);
          break;
        case 1:
          (void)replica.Insert(vector());
          break;  // searchable, not visible yet
        case 2:   // deleted, not tombstoned yet
          replica.vectors.erase(id);
          replica.Publish(id, std::nullopt);
          break;
        default:
          replica.Put(id, vector());
      }
    }
    const std::vector<float> query = vector();
    RecallRequest request = ByVector(query, static_cast<std::size_t>(1 + uniform(50)));
    std::set<std::string> excluded;
    for (int i = uniform(10); i > 0; --i) excluded.insert(StrCat("i", uniform(45)));
    request.exclude_ids.assign(excluded.begin(), excluded.end());

    std::vector<std::pair<float, std::string>> oracle;
    for (const auto& [id, v] : replica.vectors) {
      if (!excluded.contains(id)) oracle.emplace_back(-(query[0] * v[0] + query[1] * v[1]), id);
    }
    std::sort(oracle.begin(), oracle.end());
    const auto response = service.Recall(request);
    ASSERT_OK(response);
    ASSERT_EQ(response->results.size(), std::min(request.k, oracle.size())) << "round " << round;
    std::set<std::string> ids;
    for (std::size_t i = 0; i < response->results.size(); ++i) {
      EXPECT_NEAR(response->results[i].score, -oracle[i].first, 1e-5F) << "round " << round << " rank " << i;
      EXPECT_TRUE(ids.insert(response->results[i].id).second) << response->results[i].id << " twice";
      EXPECT_FALSE(excluded.contains(response->results[i].id));
    }
  }
  EXPECT_EQ(Count("freshet_query_short_answers_total"), 0);
}

}  // namespace
}  // namespace freshet
