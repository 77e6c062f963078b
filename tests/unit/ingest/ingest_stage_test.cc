#include "freshet/ingest/ingest_stage.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <set>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;
using test::WaitFor;

// A source that gives what it is fed, and waits in between.
class FakeSource final : public RecordSource {
 public:
  struct Fed {
    PollResult::Kind kind = PollResult::Kind::kRecord;
    std::string topic = "items";
    std::int64_t offset = 0;
    std::string key;
    std::string value;
    Status error;
    bool lost = false;
    std::string reason;
  };

  void Feed(Fed fed) {
    const std::lock_guard lock(mu_);
    fed_.push_back(std::move(fed));
    changed_.notify_all();
  }
  void Item(std::int64_t offset, const std::string& value = "{}") {
    Feed({.offset = offset,
          .key = "i" + std::to_string(offset),
          .value = value,
          .error = {},
          .lost = false,
          .reason = {}});
  }

  Result<PollResult> Poll(milliseconds timeout) override {
    std::unique_lock lock(mu_);
    changed_.wait_for(lock, timeout, [&] { return !fed_.empty(); });
    if (fed_.empty()) return PollResult{};
    now_ = std::move(fed_.front());
    fed_.pop_front();
    if (!now_.error.ok()) return now_.error;
    PollResult result;
    result.kind = now_.kind;
    result.lost = now_.lost;
    result.reason = now_.reason;
    if (now_.kind != PollResult::Kind::kRecord) result.partitions = {{now_.topic, 0}};
    if (now_.kind == PollResult::Kind::kRecord) {
      result.record.topic = now_.topic;
      result.record.offset = now_.offset;
      result.record.timestamp_ms = 1000 + now_.offset;
      result.record.key = now_.key;
      result.record.value = now_.value;
    }
    return result;
  }
  std::int64_t AsOfMs() const override { return as_of_.load(); }
  std::int64_t LagRecords() const override { return 3; }
  void ReportStored(const std::vector<PartitionProgress>&) override {}
  Status KeepAlive() override {
    ++kept_alive_;
    return Status::Ok();
  }
  std::atomic<int> kept_alive_{0};

  std::atomic<std::int64_t> as_of_{77};

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<Fed> fed_;
  Fed now_;
};

// Takes letters; can be corked, to see what waits for them.
class FakeDeadLetters final : public DeadLetterQueue {
 public:
  Status Send(std::vector<DeadLetter> letters) override {
    std::unique_lock lock(mu_);
    waiting_ = true;
    changed_.wait(lock, [&] { return !corked_; });
    for (DeadLetter& letter : letters) taken_.push_back(std::move(letter));
    return answer_;
  }
  void Cork(bool corked) {
    const std::lock_guard lock(mu_);
    corked_ = corked;
    changed_.notify_all();
  }
  bool waiting() {
    const std::lock_guard lock(mu_);
    return waiting_;
  }
  std::vector<DeadLetter> taken() {
    const std::lock_guard lock(mu_);
    return taken_;
  }
  Status answer_;

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool corked_ = false;
  bool waiting_ = false;
  std::vector<DeadLetter> taken_;
};

