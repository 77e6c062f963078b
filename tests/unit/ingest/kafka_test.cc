// Consumer, producer and admin against librdkafka's mock cluster: the real protocol on loopback.
#include "freshet/ingest/kafka.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>

#include "freshet/ingest/dead_letters.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;
using test::WaitFor;

constexpr milliseconds kTimeout{20'000};

StoredPositions NothingStored(const std::vector<TopicPartition>&) { return {}; }

struct Kept {
  RawCopy copy;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::int64_t timestamp_ms = 0;
};

StoredPositions StoredAt(const TopicPartition& partition, std::int64_t next_offset) {
  StoredPositions stored;
  stored[partition].partition = partition;
  stored[partition].next_offset = next_offset;
  return stored;
}

class KafkaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto broker = StartMockBroker();
    ASSERT_OK(broker);
    broker_ = std::move(*broker);
    ASSERT_OK(broker_->CreateTopic("items", 1));
  }

  // Closing a mock cluster may take a second of waiting; it happens beside the next test.
  void TearDown() override {
    closing_.push_back(std::async(std::launch::async, [broker = std::move(broker_)]() mutable { broker.reset(); }));
  }
  static void TearDownTestSuite() { closing_.clear(); }

  KafkaOptions Options() const {
    KafkaOptions options;
    options.bootstrap_servers = broker_->bootstrap_servers();
    return options;
  }
  ConsumerOptions Pinned(std::vector<std::string> topics) const {
    ConsumerOptions options;
    options.kafka = Options();
    options.topics = std::move(topics);
    options.assign_all = true;
    return options;
  }

  // Polls until `count` records came.
  static std::vector<Kept> Read(RecordSource* source, std::size_t count) {
    std::vector<Kept> kept;
    const bool all = WaitFor([&] {
      auto polled = source->Poll(milliseconds(100));
      EXPECT_OK(polled);
      if (!polled.ok()) return true;
      if (polled->kind == PollResult::Kind::kRecord) {
        const RawRecord& r = polled->record;
        kept.push_back({CopyOf(r), r.partition, r.offset, r.timestamp_ms});
      }
      return kept.size() >= count;
    });
    EXPECT_TRUE(all) << "got " << kept.size() << " of " << count;
    return kept;
  }
  // Polls until `condition` holds.
  static bool PollUntil(RecordSource* source, const std::function<bool(const Result<PollResult>&)>& condition) {
    return WaitFor([&] { return condition(source->Poll(milliseconds(50))); });
  }

  static OutRecord Record(const std::string& key, const std::string& value) {
    OutRecord record;
    record.topic = "items";
    record.key = key;
    record.value = value;
    return record;
  }

  SystemClock clock_;
  std::unique_ptr<MockBroker> broker_;
  static std::vector<std::future<void>> closing_;
};
std::vector<std::future<void>> KafkaTest::closing_;

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
  EXPECT_NE(failure.message().find("offset 77 of items[0]"), std::string::npos) << failure.ToString();
  EXPECT_FALSE((*consumer)->Poll(milliseconds(1)).ok()) << "it must stay failed";
}

TEST_F(KafkaTest, AsOfIsUnknownThenTheRecordsTimeThenNow) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  OutRecord old = Record("a", "1");
  old.timestamp_ms = 1'600'000'000'000;
  ASSERT_OK((*producer)->Send({old, old}, kTimeout));
  ManualClock clock(1'700'000'000'000);
  auto consumer = OpenKafkaConsumer(Pinned({"items"}), NothingStored, &clock, kTimeout);
  ASSERT_OK(consumer);
  EXPECT_EQ((*consumer)->AsOfMs(), 0);
  (void)Read(consumer->get(), 1);
  EXPECT_EQ((*consumer)->AsOfMs(), 1'600'000'000'000);
  EXPECT_EQ((*consumer)->LagRecords(), 1);
  (void)Read(consumer->get(), 1);
  ASSERT_TRUE(PollUntil(consumer->get(),
                        [&](const Result<PollResult>&) { return (*consumer)->AsOfMs() == 1'700'000'000'000; }));
  EXPECT_EQ((*consumer)->LagRecords(), 0);
  clock.AdvanceMs(500);
  EXPECT_EQ((*consumer)->AsOfMs(), 1'700'000'000'500);
}

