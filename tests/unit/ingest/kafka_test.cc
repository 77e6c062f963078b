// The consumer against librdkafka's mock cluster.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "kafka_fixture.h"

namespace freshet {
namespace {

TEST_F(KafkaTest, NullAndEmptyArriveAsTheyWereSent) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  std::vector<OutRecord> records(4);
  for (OutRecord& record : records) record.topic = "items";
  records[0].key = "k";
  records[0].value = "v";
  records[0].headers = {{"a", "1"}, {"b", ""}};
  records[0].timestamp_ms = 1'600'000'000'123;
  records[1].key = "deleted";
  records[2].key = "";
  records[2].value = "";
  // records[3]: neither key nor value
  ASSERT_OK((*producer)->Send(records, kTimeout));

  auto consumer = OpenKafkaConsumer(Pinned({"items"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  const std::vector<Kept> got = Read(consumer->get(), 4);
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(got[0].copy.key, "k");
  EXPECT_EQ(got[0].copy.value, "v");
  EXPECT_EQ(got[0].copy.headers, records[0].headers);
  EXPECT_EQ(got[0].timestamp_ms, 1'600'000'000'123);
  EXPECT_EQ(got[0].offset, 0);
  EXPECT_TRUE(got[1].copy.has_key);
  EXPECT_FALSE(got[1].copy.has_value);
  EXPECT_TRUE(got[2].copy.has_key);
  EXPECT_TRUE(got[2].copy.has_value);
  EXPECT_EQ(got[2].copy.value, "");
  EXPECT_FALSE(got[3].copy.has_key);
  EXPECT_FALSE(got[3].copy.has_value);
}

TEST_F(KafkaTest, StartsAtTheStoredOffsetElseAtTheBeginning) {
  ASSERT_OK(broker_->CreateTopic("wide", 2));
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  std::vector<OutRecord> records;
  for (int i = 0; i < 10; ++i) {
    OutRecord record = Record("k", std::to_string(i));
    record.topic = "wide";
    record.partition = i % 2;
    records.push_back(record);
  }
  ASSERT_OK((*producer)->Send(records, kTimeout));

  std::vector<TopicPartition> asked;
  const OffsetLookup lookup = [&](const std::vector<TopicPartition>& partitions) {
    asked = partitions;
    return StoredAt({"wide", 1}, 3);
  };
  auto consumer = OpenKafkaConsumer(Pinned({"wide"}), lookup, &clock_, kTimeout);
  ASSERT_OK(consumer);
  EXPECT_EQ(asked.size(), 2u);
  std::vector<std::int64_t> offsets[2];
  for (const Kept& kept : Read(consumer->get(), 7)) offsets[kept.partition].push_back(kept.offset);
  EXPECT_EQ(offsets[0], (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(offsets[1], (std::vector<std::int64_t>{3, 4}));
}

// What a poll returned, as a line: its kind, and of a record its offset.
std::string Line(const PollResult& polled) {
  switch (polled.kind) {
    case PollResult::Kind::kRecord:
      return std::to_string(polled.record.offset);
    case PollResult::Kind::kReread:
      return "reread " + polled.reason;
    case PollResult::Kind::kCaughtUp:
      return "caught up";
    default:
      return "";
  }
}

// A log that ends before the stored offset: truncated, or made anew.
TEST_F(KafkaTest, AnOffsetBeyondTheEndIsReadAgainFromTheBeginning) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ASSERT_OK((*producer)->Send({Record("a", "1"), Record("b", "2")}, kTimeout));
  ConsumerOptions options = Pinned({"items"});
  options.reread_lost = true;
  StoredPositions stored = StoredAt({"items", 0}, 77);
  stored.begin()->second.fingerprint = 1;
  auto consumer = OpenKafkaConsumer(
      options, [&](const auto&) { return stored; }, &clock_, kTimeout);
  ASSERT_OK(consumer);
  std::vector<std::string> lines;
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    if (polled.ok() && !Line(*polled).empty()) lines.push_back(Line(*polled));
    return !lines.empty() && lines.back() == "caught up";
  }));
  EXPECT_EQ(lines, (std::vector<std::string>{"reread beyond_end", "0", "1", "caught up"}));
}

// As many records as before, and others: only the record before the stored offset gives it away.
TEST_F(KafkaTest, ATopicMadeAnewIsNoticedByTheRecordBeforeTheOffset) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  OutRecord first = Record("a", "1");
  first.timestamp_ms = 1000;
  OutRecord second = Record("b", "2");
  second.timestamp_ms = 2000;
  ASSERT_OK((*producer)->Send({first, second, Record("c", "3")}, kTimeout));
  RawRecord known;
  known.key = "b";
  known.timestamp_ms = 2000;
  for (const bool same : {true, false}) {
    StoredPositions stored = StoredAt({"items", 0}, 2);
    stored.begin()->second.fingerprint = Fingerprint(known) + (same ? 0 : 1);
    ConsumerOptions options = Pinned({"items"});
    options.reread_lost = true;
    auto consumer = OpenKafkaConsumer(
        options, [&](const auto&) { return stored; }, &clock_, kTimeout);
    ASSERT_OK(consumer);
    std::vector<std::string> lines;
    ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
      if (polled.ok() && !Line(*polled).empty()) lines.push_back(Line(*polled));
      return !lines.empty() && lines.back() == (same ? "2" : "caught up");
    }));
    const std::vector<std::string> expected =
        same ? std::vector<std::string>{"2"} : std::vector<std::string>{"reread recreated", "0", "1", "2", "caught up"};
    EXPECT_EQ(lines, expected);
  }
}

