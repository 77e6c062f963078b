#include "freshet/encoder/encode_stage.h"

#include <map>

#include "freshet/ingest/record_codec.h"
#include "freshet_test/test_support.h"
#include "stage_events.h"

namespace freshet {
namespace {

using test::At;
using test::Batch;
using test::Deleted;
using test::FakeDeadLetters;
using test::Item;

// Embeds the feature `x` as {x, 1}; an item with x < 0 is one that no model can embed. Breaks for good when told to.
class FakeEncoder final : public ItemEncoder {
 public:
  int dim() const override { return 2; }
  Metric metric() const override { return Metric::kL2; }
  const std::string& space_id() const override { return space_id_; }
  Status Encode(std::span<const ItemUpdate* const> items, std::span<float> out) override {
    ++calls;
    if (broken) return Internal("the model is broken");
    for (std::size_t i = 0; i < items.size(); ++i) {
      const double x = std::get<double>(*FindFeature(items[i]->features, "x"));
      seen.push_back(items[i]->item_id);
      if (x < 0) return InvalidArgument("x is negative");
      out[2 * i] = static_cast<float>(x);
      out[2 * i + 1] = 1;
    }
    return Status::Ok();
  }
  int calls = 0;
  bool broken = false;
  std::vector<std::string> seen;

 private:
  const std::string space_id_ = "fake-space";
};

class EncodeStageTest : public ::testing::Test {
 protected:
  ~EncodeStageTest() override {
    in_.Close();
    out_.Close();
  }

  // Runs the stage over the batches and gives back what came out.
  std::vector<EncodedBatch> Run(std::vector<EventBatch> batches) {
    EncodeStage stage(&encoder_, &letters_, &in_, &out_, &clock_, &metrics_);
    stage.SkipUnchanged(known_);
    stage.Start();
    for (EventBatch& batch : batches) (void)in_.Push(std::move(batch), 1);
    in_.Close();
    stage.Join();
    status_ = stage.status();
    std::vector<EncodedBatch> results;
    while (auto batch = out_.PopFor(std::chrono::milliseconds(0))) results.push_back(std::move(*batch));
    return results;
  }

