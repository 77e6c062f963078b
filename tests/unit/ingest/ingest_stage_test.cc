#include "freshet/ingest/ingest_stage.h"

#include "stage_fixture.h"

namespace freshet {
namespace {

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

// They are kept with the record, so they count as its key and value do.
TEST_F(IngestStageTest, HeadersCountInTheBytesOfABatch) {
  options_.max_batch_bytes = 500;
  options_.linger_ms = 60'000;
  Start();
  FakeSource::Fed fed;
  fed.key = "i0";
  fed.value = "{}";
  fed.headers = {{"trace", std::string(300, 'x')}, {"", ""}, {"shop", std::string(200, 'y')}};
  source_.Feed(fed);
  const auto batch = NextBatch();
  ASSERT_TRUE(batch.has_value());
  ASSERT_EQ(batch->events.size(), 1U) << "closed by its bytes, long before its linger";
  EXPECT_EQ(batch->bytes, 2 + 2 + 5 + 300 + 4 + 200U);
  EXPECT_EQ(CopyOf(batch->events[0].raw).headers, fed.headers);
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
