// The producer, the admin calls and the dead letters against librdkafka's mock cluster.
#include <algorithm>
#include <atomic>
#include <thread>

#include "kafka_fixture.h"

namespace freshet {
namespace {

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

// A broker that has just started knows no topics for a moment: that is no reason to give up.
TEST_F(KafkaTest, ATopicIsMissingWhenThatWasSaidForLong) {
  KafkaOptions options = Options();
  options.librdkafka_options["topic.metadata.propagation.max.ms"] = "400";
  options.librdkafka_options["topic.metadata.refresh.interval.ms"] = "100";
  auto producer = OpenKafkaProducer(options);
  ASSERT_OK(producer);
  ASSERT_OK((*producer)->Send({Record("k", "v")}, kTimeout));
  const auto unknown = [&] {  // the first answers: what has been said for less than the patience
    broker_->Forget("items", true);
    Status sent;
    EXPECT_TRUE(test::WaitFor([&] { return !(sent = (*producer)->Send({Record("k", "v")}, kTimeout)).ok(); }));
    return sent;
  };
  EXPECT_EQ(unknown().code(), Code::kUnavailable);
  EXPECT_EQ((*producer)->PartitionCount("items").status().code(), Code::kUnavailable);
  broker_->Forget("items", false);
  EXPECT_TRUE(test::WaitFor([&] { return (*producer)->Send({Record("k", "v")}, kTimeout).ok(); }));
  EXPECT_OK((*producer)->PartitionCount("items"));
  EXPECT_EQ(unknown().code(), Code::kUnavailable) << "what was said before it was known again counts no more";
  EXPECT_TRUE(
      test::WaitFor([&] { return (*producer)->Send({Record("k", "v")}, kTimeout).code() == Code::kInvalidArgument; }));
  EXPECT_EQ((*producer)->PartitionCount("items").status().code(), Code::kNotFound);
}

TEST_F(KafkaTest, ARecordForAPartitionThatDoesNotExistIsAnInputError) {
  KafkaOptions options = Options();
  options.librdkafka_options["topic.metadata.propagation.max.ms"] = "0";
  auto producer = OpenKafkaProducer(options);
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
