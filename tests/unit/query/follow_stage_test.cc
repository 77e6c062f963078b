#include "freshet/query/follow_stage.h"

#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/store/changelog.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

// Records that wait to be polled; owns their bytes, as views must outlive the next Poll().
class FakeSource final : public RecordSource {
 public:
  struct Stored {
    std::string topic, key;
    std::optional<std::string> value;
    std::string epoch, sequence;
    std::int64_t offset;
  };
  Result<PollResult> Poll(std::chrono::milliseconds /*timeout*/) override {
    const std::lock_guard lock(mu_);
    PollResult result;
    if (!assigned_) {
      assigned_ = true;
      result.kind = PollResult::Kind::kAssigned;
      result.partitions = {{"vectors", 0}, {"user-events", 0}};
      return result;
    }
    if (next_ == records_.size() && !failure.ok()) return failure;
    if (next_ == records_.size()) return result;
    const Stored& stored = *records_[next_++];
    result.kind = PollResult::Kind::kRecord;
    result.record.topic = stored.topic;
    result.record.offset = stored.offset;
    result.record.key = stored.key;
    if (stored.value) result.record.value = *stored.value;
    result.record.headers = {{kEpochHeader, stored.epoch}, {kSequenceHeader, stored.sequence}};
    return result;
  }
  [[nodiscard]] std::int64_t AsOfMs() const override { return 0; }
  [[nodiscard]] std::int64_t LagRecords() const override { return 0; }
  [[nodiscard]] std::vector<PartitionProgress> Positions() const override {
    PartitionProgress vectors;
    vectors.partition = {"vectors", 0};
    vectors.complete_ms = 1234;
    PartitionProgress users;
    users.partition = {"user-events", 0};
    users.complete_ms = 5678;
    return {vectors, users};
  }
  void ReportStored(const std::vector<PartitionProgress>& /*progress*/) override {}

  void Add(const std::string& topic, const std::string& key, std::optional<std::string> value, std::uint64_t epoch,
           std::uint64_t sequence) {
    const std::lock_guard lock(mu_);
    records_.push_back(
        std::make_unique<Stored>(Stored{topic, key, std::move(value), std::to_string(epoch), std::to_string(sequence),
                                        static_cast<std::int64_t>(records_.size())}));
  }

  Status failure;  // once all records came; set before the stage starts

 private:
  std::mutex mu_;
  bool assigned_ = false;
  std::deque<std::unique_ptr<Stored>> records_;
  std::size_t next_ = 0;
};

std::string Item(float x, const std::string& space = "s") {
  ItemChange change;
  change.update.vector = {x, 1};
  return EncodeItemValue(change, space);
}

std::string Bought(const std::string& item) {
  UserChange change;
  change.body = Interaction{"", item, "purchase", 1, 5};
  return EncodeUserValue(change);
}

class FollowStageTest : public ::testing::Test {
 protected:
  FollowStageTest() : out_(64, 1 << 20) {
    options_.space_id = "s";
    options_.dim = 2;
  }
  // Runs the stage until `done` holds for what came out so far, or it stopped by itself.
  void RunUntil(const std::function<bool(const std::vector<EncodedBatch>&)>& done) {
    FollowStage stage(options_, &source_, &out_, &clock_, &metrics_);
    stage.Start();
    EXPECT_TRUE(test::WaitFor([&] {
      while (auto batch = out_.PopFor(std::chrono::milliseconds(0))) batches_.push_back(std::move(*batch));
      return out_.drained() || done(batches_);
    }));
    stage.Stop();
    status_ = stage.status();
    lost_log_ = stage.lost_log();
    other_space_ = stage.other_space();
  }
  [[nodiscard]] static std::size_t Items(const std::vector<EncodedBatch>& batches) {
    std::size_t count = 0;
    for (const EncodedBatch& batch : batches) count += batch.items.size();
    return count;
  }

  FollowOptions options_;
  FakeSource source_;
  BoundedQueue<EncodedBatch> out_;
  SystemClock clock_;
  Metrics metrics_;
  std::vector<EncodedBatch> batches_;
  Status status_;
  bool lost_log_ = false;
  std::optional<std::string> other_space_;
};