TEST_F(KafkaTest, ABrokerThatGoesAwayAndComesBackLosesNothing) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  auto consumer = OpenKafkaConsumer(Pinned({"items"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  ASSERT_OK((*producer)->Send({Record("a", "1")}, kTimeout));
  EXPECT_EQ(Read(consumer->get(), 1).size(), 1u);

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

TEST_F(KafkaTest, ConcurrentSendsAreIndependent) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  constexpr int kThreads = 4;
  constexpr int kEach = 50;
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        std::vector<OutRecord> records = {Record(std::to_string(t), std::to_string(2 * i)),
                                          Record(std::to_string(t), std::to_string(2 * i + 1))};
        if (!(*producer)->Send(records, kTimeout).ok()) ++failed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed.load(), 0);
  auto consumer = OpenKafkaConsumer(Pinned({"items"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  std::map<std::string, int> next;
  for (const Kept& kept : Read(consumer->get(), kThreads * kEach * 2)) {
    EXPECT_EQ(kept.copy.value, std::to_string(next[kept.copy.key]++)) << "out of order within a sender";
  }
}

TEST_F(KafkaTest, ASendThatTimedOutLeavesTheProducerUsable) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ASSERT_OK(broker_->SetUp(false));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ((*producer)->Send({Record("k", "lost?")}, milliseconds(100)).code(), Code::kDeadlineExceeded);
  }
  ASSERT_OK(broker_->SetUp(true));
  ASSERT_OK((*producer)->Send({Record("k", "kept")}, kTimeout));
}

TEST_F(KafkaTest, ClosingAProducerWithRecordsInItsQueueIsBounded) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  ASSERT_OK(broker_->SetUp(false));
  for (int i = 0; i < 100; ++i) ASSERT_OK((*producer)->Produce(Record("k", "v")));
  EXPECT_EQ((*producer)->Send({Record("k", "v")}, milliseconds(100)).code(), Code::kDeadlineExceeded);
  producer->reset();  // must return, and free what waits: the leak checker looks
}

TEST_F(KafkaTest, FlushReportsWhatWasNotDelivered) {
  KafkaOptions options = Options();
  options.librdkafka_options["message.timeout.ms"] = "300";
  auto producer = OpenKafkaProducer(options);
  ASSERT_OK(producer);
  ASSERT_OK(broker_->SetUp(false));
  ASSERT_OK((*producer)->Produce(Record("k", "v")));
  EXPECT_EQ((*producer)->Flush(kTimeout).code(), Code::kUnavailable);
  EXPECT_OK((*producer)->Flush(kTimeout));  // a failure is reported once
}

TEST_F(KafkaTest, ARecordForAPartitionThatDoesNotExistIsAnInputError) {
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  OutRecord record = Record("k", "v");
  record.partition = 9;
  EXPECT_EQ((*producer)->Send({record}, kTimeout).code(), Code::kInvalidArgument);
  ASSERT_OK((*producer)->Send({Record("k", "v")}, kTimeout));
}

TEST_F(KafkaTest, KeysGoWhereJavaProducersPutThem) {
  ASSERT_OK(broker_->CreateTopic("wide", 3));
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  // Kafka's own UtilsTest: murmur2("foobar") = -790332482.
  const std::int32_t expected = static_cast<std::int32_t>((static_cast<std::uint32_t>(-790332482) & 0x7fffffffu) % 3u);
  OutRecord record = Record("foobar", "v");
  record.topic = "wide";
  ASSERT_OK((*producer)->Send({record}, kTimeout));
  auto consumer = OpenKafkaConsumer(Pinned({"wide"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  const std::vector<Kept> got = Read(consumer->get(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].partition, expected);
}

TEST_F(KafkaTest, ABrokerThatIsNotThereIsUnavailable) {
  ConsumerOptions options = Pinned({"items"});
  ASSERT_OK(broker_->SetUp(false));
  const auto consumer = OpenKafkaConsumer(options, NothingStored, &clock_, milliseconds(500));
  ASSERT_FALSE(consumer.ok());
  EXPECT_EQ(consumer.status().code(), Code::kUnavailable) << consumer.status().ToString();
  EXPECT_EQ(CreateTopics(options.kafka, {{"t", 1, false}}, milliseconds(500)).category(), Category::kTransient);
}

TEST_F(KafkaTest, CreateTopicsAcceptsWhatExistsAndWhatTheBrokerMakesByItself) {
  ASSERT_OK(CreateTopics(Options(), {{"items", 1, true}}, kTimeout));
  ASSERT_OK(CreateTopics(Options(), {{"fresh", 4, false}}, kTimeout));
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  const auto existing = (*producer)->PartitionCount("items");
  ASSERT_OK(existing);
  EXPECT_EQ(*existing, 1);
  EXPECT_OK((*producer)->PartitionCount("fresh"));
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

TEST_F(KafkaTest, DeadLettersKeepTheRecordAndSayWhy) {
  ASSERT_OK(broker_->CreateTopic("dead", 1));
  auto producer = OpenKafkaProducer(Options());
  ASSERT_OK(producer);
  Metrics metrics;
  DeadLetterOptions options;
  options.topic = "dead";
  auto queue = MakeDeadLetterQueue(options, producer->get(), &metrics, nullptr);
  DeadLetter letter;
  letter.record = {"items", "k", true, "{broken", true, {{"traceparent", "00-abc"}}};
  letter.position = {3, 41};
  letter.timestamp_ms = 1'600'000'000'000;
  letter.stage = "VALUE_CONVERTER";
  letter.reason = "JSON at byte 1";
  ASSERT_OK(queue->Send({letter}));

  auto consumer = OpenKafkaConsumer(Pinned({"dead"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  const std::vector<Kept> got = Read(consumer->get(), 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].copy.key, "k");
  EXPECT_EQ(got[0].copy.value, "{broken");
  EXPECT_EQ(got[0].timestamp_ms, 1'600'000'000'000);
  const std::map<std::string, std::string> headers(got[0].copy.headers.begin(), got[0].copy.headers.end());
  EXPECT_EQ(headers.at("traceparent"), "00-abc");
  EXPECT_EQ(headers.at("__connect.errors.topic"), "items");
  EXPECT_EQ(headers.at("__connect.errors.partition"), "3");
  EXPECT_EQ(headers.at("__connect.errors.offset"), "41");
  EXPECT_EQ(headers.at("__connect.errors.stage"), "VALUE_CONVERTER");
  EXPECT_EQ(headers.at("__connect.errors.exception.message"), "JSON at byte 1");
}

}  // namespace
}  // namespace freshet