class IngestStageTest : public ::testing::Test {
 protected:
  void Start() {
    IngestStage::Decoders decoders;
    auto decoder = MakeJsonDecoder(TopicRole::kItems, DefaultSchema(TopicRole::kItems), {});
    ASSERT_OK(decoder);
    decoders["items"] = std::move(*decoder);
    stage_ =
        std::make_unique<IngestStage>(options_, &source_, std::move(decoders), &letters_, &out_, &clock_, &metrics_);
    stage_->Start();
  }
  // The next batch that holds events; heartbeats are passed over.
  std::optional<EventBatch> NextBatch() {
    for (;;) {
      std::optional<EventBatch> batch = out_.PopFor(milliseconds(20'000));
      if (!batch || !batch->events.empty()) return batch;
    }
  }

  IngestOptions options_{.max_batch_records = 3, .max_batch_bytes = 1000, .linger_ms = 10, .heartbeat_ms = 100};
  FakeSource source_;
  FakeDeadLetters letters_;
  BoundedQueue<EventBatch> out_{16, std::size_t{1} << 20};
  SystemClock clock_;
  Metrics metrics_;
  std::unique_ptr<IngestStage> stage_;
};

TEST_F(IngestStageTest, ABatchClosesAtItsRecordsAndCarriesItsOffsets) {
  options_.linger_ms = 60'000;
  Start();
  for (std::int64_t i = 5; i < 8; ++i) source_.Item(i, R"({"category": "c"})");
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  ASSERT_EQ(batch->events.size(), 3u);
  EXPECT_EQ(batch->events[0].position.offset, 5);
  EXPECT_EQ(std::get<ItemUpdate>(batch->events[2].body).item_id, "i7");
  EXPECT_EQ(batch->events[0].raw.key, "i5");
  EXPECT_EQ(batch->events[0].raw.value, R"({"category": "c"})");
  ASSERT_EQ(batch->progress.size(), 1u);
  EXPECT_EQ(batch->progress[0].partition, (TopicPartition{"items", 0}));
  EXPECT_EQ(batch->progress[0].next_offset, 8);
  EXPECT_EQ(batch->progress[0].last_timestamp_ms, 1007);
  EXPECT_NE(batch->progress[0].fingerprint, 0u);
  EXPECT_EQ(batch->as_of_ms, 77);
  EXPECT_EQ(batch->bytes, 3 * (2 + 17u));
  stage_->Stop();
  EXPECT_OK(stage_->status());
}

TEST_F(IngestStageTest, ABatchClosesAtItsBytesAndAtItsLinger) {
  options_.max_batch_bytes = 10;
  options_.linger_ms = 60'000;
  Start();
  source_.Item(0, R"({"category": "c"})");
  auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->events.size(), 1u);
  stage_->Stop();
}

TEST_F(IngestStageTest, APartBatchGoesOutAfterItsLinger) {
  Start();
  source_.Item(0);
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->events.size(), 1u);
}

TEST_F(IngestStageTest, AnEmptyBatchCarriesTimeOnWhileNothingArrives) {
  Start();
  source_.as_of_ = 4242;
  EXPECT_TRUE(WaitFor([&] {
    const auto batch = out_.PopFor(milliseconds(1000));
    return batch && batch->events.empty() && batch->as_of_ms == 4242;
  }));
}

TEST_F(IngestStageTest, ABatchWaitsForItsDeadLetters) {
  letters_.Cork(true);
  Start();
  source_.Item(0, "not json");
  source_.Item(1);
  source_.Item(2);
  ASSERT_TRUE(WaitFor([&] { return letters_.waiting(); }));
  while (const auto early = out_.PopFor(milliseconds(0))) EXPECT_TRUE(early->events.empty());
  letters_.Cork(false);
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_TRUE(std::holds_alternative<Skipped>(batch->events[0].body));
  ASSERT_EQ(batch->progress.size(), 1u);
  EXPECT_GE(batch->progress[0].next_offset, 1) << "poison moves the offset on";
  const std::vector<DeadLetter> taken = letters_.taken();
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].record.value, "not json");
  EXPECT_EQ(taken[0].position.offset, 0);
  EXPECT_EQ(taken[0].timestamp_ms, 1000);
  EXPECT_EQ(taken[0].stage, "VALUE_CONVERTER");
  EXPECT_EQ(metrics_.GetCounter("freshet_ingest_poison_total", "Records that could not be decoded").Value(), 1);
}

TEST_F(IngestStageTest, ADeadLetterSaysWhetherKeyOrValueIsToBlame) {
  Start();
  FakeSource::Fed bad_key;
  bad_key.key = "\xff";
  bad_key.value = "{}";
  source_.Feed(bad_key);
  source_.Item(1, "not json");
  ASSERT_TRUE(WaitFor([&] { return letters_.taken().size() == 2; }));
  EXPECT_EQ(letters_.taken()[0].stage, "KEY_CONVERTER");
  EXPECT_EQ(letters_.taken()[1].stage, "VALUE_CONVERTER");
}