TEST_F(FollowStageTest, DecodesItemsDeletesAndUserEventsWithTheirOffsetsInBand) {
  source_.Add("vectors", "a", Item(1), 9, 1);
  source_.Add("vectors", "b", std::nullopt, 9, 2);
  source_.Add("user-events", "u", Bought("a"), 9, 3);
  std::size_t users = 0;
  RunUntil([&](const auto& batches) {
    users = 0;
    for (const EncodedBatch& batch : batches) users += batch.users.size();
    return Items(batches) == 2 && users == 1;
  });
  ASSERT_OK(status_);
  std::map<TopicPartition, PartitionProgress> last;
  for (const EncodedBatch& batch : batches_) {
    for (const PartitionProgress& progress : batch.progress) last[progress.partition] = progress;
  }
  EXPECT_EQ((last[{"vectors", 0}].next_offset), 2);
  EXPECT_EQ((last[{"vectors", 0}].sequence), 2U);
  EXPECT_EQ((last[{"vectors", 0}].epoch), 9U);
  EXPECT_EQ((last[{"user-events", 0}].next_offset), 3);
}

// By which it is known later whether deletes may have been compacted away, and whether it is still that log.
TEST_F(FollowStageTest, SaysHowFarPartitionsAreCompleteAndWhichRecordWasTheLast) {
  source_.Add("vectors", "a", Item(1), 9, 1);
  RunUntil([&](const auto& batches) { return Items(batches) == 1; });
  ASSERT_OK(status_);
  std::map<TopicPartition, PartitionProgress> last;
  for (const EncodedBatch& batch : batches_) {
    for (const PartitionProgress& progress : batch.progress) {
      PartitionProgress& known = last[progress.partition];
      if (progress.next_offset > 0) known.fingerprint = progress.fingerprint;
      known.next_offset = std::max(known.next_offset, progress.next_offset);
      known.complete_ms = std::max(known.complete_ms, progress.complete_ms);
    }
  }
  RawRecord record;
  record.key = "a";
  EXPECT_EQ((last[{"vectors", 0}].fingerprint), Fingerprint(record));
  EXPECT_EQ((last[{"vectors", 0}].next_offset), 1);
  EXPECT_EQ((last[{"vectors", 0}].complete_ms), 1234);
  EXPECT_EQ((last[{"user-events", 0}].next_offset), 0);
  EXPECT_EQ((last[{"user-events", 0}].complete_ms), 5678);
}

TEST_F(FollowStageTest, ALogThatCannotBeReadOnIsToldApart) {
  source_.failure = FailedPrecondition("vectors[0] cannot be read on");
  RunUntil([](const auto&) { return false; });
  EXPECT_EQ(status_.code(), Code::kFailedPrecondition);
  EXPECT_TRUE(lost_log_);
}

// To skip what a newer engine says would leave an old version of the item in answers.
TEST_F(FollowStageTest, StopsAtARecordOfANewerFormat) {
  std::string newer = Item(1);
  newer[0] = '\x7f';
  ByteWriter sum;
  sum.Put(Xxh3(std::string_view(newer).substr(0, newer.size() - 8)));
  newer.replace(newer.size() - 8, 8, sum.Take());
  source_.Add("vectors", "a", newer, 9, 1);
  RunUntil([](const auto&) { return false; });
  EXPECT_EQ(status_.code(), Code::kFailedPrecondition);
  EXPECT_NE(status_.message().find("version 127"), std::string::npos) << status_.ToString();
  EXPECT_FALSE(lost_log_);
}

TEST_F(FollowStageTest, AsOfIsWhatThePartitionFurthestBehindHasReached) {
  const std::string key(kProgressKey);
  source_.Add("vectors", key, EncodeProgressValue({5000, "s"}), 9, 1);
  source_.Add("user-events", key, EncodeProgressValue({4000, "s"}), 9, 1);
  RunUntil([](const auto& batches) { return !batches.empty() && batches.back().as_of_ms != 0; });
  ASSERT_OK(status_);
  EXPECT_EQ(batches_.back().as_of_ms, 4000);
}

