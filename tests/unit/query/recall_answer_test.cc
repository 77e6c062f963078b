// What an answer says of itself, and what it may take.
#include <gtest/gtest.h>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_service.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Ids = std::vector<std::string>;

class RecallAnswerTest : public ::testing::Test {
 protected:
  static RecallRequest ByUser(const std::string& user) {
    RecallRequest request;
    request.user = user;
    return request;
  }
  static RecallRequest ByVector(std::vector<float> vector, std::size_t k) {
    RecallRequest request;
    request.vector = std::move(vector);
    request.k = k;
    return request;
  }
  Ids Ask(const RecallRequest& request) {
    const auto response = service_.Recall(request);
    if (!response.ok()) return {response.status().ToString()};
    Ids ids;
    for (const RecallHit& hit : response->results) ids.push_back(hit.id);
    return ids;
  }
  double Degraded() { return metrics_.GetCounter("freshet_query_degraded_total", "").Value(); }
  double Stages(const std::string& stage) {
    return metrics_.GetHistogram("freshet_query_stage_seconds", "", {{"stage", stage}}).Count();
  }

  test::FakeReplica replica_;
  test::FakeUserEncoder encoder_;
  ManualClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
};

TEST_F(RecallAnswerTest, WithoutATowerUsersOfWhomNothingIsKnownGetThePopularItems) {
  replica_.Put("a", {1, 0});
  replica_.Put("b", {1, 0});
  replica_.popular = {{"b", 2.0}};
  const RecallService service(&replica_, nullptr, &clock_, &metrics_);
  const auto response = service.Recall(ByUser("nobody"));
  ASSERT_OK(response);
  EXPECT_EQ(response->degraded, "popularity");
  ASSERT_EQ(response->results.size(), 2U);
  EXPECT_EQ(response->results[0].id, "b");
  const auto scores = service.Score(ByUser("nobody"), {"a", "b"});
  ASSERT_OK(scores);
  EXPECT_EQ(scores->answer.results.at(0).id, "b");
}

TEST_F(RecallAnswerTest, ScoresThatAreNotPersonalAreCountedToo) {
  replica_.Put("a", {1, 0});
  const auto scores = service_.Score(ByUser("nobody"), {"a"});
  ASSERT_OK(scores);
  EXPECT_EQ(scores->answer.degraded, "popularity");
  EXPECT_EQ(Degraded(), 1);
  replica_.users["ann"].history = {{"a", "view", 1, 1}};
  EXPECT_OK(service_.Score(ByUser("ann"), {"a"}));
  EXPECT_EQ(Degraded(), 1);
}

TEST_F(RecallAnswerTest, TellsTheTimeOfEachStage) {
  replica_.Put("a", {1, 0});
  replica_.users["ann"].history = {{"a", "view", 1, 1}};
  encoder_.on_encode = [&](const UserContext&) { clock_.AdvanceMs(300); };
  replica_.hooked_index().before_search = [&](const SearchOptions&) { clock_.AdvanceMs(4); };
  RecallRequest request = ByUser("ann");
  EXPECT_OK(service_.Recall(request));
  request.with_attributes = true;
  EXPECT_OK(service_.Recall(request));
  EXPECT_EQ(Stages("resolve"), 2);
  EXPECT_EQ(Stages("search"), 2);
  EXPECT_EQ(Stages("attributes"), 1);
  const auto median = [&](const std::string& stage) {
    return metrics_.GetHistogram("freshet_query_stage_seconds", "", {{"stage", stage}}).Quantile(0.5);
  };
  EXPECT_NEAR(median("resolve"), 0.3, 0.11);
  EXPECT_NEAR(median("search"), 0.004, 0.002);
}