// A queue that stays full: the source is kept alive, nothing is lost.
TEST_F(IngestStageTest, WhileALaterStageTakesNothingTheSourceIsKeptAlive) {
  options_.max_batch_records = 1;
  Start();
  for (std::int64_t i = 0; i < 20; ++i) source_.Item(i);  // the queue holds 16
  ASSERT_TRUE(WaitFor([&] { return source_.kept_alive_ > 0; }));
  std::set<std::int64_t> offsets;
  while (offsets.size() < 20) {
    const auto batch = NextBatch();
    ASSERT_TRUE(batch.has_value());
    for (const Event& event : batch->events) offsets.insert(event.position.offset);
  }
}

TEST_F(IngestStageTest, WhatHappensToPartitionsIsToldInOrderWithTheRecords) {
  options_.linger_ms = 60'000;
  std::vector<std::size_t> owned;
  std::atomic<int> told{0};
  IngestStage::Decoders decoders;
  decoders["items"] = MakeJsonDecoder(TopicRole::kItems, DefaultSchema(TopicRole::kItems), {}).value();
  IngestStage stage(options_, &source_, std::move(decoders), &letters_, &out_, &clock_, &metrics_);
  stage.OnOwned([&](const std::vector<TopicPartition>& partitions) {
    owned.push_back(partitions.size());
    ++told;
  });
  const auto change = [](PollResult::Kind kind, bool lost, const std::string& reason = "") {
    FakeSource::Fed fed;
    fed.kind = kind;
    fed.lost = lost;
    fed.reason = reason;
    return fed;
  };
  source_.Feed(change(PollResult::Kind::kAssigned, false));
  source_.Item(0);
  source_.Feed(change(PollResult::Kind::kReread, false, "tombstones"));
  source_.Item(0);
  source_.Feed(change(PollResult::Kind::kCaughtUp, false));
  source_.Feed(change(PollResult::Kind::kRevoked, false));
  source_.Feed(change(PollResult::Kind::kRevoked, true));
  stage.Start();
  std::string order;
  while (order.size() < 4) {
    const auto batch = out_.PopFor(milliseconds(20'000));
    ASSERT_TRUE(batch.has_value());
    if (!batch->events.empty()) order += "e";
    for (const PartitionMark& mark : batch->marks) {
      order += mark.kind == PartitionMark::Kind::kReread ? (mark.same_log ? "s" : "r") : "c";
    }
  }
  EXPECT_EQ(order, "esec");
  EXPECT_TRUE(WaitFor([&] { return told == 2; }));
  stage.Stop();
  EXPECT_EQ(owned, (std::vector<std::size_t>{1, 0})) << "only a loss says that others may own it";
}

TEST_F(IngestStageTest, ADeadLetterThatCannotBeWrittenEndsTheStreamBeforeItsOffset) {
  letters_.answer_ = FailedPrecondition("never");
  Start();
  source_.Item(0, "not json");
  ASSERT_TRUE(WaitFor([&] { return !stage_->running(); }));
  EXPECT_EQ(stage_->status().code(), Code::kFailedPrecondition);
  EXPECT_FALSE(NextBatch().has_value());
}

TEST_F(IngestStageTest, TransientErrorsOfTheSourceAreWaitedOut) {
  Start();
  FakeSource::Fed away;
  away.error = Unavailable("away");
  source_.Feed(away);
  source_.Item(0);
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->events.size(), 1u);
}

TEST_F(IngestStageTest, PermanentErrorsOfTheSourceEndTheStream) {
  Start();
  FakeSource::Fed gone;
  gone.error = FailedPrecondition("gone");
  source_.Feed(gone);
  ASSERT_TRUE(WaitFor([&] { return !stage_->running(); }));
  EXPECT_EQ(stage_->status().code(), Code::kFailedPrecondition);
}

// Away for its first answers, then fine.
class AwayDecoder final : public EventDecoder {
 public:
  explicit AwayDecoder(std::atomic<int>* away) : away_(away) {}
  Status Decode(const RawRecord& record, Event* event) const override {
    if (away_->load() > 0) {
      away_->fetch_sub(1);
      return Unavailable("the registry is away");
    }
    event->body = ItemUpdate{std::string(*record.key), false, {}, {}, {}};
    return Status::Ok();
  }

 private:
  std::atomic<int>* const away_;
};

TEST_F(IngestStageTest, ARecordThatCannotBeDecodedYetIsTriedAgainAndNeverADeadLetter) {
  options_.linger_ms = 60'000;
  std::atomic<int> away{0};
  IngestStage::Decoders decoders;
  decoders["items"] = std::make_unique<AwayDecoder>(&away);
  IngestStage stage(options_, &source_, std::move(decoders), &letters_, &out_, &clock_, &metrics_);
  Counter& records = metrics_.GetCounter("freshet_ingest_records_total", "Records read from Kafka");
  stage.Start();
  source_.Item(0);
  ASSERT_TRUE(WaitFor([&] { return records.Value() == 1; }));
  away = 2;
  source_.Item(1);
  // What was decoded before goes on meanwhile, without a claim to be all that was read.
  const auto before = NextBatch();
  ASSERT_TRUE(before.has_value());
  ASSERT_EQ(before->events.size(), 1u);
  EXPECT_EQ(before->progress[0].next_offset, 1);
  EXPECT_EQ(before->as_of_ms, 0);
  ASSERT_TRUE(WaitFor([&] { return records.Value() == 2; }));
  stage.Stop();
  const auto after = NextBatch();
  ASSERT_TRUE(after.has_value());
  ASSERT_EQ(after->events.size(), 1u);
  EXPECT_EQ(after->progress[0].next_offset, 2);
  EXPECT_TRUE(letters_.taken().empty());
  EXPECT_OK(stage.status());
}

TEST_F(IngestStageTest, StoppingEndsTheWaitForARegistryWithoutTheRecord) {
  std::atomic<int> away{1'000'000};
  IngestStage::Decoders decoders;
  decoders["items"] = std::make_unique<AwayDecoder>(&away);
  IngestStage stage(options_, &source_, std::move(decoders), &letters_, &out_, &clock_, &metrics_);
  stage.Start();
  source_.Item(0);
  ASSERT_TRUE(WaitFor([&] { return away.load() < 1'000'000; }));
  stage.Stop();
  EXPECT_FALSE(NextBatch().has_value());
  EXPECT_TRUE(letters_.taken().empty());
  EXPECT_OK(stage.status());
}

TEST_F(IngestStageTest, ATopicThatNobodyAskedForIsOurMistake) {
  Start();
  FakeSource::Fed stray;
  stray.topic = "other";
  source_.Feed(stray);
  ASSERT_TRUE(WaitFor([&] { return !stage_->running(); }));
  EXPECT_EQ(stage_->status().code(), Code::kInternal);
}

TEST_F(IngestStageTest, StopHandsOverWhatIsAtHandAndClosesTheQueue) {
  options_.linger_ms = 60'000;
  Start();
  source_.Item(0);
  source_.Item(1);
  ASSERT_TRUE(WaitFor(
      [&] { return metrics_.GetCounter("freshet_ingest_records_total", "Records read from Kafka").Value() == 2; }));
  stage_->Stop();
  stage_->Stop();
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->events.size(), 2u);
  EXPECT_FALSE(NextBatch().has_value());
  EXPECT_TRUE(out_.drained());
  EXPECT_OK(stage_->status());
}

TEST_F(IngestStageTest, ARevocationClosesTheBatchOfTheOldAssignment) {
  options_.linger_ms = 60'000;
  Start();
  source_.Item(0);
  FakeSource::Fed revoked;
  revoked.kind = PollResult::Kind::kRevoked;
  source_.Feed(revoked);
  source_.Item(1);
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->events.size(), 1u);
}

TEST(IngestOptionsTest, RefusesWhatCannotWork) {
  EXPECT_OK(IngestOptions{}.Validate());
  EXPECT_EQ((IngestOptions{.max_batch_records = 0}.Validate().code()), Code::kConfig);
  EXPECT_EQ((IngestOptions{.max_batch_bytes = 0}.Validate().code()), Code::kConfig);
  EXPECT_EQ((IngestOptions{.linger_ms = -1}.Validate().code()), Code::kConfig);
  EXPECT_EQ((IngestOptions{.heartbeat_ms = 0}.Validate().code()), Code::kConfig);
}

}  // namespace
}  // namespace freshet