// Nothing is lost or comes twice however often reading is held up, and the last record stays readable meanwhile.
TEST_F(KafkaTest, KeepingAliveReturnsNothingAndLosesNothing) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  constexpr std::int64_t kRecords = 500;
  std::vector<OutRecord> records;
  for (std::int64_t i = 0; i < kRecords; ++i) records.push_back(Record("k", std::to_string(i)));
  ASSERT_OK((*producer)->Send(records, kTimeout));
  auto consumer = OpenKafkaConsumer(Pinned({"items"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  std::int64_t next = 0;
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    if (!polled.ok() || polled->kind != PollResult::Kind::kRecord) return false;
    EXPECT_EQ(polled->record.offset, next);
    for (int i = 0; i < (next % 50 == 0 ? 5 : 0); ++i) EXPECT_OK((*consumer)->KeepAlive());
    EXPECT_EQ(*polled->record.value, std::to_string(next));
    return ++next == kRecords;
  }));
}

TEST_F(KafkaTest, AnOffsetThatTheLogDoesNotHoldEndsTheStream) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ASSERT_OK((*producer)->Send({Record("a", "1")}, kTimeout));
  const OffsetLookup lookup = [](const std::vector<TopicPartition>&) { return StoredAt({"items", 0}, 77); };
  auto consumer = OpenKafkaConsumer(Pinned({"items"}), lookup, &clock_, kTimeout);
  ASSERT_OK(consumer);
  Status failure;
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    failure = polled.ok() ? Status::Ok() : polled.status();
    return !polled.ok();
  }));
  EXPECT_EQ(failure.code(), Code::kFailedPrecondition) << failure.ToString();
  EXPECT_NE(failure.message().find("items[0] cannot be read on from offset 77 (beyond_end)"), std::string::npos)
      << failure.ToString();
  EXPECT_FALSE((*consumer)->Poll(milliseconds(1)).ok()) << "it must stay failed";
}

TEST_F(KafkaTest, AsOfIsUnknownThenTheRecordsTimeThenNow) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  OutRecord old = Record("a", "1");
  old.timestamp_ms = 1'600'000'000'000;
  ASSERT_OK((*producer)->Send({old, old}, kTimeout));
  constexpr std::int64_t kNow = 1'700'000'000'000;
  ManualClock clock(kNow);
  ConsumerOptions options = Pinned({"items"});
  options.ask_ends = true;
  auto consumer = OpenKafkaConsumer(options, NothingStored, &clock, kTimeout);
  ASSERT_OK(consumer);
  EXPECT_EQ((*consumer)->AsOfMs(), 0);
  (void)Read(consumer->get(), 2);
  // Up to the millisecond before the broker was asked where the log ends.
  EXPECT_TRUE(WaitFor([&] {
    clock.AdvanceMs(10);
    return (*consumer)->Poll(milliseconds(10)).ok() && (*consumer)->AsOfMs() >= kNow - 1;
  }));
  EXPECT_LT((*consumer)->AsOfMs(), clock.WallMs());
  EXPECT_EQ((*consumer)->LagRecords(), 0);
  const std::int64_t later = clock.WallMs() + 500;
  EXPECT_TRUE(WaitFor([&] {
    clock.AdvanceMs(10);
    return (*consumer)->Poll(milliseconds(10)).ok() && (*consumer)->AsOfMs() >= later;
  }));
}

