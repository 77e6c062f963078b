// What an answer says of itself, and what it may take.
#include <gtest/gtest.h>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_service.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

class RecallAnswerTest : public ::testing::Test {
 protected:
  static RecallRequest ByUser(const std::string& user) {
    RecallRequest request;
    request.user = user;
    return request;
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

}  // namespace
}  // namespace freshet