  FakeEncoder encoder_;
  const KnownItems* known_ = nullptr;
  FakeDeadLetters letters_;
  ManualClock clock_;
  Metrics metrics_;
  BoundedQueue<EventBatch> in_{100, 1 << 20};
  BoundedQueue<EncodedBatch> out_{100, 1 << 20};
  Status status_;
};

TEST_F(EncodeStageTest, EmbedsEachItemAndCarriesTheBatchesFrame) {
  const auto results = Run({Batch({Item("a", 1, 10), Item("b", 2, 11)})});
  ASSERT_OK(status_);
  ASSERT_EQ(results.size(), 1U);
  const EncodedBatch& batch = results[0];
  EXPECT_EQ(batch.space_id, "fake-space");
  EXPECT_EQ(batch.as_of_ms, 77);
  EXPECT_EQ(batch.bytes, 123U + 2 * 2 * sizeof(float));
  ASSERT_EQ(batch.items.size(), 2U);
  EXPECT_EQ(batch.items[1].update.item_id, "b");
  EXPECT_EQ(batch.items[1].update.vector, (std::vector<float>{2, 1}));
  EXPECT_EQ(batch.items[1].position.offset, 11);
  EXPECT_EQ(batch.items[1].record_timestamp_ms, 1011);
  EXPECT_EQ(encoder_.calls, 1);
  ASSERT_EQ(batch.progress.size(), 1U);
  EXPECT_EQ(batch.progress[0].next_offset, 12);
}

TEST_F(EncodeStageTest, EncodesOnlyTheLastWriteOfAnItem) {
  const auto results = Run({Batch({Item("a", 1, 0), Item("b", 5, 1), Item("a", 2, 2), Item("a", 3, 3)})});
  ASSERT_EQ(results.size(), 1U);
  ASSERT_EQ(results[0].items.size(), 2U);
  EXPECT_EQ(results[0].items[1].update.item_id, "a");
  EXPECT_EQ(results[0].items[1].update.vector[0], 3);
  EXPECT_EQ(results[0].items[1].position.offset, 3);
  EXPECT_EQ(encoder_.seen, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(metrics_
                .GetCounter("freshet_encode_superseded_total",
                            "Item writes dropped for a later write of the same item in their batch.")
                .Value(),
            2);
}

// A key moves to another partition when there are more of them, and a batch has them in any order.
TEST_F(EncodeStageTest, BetweenPartitionsTheLaterTimeIsTheLastWrite) {
  Event newer = Item("a", 1, 0);
  newer.position.partition = 3;
  newer.record_timestamp_ms = 5'000;
  const auto results = Run({Batch({newer, Item("a", 2, 1)}), Batch({Item("a", 2, 2), newer})});
  ASSERT_EQ(results.size(), 2U);
  for (const EncodedBatch& batch : results) {
    ASSERT_EQ(batch.items.size(), 1U);
    EXPECT_EQ(batch.items[0].position.partition, 3);
    EXPECT_EQ(batch.items[0].update.vector[0], 1);
  }
}

TEST_F(EncodeStageTest, ADeletePassesWithoutTheModel) {
  const auto results = Run({Batch({Item("a", 1, 0), Deleted("a", 1), Deleted("b", 2), Item("b", 4, 3)})});
  ASSERT_EQ(results.size(), 1U);
  ASSERT_EQ(results[0].items.size(), 2U);
  EXPECT_TRUE(results[0].items[0].update.deleted);
  EXPECT_TRUE(results[0].items[0].update.vector.empty());
  EXPECT_FALSE(results[0].items[1].update.deleted);
  EXPECT_EQ(encoder_.seen, std::vector<std::string>{"b"});
}

TEST_F(EncodeStageTest, FindsTheBadItemsByBisectionAndPassesTheRest) {
  std::vector<Event> events;
  for (int i = 0; i < 64; ++i) events.push_back(Item("i" + std::to_string(i), i == 13 || i == 40 ? -1 : i, i));
  const auto results = Run({Batch(std::move(events))});
  ASSERT_OK(status_);
  ASSERT_EQ(results.size(), 1U);
  EXPECT_EQ(results[0].items.size(), 62U);
  for (const ItemChange& change : results[0].items) {
    EXPECT_EQ(change.update.vector[0], static_cast<float>(change.position.offset));
  }
  ASSERT_EQ(letters_.sent.size(), 2U);
  EXPECT_EQ(letters_.sent[0].position.offset, 13);
  EXPECT_EQ(letters_.sent[1].position.offset, 40);
  EXPECT_EQ(letters_.sent[0].stage, "TRANSFORMATION");
  EXPECT_EQ(letters_.sent[0].reason, "x is negative");
  EXPECT_EQ(letters_.sent[0].record.key, "i13");
  EXPECT_EQ(results[0].progress[0].next_offset, 64) << "a dead letter's offset is covered";
  EXPECT_LE(encoder_.calls, 26) << "bisection, not one call an item";
}

TEST_F(EncodeStageTest, APoisonedLastWriteDoesNotBringTheOlderOneBack) {
  const auto results = Run({Batch({Item("a", 1, 0), Item("a", -1, 1)})});
  ASSERT_EQ(results.size(), 1U);
  EXPECT_TRUE(results[0].items.empty());
  ASSERT_EQ(letters_.sent.size(), 1U);
  EXPECT_EQ(letters_.sent[0].position.offset, 1);
  EXPECT_EQ(results[0].progress[0].next_offset, 2);
}

TEST_F(EncodeStageTest, PassesHeartbeatsAndFullySkippedBatches) {
  EventBatch heartbeat;
  heartbeat.as_of_ms = 99;
  const auto results = Run({std::move(heartbeat), Batch({At(0, 5), At(0, 6)})});
  ASSERT_EQ(results.size(), 2U);
  EXPECT_EQ(results[0].as_of_ms, 99);
  EXPECT_TRUE(results[0].progress.empty());
  EXPECT_TRUE(results[1].items.empty());
  ASSERT_EQ(results[1].progress.size(), 1U);
  EXPECT_EQ(results[1].progress[0].next_offset, 7);
  EXPECT_EQ(encoder_.calls, 0);
}

TEST_F(EncodeStageTest, KeepsUserEventsInLogOrderBesideTheirPartition) {
  Event bought = At(1, 3, "interactions");
  bought.body = Interaction{"u", "a", "purchase", 1.0, 5};
  Event forgotten = At(1, 4, "users");
  forgotten.body = UserUpdate{"u", true, {}};
  Event again = At(1, 4, "interactions");
  again.body = Interaction{"u", "b", "purchase", 1.0, 6};
  const auto results = Run({Batch({Item("a", 1, 0, 1), bought, forgotten, again})});
  ASSERT_EQ(results.size(), 1U);
  const EncodedBatch& batch = results[0];
  ASSERT_EQ(batch.users.size(), 3U);
  EXPECT_EQ(std::get<Interaction>(batch.users[0].body).item_id, "a");
  EXPECT_TRUE(std::get<UserUpdate>(batch.users[1].body).forgotten);
  EXPECT_EQ(std::get<Interaction>(batch.users[2].body).item_id, "b");
  // All three topics have a partition 1: the topic tells them apart.
  EXPECT_EQ(batch.progress[batch.items[0].progress_index].partition.topic, "items");
  EXPECT_EQ(batch.progress[batch.users[0].progress_index].partition.topic, "interactions");
  EXPECT_EQ(batch.progress[batch.users[1].progress_index].partition.topic, "users");
}

TEST_F(EncodeStageTest, ABrokenModelEndsTheStageAndClosesBothQueues) {
  encoder_.broken = true;
  EncodeStage stage(&encoder_, &letters_, &in_, &out_, &clock_, &metrics_);
  stage.Start();
  ASSERT_TRUE(in_.Push(Batch({Item("a", 1, 0)}), 1));
  stage.Join();  // the input was never closed by us
  EXPECT_EQ(stage.status().code(), Code::kInternal);
  EXPECT_FALSE(in_.Push(EventBatch{}, 0));
  EXPECT_TRUE(out_.drained());
  EXPECT_TRUE(letters_.sent.empty()) << "a broken model is not the items' fault";
}

TEST_F(EncodeStageTest, ABatchIsNotPassedOnBeforeItsDeadLettersAre) {
  letters_.answer = Cancelled("stopping");
  const auto results = Run({Batch({Item("a", -1, 0), Item("b", 1, 1)})});
  EXPECT_TRUE(results.empty());
  EXPECT_EQ(status_.code(), Code::kCancelled);
}

// What a store would say: nothing of what is still on its way to it.
class FakeKnown final : public KnownItems {
 public:
  Result<std::uint64_t> FeaturesHash(std::string_view item_id) const override {
    if (unreadable) return IoError("unreadable");
    const auto found = features.find(std::string(item_id));
    return found == features.end() ? 0 : HashOf(found->second);
  }
  std::uint64_t applied_batches() const override { return applied; }
  std::map<std::string, Features> features;
  std::uint64_t applied = 0;
  bool unreadable = false;
};

TEST_F(EncodeStageTest, WhoseFeaturesAreAsStoredIsNotEmbeddedAgain) {
  FakeKnown known;
  known.features["a"] = {{"x", 1.0}};
  known.features["b"] = {{"x", 5.0}};
  known_ = &known;
  const auto results = Run({Batch({Item("a", 1, 0), Item("b", 2, 1), Item("c", 3, 2)})});
  ASSERT_OK(status_);
  ASSERT_EQ(results[0].items.size(), 3U);
  EXPECT_TRUE(results[0].items[0].same_features);
  EXPECT_TRUE(results[0].items[0].update.vector.empty());
  EXPECT_FALSE(results[0].items[1].same_features);
  EXPECT_FALSE(results[0].items[2].same_features);
  EXPECT_EQ(encoder_.seen, (std::vector<std::string>{"b", "c"}));
}

TEST_F(EncodeStageTest, WhatTheStoreCannotSayIsEmbeddedAgain) {
  FakeKnown known;
  known.features["a"] = {{"x", 1.0}};
  known.unreadable = true;
  known_ = &known;
  const auto results = Run({Batch({Item("a", 1, 0)})});
  ASSERT_OK(status_);
  EXPECT_FALSE(results[0].items[0].same_features);
  EXPECT_EQ(encoder_.seen, (std::vector<std::string>{"a"}));
}

// The store does not know yet what is on its way: back to the old features is a change.
TEST_F(EncodeStageTest, WhatIsOnItsWayToTheStoreIsNotAsStored) {
  FakeKnown known;
  known.features["a"] = {{"x", 1.0}};
  known_ = &known;
  const auto results = Run({Batch({Item("a", 2, 0)}), Batch({Item("a", 1, 1)})});
  ASSERT_OK(status_);
  ASSERT_EQ(results.size(), 2U);
  EXPECT_FALSE(results[1].items[0].same_features);
}

TEST_F(EncodeStageTest, NothingIsAsStoredUntilAMarkIsApplied) {
  FakeKnown known;
  known.features["a"] = {{"x", 1.0}};
  known_ = &known;
  EventBatch marked;
  marked.marks.push_back({PartitionMark::Kind::kCaughtUp, {"items", 0}, false});
  const auto results = Run({std::move(marked), Batch({Item("a", 1, 0)})});
  ASSERT_OK(status_);
  ASSERT_EQ(results.size(), 2U);
  EXPECT_EQ(results[0].marks.size(), 1U);
  EXPECT_FALSE(results[1].items[0].same_features);
}

}  // namespace
}  // namespace freshet