TEST_F(FollowStageTest, OneBatchNeverMixesEpochsOfAPartition) {
  source_.Add("vectors", "a", Item(1), 9, 10);
  source_.Add("vectors", "a", Item(2), 10, 1);
  RunUntil([](const auto& batches) { return Items(batches) == 2; });
  ASSERT_OK(status_);
  for (const EncodedBatch& batch : batches_) {
    if (!batch.items.empty()) {
      EXPECT_EQ(batch.items.size(), 1U);
    }
  }
}

TEST_F(FollowStageTest, ARunThatIsPublishedAgainCountsOnceWithinABatch) {
  options_.linger_ms = 200;  // all in one batch
  for (int again = 0; again < 2; ++again) {
    source_.Add("user-events", "u", Bought("a"), 9, 1);
    source_.Add("user-events", "u", Bought("b"), 9, 2);
  }
  RunUntil([](const auto& batches) { return !batches.empty() && !batches[0].users.empty(); });
  ASSERT_OK(status_);
  EXPECT_EQ(batches_[0].users.size(), 2U);
}

TEST_F(FollowStageTest, AnotherEmbeddingSpaceOrDimensionStopsIt) {
  source_.Add("vectors", "b", Item(1), 9, 1);
  source_.Add("vectors", "a", Item(1, "other"), 9, 2);
  source_.Add("vectors", "c", Item(1), 9, 3);
  RunUntil([](const auto&) { return false; });
  EXPECT_EQ(status_.code(), Code::kFailedPrecondition);
  EXPECT_EQ(Items(batches_), 1U) << "what came before it";
  EXPECT_EQ(other_space_, "other");
  EXPECT_FALSE(lost_log_);
}

TEST_F(FollowStageTest, WordOfAnotherEmbeddingSpaceStopsItToo) {
  options_.epoch = 9;
  source_.Add("vectors", std::string(kProgressKey), EncodeProgressValue({5000, "other"}), 10, 1);
  RunUntil([](const auto&) { return false; });
  EXPECT_EQ(status_.code(), Code::kFailedPrecondition);
  EXPECT_EQ(other_space_, "other");
  EXPECT_TRUE(batches_.empty() || batches_.back().as_of_ms == 0);
}

// A log that an engine with another model began: of an item that both know, compaction leaves the newer engine's word,
// some day.
TEST_F(FollowStageTest, WhatAnOlderModelLeftInTheLogIsSkipped) {
  options_.epoch = 10;
  source_.Add("vectors", "a", Item(1, "other"), 9, 1);
  source_.Add("vectors", std::string(kProgressKey), EncodeProgressValue({9000, "other"}), 9, 1);
  source_.Add("user-events", std::string(kProgressKey), EncodeProgressValue({9000, "other"}), 9, 1);
  source_.Add("vectors", "a", Item(2), 10, 1);
  source_.Add("vectors", "b", Item(3), 11, 2);           // the engine was made anew, with the same model
  source_.Add("vectors", "c", Item(4, "other"), 10, 3);  // and this is late
  source_.Add("vectors", "d", Item(5), 11, 4);
  RunUntil([](const auto& batches) { return Items(batches) == 3; });
  ASSERT_OK(status_);
  EXPECT_FALSE(other_space_);
  for (const EncodedBatch& batch : batches_) EXPECT_EQ(batch.as_of_ms, 0) << "that word is not ours";
  EXPECT_EQ(metrics_.GetCounter("freshet_follow_other_space_total", "").Value(), 4);
}

TEST_F(FollowStageTest, ADamagedRecordIsCountedAndSkipped) {
  std::string damaged = Item(1);
  damaged[5] = static_cast<char>(damaged[5] ^ 1);
  source_.Add("vectors", "a", damaged, 9, 1);
  source_.Add("vectors", "b", Item(1), 9, 2);
  RunUntil([](const auto& batches) { return Items(batches) == 1; });
  ASSERT_OK(status_);
  EXPECT_EQ(metrics_
                .GetCounter("freshet_follow_undecodable_total",
                            "Changelog records that do not decode; other than 0 is a defect")
                .Value(),
            1);
}

}  // namespace
}  // namespace freshet
