// What is known of how far partitions were read, without a broker.
#include "kafka_readings.h"

#include <gtest/gtest.h>

#include <memory>

#include "freshet_test/test_support.h"

namespace freshet::kafka {
namespace {

class ReadingsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    readings_.Assign({kFirst, kSecond}, &changes_);
    End(kFirst, 0);
    End(kSecond, 0);
  }

  void Record(const TopicPartition& partition, std::int64_t offset, std::int64_t timestamp_ms) {
    RawRecord record;
    record.topic = partition.topic;
    record.partition = partition.partition;
    record.offset = offset;
    record.timestamp_ms = timestamp_ms;
    record.key = "k";
    EXPECT_EQ(readings_.OnRecord(record, &changes_), Readings::Verdict::kReturn);
  }
  void End(const TopicPartition& partition, std::int64_t offset) {
    EXPECT_EQ(readings_.OnEnd(partition, offset, &changes_), Readings::Verdict::kDrop);
  }
  void Asked(std::int64_t at_ms, std::int64_t first, std::int64_t second) {
    readings_.OnEnds({at_ms, {{kFirst, first}, {kSecond, second}}});
  }

  const TopicPartition kFirst{"items", 0};
  const TopicPartition kSecond{"items", 1};
  ManualClock clock_{1'700'000'000'000};
  Readings readings_{[](const std::vector<TopicPartition>&) { return StoredPositions(); }, true, &clock_};
  std::deque<PollResult> changes_;
};

TEST_F(ReadingsTest, NothingIsKnownUntilTheBrokerSaysWhereTheLogEnds) {
  Record(kFirst, 0, 10);
  EXPECT_EQ(readings_.AsOfMs(), 0);
  Asked(1000, 1, 0);
  EXPECT_EQ(readings_.AsOfMs(), 999) << "what was acknowledged in the very millisecond may have come later";
}

TEST_F(ReadingsTest, TheEndOfALateDeliveryIsNotTheEndThatWasAskedFor) {
  Asked(1000, 0, 0);
  EXPECT_EQ(readings_.AsOfMs(), 999);
  // Three were acknowledged, none was delivered yet: the partition was at its end, and is not.
  Asked(2000, 0, 3);
  EXPECT_EQ(readings_.AsOfMs(), 999);
  Record(kSecond, 0, 1500);
  EXPECT_EQ(readings_.AsOfMs(), 1499) << "the records before it are of its time or earlier";
  Record(kSecond, 1, 1400);
  Record(kSecond, 2, 2500);
  EXPECT_EQ(readings_.AsOfMs(), 1999);
}

TEST_F(ReadingsTest, AnEndThatWasNotReachedYetStaysTheOneToReach) {
  Asked(1000, 2, 0);
  Asked(2000, 9, 0);  // nothing of the first was known: that is 2
  Record(kFirst, 0, 50);
  EXPECT_EQ(readings_.AsOfMs(), 49);
  Record(kFirst, 1, 60);
  EXPECT_EQ(readings_.AsOfMs(), 999);
  Asked(3000, 9, 0);
  EXPECT_EQ(readings_.AsOfMs(), 999);
  for (std::int64_t offset = 2; offset < 9; ++offset) Record(kFirst, offset, 70);
  EXPECT_EQ(readings_.AsOfMs(), 2999);
}

TEST_F(ReadingsTest, ARecordFromTheFutureClaimsNothing) {
  Asked(1000, 3, 0);
  Record(kFirst, 0, 1'000'000);
  EXPECT_EQ(readings_.AsOfMs(), 0);
  Record(kFirst, 1, 500);
  EXPECT_EQ(readings_.AsOfMs(), 499);
}

TEST_F(ReadingsTest, GapsAtTheEndAreReadByItsOffset) {
  Asked(1000, 5, 0);
  Record(kFirst, 0, 10);
  EXPECT_EQ(readings_.AsOfMs(), 9);
  End(kFirst, 5);  // markers of transactions
  EXPECT_EQ(readings_.AsOfMs(), 999);
}

TEST_F(ReadingsTest, AnEndThatWillNotBeReachedIsAskedForAgain) {
  Asked(1000, 0, 0);
  Asked(2000, 7, 0);
  End(kFirst, 0);  // cut since, by a leader that did not have them
  EXPECT_EQ(readings_.AsOfMs(), 999);
  Asked(3000, 0, 0);
  EXPECT_EQ(readings_.AsOfMs(), 2999);
}

TEST_F(ReadingsTest, ADoubtedLogClaimsNothingNew) {
  Record(kFirst, 0, 10);
  Asked(1000, 1, 0);
  readings_.Doubt("items");
  Asked(2000, 1, 0);
  EXPECT_EQ(readings_.AsOfMs(), 999);
}