TEST_F(RecallAnswerTest, AttributesAreReadWithinABound) {
  for (int i = 0; i < 20; ++i) {
    replica_.Put(StrCat("i", i), {1, 0},
                 {{"tags", std::vector<std::string>{std::string(500, 'x')}}, {"text", std::string(500, 'y')}});
  }
  const RecallService service(&replica_, nullptr, &clock_, &metrics_, {.max_attribute_bytes = 10'000});
  RecallRequest request;
  request.vector = {1, 0};
  request.with_attributes = true;
  request.k = 5;
  EXPECT_OK(service.Recall(request));
  request.k = 20;
  const Status status = service.Recall(request).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_TRUE(status.message().starts_with("/with_attributes: ")) << status.message();
  EXPECT_NE(status.message().find("ask for fewer"), std::string::npos) << status.message();
  request.with_attributes = false;
  EXPECT_OK(service.Recall(request));
  request.with_attributes = true;
  EXPECT_OK(service_.Recall(request));
}

TEST_F(RecallAnswerTest, EqualScoresAtTheCutAreTakenById) {
  replica_.Put("best", {2, 0});
  for (int i = 9; i >= 0; --i) replica_.Put(StrCat("i", i), {1, 0}, {{"x", true}});  // the oldest: i9
  replica_.Put("worst", {0.5F, 0});
  EXPECT_EQ(Ask(ByVector({1, 0}, 3)), (Ids{"best", "i0", "i1"}));
  replica_.Put("i0", {1, 0}, {{"x", true}});  // a new label is no other place
  EXPECT_EQ(Ask(ByVector({1, 0}, 3)), (Ids{"best", "i0", "i1"}));
  RecallRequest filtered = ByVector({1, 0}, 3);
  filtered.filter.emplace().condition = AnyCondition("x", {true});
  for (const bool exact : {false, true}) {
    filtered.exact = exact;
    EXPECT_EQ(Ask(filtered), (Ids{"i0", "i1", "i2"}));
  }
}

TEST_F(RecallAnswerTest, ShowsOneItem) {
  replica_.Put("a", {1, 0}, {{"in_stock", true}});
  auto item = service_.GetItem("a");
  ASSERT_OK(item);
  EXPECT_TRUE(item->live);
  EXPECT_EQ(item->index_version, 7U);
  ASSERT_EQ(item->attributes.size(), 1U);
  EXPECT_EQ(item->not_live, "");
  EXPECT_EQ(item->sequence, 7U);
  EXPECT_EQ(item->changed_ms, std::nullopt);
  replica_.changed_ms["a"] = 1'000;
  EXPECT_EQ(service_.GetItem("a")->changed_ms, 1'000);
  EXPECT_EQ(service_.GetItem("b").status().code(), Code::kNotFound);
  EXPECT_EQ(service_.GetItem("").status().code(), Code::kInvalidArgument);
}

TEST_F(RecallAnswerTest, SaysWhyAnItemIsInNoAnswer) {
  replica_.Put("a", {1, 0});
  replica_.Own(false);
  auto item = service_.GetItem("a");
  ASSERT_OK(item);
  EXPECT_FALSE(item->live);
  EXPECT_EQ(item->not_live, "partition_elsewhere");
  replica_.Own(true);
  EXPECT_TRUE(service_.GetItem("a")->live);

  replica_.Publish("a", std::nullopt);  // as between a commit and what makes it visible
  item = service_.GetItem("a");
  ASSERT_OK(item);
  EXPECT_FALSE(item->live);
  EXPECT_EQ(item->not_live, "not_visible_yet");

  replica_.Delete("a");
  const Status deleted = service_.GetItem("a").status();
  EXPECT_EQ(deleted.code(), Code::kNotFound);
  EXPECT_NE(deleted.message().find("deleted"), std::string::npos) << deleted.message();
}

TEST_F(RecallAnswerTest, AnItemIsShownAsOneChangeMadeIt) {
  replica_.Put("a", {1, 0}, {{"price", 1.0}});
  int reads = 0;
  replica_.on_sequence = [&] {
    if (++reads != 2) return;  // what was read so far is of the change before
    replica_.version = 8;
    replica_.Put("a", {0, 1}, {{"price", 2.0}});
  };
  const auto item = service_.GetItem("a");
  ASSERT_OK(item);
  EXPECT_EQ(item->sequence, 8U);
  EXPECT_EQ(std::get<double>(item->attributes[0].second), 2.0);
  EXPECT_EQ(*item->vector, (std::vector<float>{0, 1}));
  EXPECT_EQ(reads, 4);

  replica_.on_sequence = [&] { ++replica_.sequences["a"]; };
  EXPECT_EQ(service_.GetItem("a").status().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace freshet