TEST_F(KafkaTest, AsOfIsUnknownToWhomNobodyTellsTheEnds) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ASSERT_OK((*producer)->Send({Record("a", "1")}, kTimeout));
  auto consumer = OpenKafkaConsumer(Pinned({"items"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  (void)Read(consumer->get(), 1);
  (void)(*consumer)->Poll(milliseconds(100));
  EXPECT_EQ((*consumer)->AsOfMs(), 0);
}

// A later stage takes its time, and records come meanwhile: at the end of the log a moment ago says nothing of them.
TEST_F(KafkaTest, AsOfStandsStillWhileWhatIsFetchedIsNotPolled) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  OutRecord old = Record("a", "1");
  old.timestamp_ms = 1'600'000'000'000;
  ASSERT_OK((*producer)->Send({old}, kTimeout));
  ManualClock clock(1'700'000'000'000);
  ConsumerOptions options = Pinned({"items"});
  options.ask_ends = true;
  auto consumer = OpenKafkaConsumer(options, NothingStored, &clock, kTimeout);
  ASSERT_OK(consumer);
  const auto fresh = [&](std::int64_t as_of_ms) {
    return WaitFor([&] {
      clock.AdvanceMs(10);
      return (*consumer)->Poll(milliseconds(10)).ok() && (*consumer)->AsOfMs() >= as_of_ms;
    });
  };
  ASSERT_TRUE(fresh(1'700'000'000'000));

  const std::int64_t sent = clock.WallMs();
  ASSERT_OK((*producer)->Send({old}, kTimeout));
  ASSERT_TRUE(WaitFor([&] { return (*consumer)->LagRecords() == 1; })) << "it is fetched, and waits";
  clock.AdvanceMs(10'000);
  EXPECT_LT((*consumer)->AsOfMs(), sent);
  (void)Read(consumer->get(), 1);
  ASSERT_TRUE(fresh(sent + 10'000));
}

TEST_F(KafkaTest, ABrokerThatGoesAwayAndComesBackLosesNothing) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ConsumerOptions options = Pinned({"items"});
  options.ask_ends = true;
  auto consumer = OpenKafkaConsumer(options, NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  ASSERT_OK((*producer)->Send({Record("a", "1")}, kTimeout));
  EXPECT_EQ(Read(consumer->get(), 1).size(), 1u);
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>&) { return (*consumer)->AsOfMs() > 0; }));

  ASSERT_OK(broker_->SetUp(false));
  const Status refused = (*producer)->Send({Record("b", "2")}, milliseconds(300));
  EXPECT_EQ(refused.category(), Category::kTransient) << refused.ToString();
  // A consumer at its end must not claim to be fresh while it can hear nothing: as_of stops.
  std::int64_t frozen = -1;
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    EXPECT_OK(polled);
    const std::int64_t now = (*consumer)->AsOfMs();
    const bool still = now == frozen;
    frozen = now;
    return still;
  }));

  ASSERT_OK(broker_->SetUp(true));
  // The first may still be delivered by librdkafka's own retry: at least once, in order.
  ASSERT_OK((*producer)->Send({Record("c", "3")}, kTimeout));
  std::vector<std::string> values;
  ASSERT_TRUE(WaitFor([&] {
    auto polled = (*consumer)->Poll(milliseconds(50));
    EXPECT_OK(polled);
    if (polled.ok() && polled->kind == PollResult::Kind::kRecord) values.emplace_back(*polled->record.value);
    return !values.empty() && values.back() == "3";
  }));
  EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>&) { return (*consumer)->AsOfMs() > frozen; }));
}

TEST_F(KafkaTest, AGroupSharesPartitionsAndTellsOfAssignmentInBand) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ASSERT_OK((*producer)->Send({Record("a", "1"), Record("b", "2"), Record("c", "3")}, kTimeout));
  ConsumerOptions options;
  options.kafka = Options();
  options.topics = {"items"};
  options.group_id = "engines";
  options.group_instance_id = "engine-1";
  const OffsetLookup lookup = [](const std::vector<TopicPartition>&) { return StoredAt({"items", 0}, 1); };
  auto consumer = OpenKafkaConsumer(options, lookup, &clock_, kTimeout);
  ASSERT_OK(consumer);
  std::vector<std::string> seen;
  ASSERT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    EXPECT_OK(polled);
    if (!polled.ok()) return true;
    if (polled->kind == PollResult::Kind::kAssigned) seen.push_back("assigned " + polled->partitions.at(0).topic);
    if (polled->kind == PollResult::Kind::kRecord) seen.emplace_back(*polled->record.value);
    return seen.size() == 3;
  }));
  EXPECT_EQ(seen, (std::vector<std::string>{"assigned items", "2", "3"}));
  PartitionProgress progress;
  progress.partition = {"items", 0};
  progress.next_offset = 3;
  (*consumer)->ReportStored({progress});
  EXPECT_OK((*consumer)->Poll(milliseconds(50)));
}