// Who cannot read again is told why, and no change is made of it.
TEST_F(ReadingsTest, WithoutReadingAgainALostPositionIsTold) {
  StoredPositions stored;
  PartitionProgress& position = stored[kFirst];
  position.partition = kFirst;
  position.next_offset = 5;
  position.complete_ms = clock_.WallMs();
  const auto follower = [&] {
    auto readings = std::make_unique<Readings>([&](const auto&) { return stored; }, /*reread=*/false, &clock_);
    readings->SetTombstoneRetention({{"items", 1'000}});
    changes_.clear();
    readings->Assign({kFirst}, &changes_);
    return readings;
  };
  const auto first = follower();
  EXPECT_EQ(first->lost(), "");
  EXPECT_EQ(changes_.size(), 1u) << "the assignment";
  first->OnLost(kFirst, 7, 9, &changes_);
  EXPECT_NE(first->lost().find("evicted"), std::string::npos) << first->lost();
  EXPECT_EQ(changes_.size(), 1u);

  position.fingerprint = 3;
  RawRecord record;
  record.topic = kFirst.topic;
  record.offset = 4;
  record.key = "k";
  const auto second = follower();
  EXPECT_EQ(second->OnRecord(record, &changes_), Readings::Verdict::kRestart);
  EXPECT_NE(second->lost().find("recreated"), std::string::npos) << second->lost();

  clock_.AdvanceMs(1'001);
  const auto third = follower();
  EXPECT_NE(third->lost().find("tombstones"), std::string::npos) << third->lost();
}

// The store did not hear of it in time: why it is read again decides what the old offsets still mean.
TEST_F(ReadingsTest, AnInterruptedRereadBeginsOnceMoreForTheSameCause) {
  StoredPositions stored;
  stored[kFirst].partition = kFirst;
  stored[kFirst].next_offset = 5;
  Readings readings([&](const auto&) { return stored; }, /*reread=*/true, &clock_);
  readings.Assign({kFirst}, &changes_);
  readings.OnLost(kFirst, 7, 9, &changes_);
  ASSERT_EQ(changes_.back().kind, PollResult::Kind::kReread);
  EXPECT_EQ(changes_.back().reason, "evicted");
  changes_.clear();
  readings.Assign({kFirst}, &changes_);
  ASSERT_EQ(changes_.back().kind, PollResult::Kind::kReread);
  EXPECT_EQ(changes_.back().reason, "evicted");
  // Now it knows.
  stored[kFirst].rereading = true;
  changes_.clear();
  readings.Assign({kFirst}, &changes_);
  EXPECT_EQ(changes_.back().kind, PollResult::Kind::kAssigned);
}

// What it had seen may have been deleted since, and the tombstone be gone: going on would keep it for ever.
TEST_F(ReadingsTest, ARereadThatWasInterruptedForTooLongBeginsOnceMore) {
  StoredPositions stored;
  stored[kFirst].partition = kFirst;
  stored[kFirst].next_offset = 5;
  stored[kFirst].rereading = true;
  stored[kFirst].complete_ms = clock_.WallMs();  // when it began
  Readings readings([&](const auto&) { return stored; }, /*reread=*/true, &clock_);
  readings.SetTombstoneRetention({{kFirst.topic, 1'000}});
  readings.Assign({kFirst}, &changes_);
  EXPECT_EQ(changes_.back().kind, PollResult::Kind::kAssigned);
  changes_.clear();
  clock_.AdvanceMs(1'001);
  readings.Assign({kFirst}, &changes_);
  ASSERT_EQ(changes_.back().kind, PollResult::Kind::kReread);
  EXPECT_EQ(changes_.back().reason, "tombstones");
}

// A tombstone that is written behind what is being read may be gone before it is come to, also in a log that is read
// again: then once more.
TEST_F(ReadingsTest, ReadingThatIsBehindForLongerThanTombstonesAreKeptBeginsOnceMore) {
  constexpr std::int64_t kKeptMs = 100'000;
  readings_.SetTombstoneRetention({{kFirst.topic, kKeptMs}});
  const auto end_of = [&](std::int64_t offset) {
    changes_.clear();
    return readings_.OnEnd(kFirst, offset, &changes_);
  };
  Record(kFirst, 0, clock_.WallMs());
  Asked(clock_.WallMs(), 9, 0);
  clock_.AdvanceMs(kKeptMs);  // behind, but by no more than that
  Asked(clock_.WallMs(), 9, 0);
  Record(kFirst, 1, clock_.WallMs() - 1);
  EXPECT_EQ(end_of(2), Readings::Verdict::kDrop);
  for (int again = 0; again < 2; ++again) {
    Record(kFirst, 2, clock_.WallMs());
    clock_.AdvanceMs(kKeptMs + 2);
    Asked(clock_.WallMs(), 9, 0);
    // It has caught up since: that says nothing of what went meanwhile.
    Record(kFirst, 3, clock_.WallMs());
    ASSERT_EQ(end_of(9), Readings::Verdict::kRestart);
    ASSERT_EQ(changes_.back().kind, PollResult::Kind::kReread);
    EXPECT_EQ(changes_.back().reason, "tombstones");
  }
  Record(kFirst, 2, clock_.WallMs());
  EXPECT_EQ(end_of(9), Readings::Verdict::kDrop);
  EXPECT_EQ(changes_.back().kind, PollResult::Kind::kCaughtUp);
}

TEST_F(ReadingsTest, TimeOnlyGoesOn) {
  Record(kFirst, 0, 900);
  Asked(1000, 2, 0);
  EXPECT_EQ(readings_.AsOfMs(), 899);
  Asked(1100, 5, 0);
  Record(kFirst, 1, 5);
  Asked(1200, 5, 0);
  Record(kFirst, 2, 5);
  EXPECT_EQ(readings_.AsOfMs(), 999);
}

}  // namespace
}  // namespace freshet::kafka