// A broker that is back still ends the sessions that ran out meanwhile, of members that have joined again too. Nobody
// else can own anything by then: what was owned has a session's time to come back.
TEST_F(KafkaTest, WhoIsPutOutAfterAnOutageHasLostNothingYet) {
  ManualClock clock;
  clock.AdvanceMs(60'000);
  ConsumerOptions options;
  options.kafka = Options();
  options.topics = {"items"};
  options.group_id = "engines";
  options.session_timeout_ms = 4'000;
  auto consumer = OpenKafkaConsumer(options, NothingStored, &clock, kTimeout);
  ASSERT_OK(consumer);
  int lost = 0;
  const auto poll_until = [&](const std::function<bool()>& condition) {
    return PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
      EXPECT_OK(polled);
      lost += polled.ok() && polled->kind == PollResult::Kind::kRevoked && polled->lost ? 1 : 0;
      return condition();
    });
  };
  const auto owns_some = [&] { return !(*consumer)->Positions().empty(); };
  const auto owns_none = [&] { return (*consumer)->Positions().empty(); };
  ASSERT_TRUE(poll_until(owns_some));
  ASSERT_OK(broker_->SetUp(false));
  ASSERT_TRUE(poll_until(owns_none)) << "its session ended";
  ASSERT_OK(broker_->SetUp(true));
  ASSERT_TRUE(poll_until(owns_some));
  for (int probe = 0; probe < 3; ++probe) {
    clock.AdvanceMs(1'000);
    ASSERT_TRUE(poll_until([] { return true; }));
  }
  broker_->Expel();
  ASSERT_TRUE(poll_until(owns_none));
  for (int poll = 0; poll < 5; ++poll) ASSERT_TRUE(poll_until([] { return true; }));
  EXPECT_EQ(lost, 0);
  // More than once: a probe that a busy machine answers late counts as an outage of its own.
  ASSERT_TRUE(poll_until([&] {
    clock.AdvanceMs(options.session_timeout_ms);
    return lost > 0 || owns_some();
  }));
  EXPECT_EQ(lost, 1) << "it did not come back";
}

// Leaders move, and are missing for a while, under a producer and a consumer that know nothing of it: every record
// once, in order.
TEST_F(KafkaTest, LeadersThatMoveLoseAndDoubleNothing) {
  auto cluster = StartMockBroker(3);
  ASSERT_OK(cluster);
  constexpr std::int32_t kPartitions = 3;
  ASSERT_OK((*cluster)->CreateTopic("moving", kPartitions));
  KafkaOptions options;
  options.bootstrap_servers = (*cluster)->bootstrap_servers();
  auto producer = OpenKafkaProducer(options);
  ASSERT_OK(producer);
  std::atomic<bool> moved{false};
  std::atomic<int> sent{0};  // to each partition
  std::thread producing([&] {
    while (!moved) {
      std::vector<OutRecord> records(kPartitions);
      for (std::int32_t p = 0; p < kPartitions; ++p) {
        OutRecord& record = records[static_cast<std::size_t>(p)];
        record.topic = "moving";
        record.partition = p;
        record.key = "k";
        record.value = std::to_string(sent);
      }
      EXPECT_OK((*producer)->Send(records, kTimeout));
      ++sent;
    }
  });
  ConsumerOptions pinned = Pinned({"moving"});
  pinned.kafka = options;
  auto consumer = OpenKafkaConsumer(pinned, NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  std::vector<int> next(kPartitions, 0);
  const auto take = [&](const Result<PollResult>& polled) {
    ASSERT_OK(polled);
    ASSERT_NE(polled->kind, PollResult::Kind::kReread);
    if (polled->kind != PollResult::Kind::kRecord) return;
    ASSERT_EQ(polled->record.value, std::to_string(next[static_cast<std::size_t>(polled->record.partition)]++));
  };
  std::mt19937_64 random(test::TestSeed());
  for (int move = 0; move < 12; ++move) {
    const TopicPartition partition{"moving", static_cast<std::int32_t>(random() % kPartitions)};
    if (move % 3 == 0) ASSERT_OK((*cluster)->MoveLeader(partition, -1));
    const int until = sent + 1;  // goes on: with the other partitions at least, where this one has no leader
    EXPECT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
      take(polled);
      return move % 3 == 0 || sent > until;
    }));
    ASSERT_OK((*cluster)->MoveLeader(partition, 1 + static_cast<std::int32_t>(random() % 3)));
  }
  moved = true;
  EXPECT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    take(polled);
    return std::all_of(next.begin(), next.end(), [&](int n) { return n >= sent; });
  }));
  producing.join();
  EXPECT_TRUE(PollUntil(consumer->get(), [&](const Result<PollResult>& polled) {
    take(polled);
    return std::all_of(next.begin(), next.end(), [&](int n) { return n == sent; });
  }));
}

}  // namespace
}  // namespace freshet
