#include "freshet/ingest/dead_letters.h"

#include <gtest/gtest.h>

#include <deque>
#include <thread>

#include "freshet_test/test_support.h"
#include "kafka_fixture.h"

namespace freshet {
namespace {

// Answers with what was put in, then with ok; keeps what it took.
class FakeSink final : public RecordSink {
 public:
  Status Send(const std::vector<OutRecord>& records, std::chrono::milliseconds) override {
    const std::lock_guard lock(mu_);
    ++calls_;
    if (always_ != Code::kOk) return {always_, "always"};
    if (!answers_.empty()) {
      Status status = answers_.front();
      answers_.pop_front();
      if (!status.ok()) return status;
    }
    taken_.insert(taken_.end(), records.begin(), records.end());
    return Status::Ok();
  }
  Result<std::int32_t> PartitionCount(const std::string&) override { return 1; }

  int calls() {
    const std::lock_guard lock(mu_);
    return calls_;
  }

  Code always_ = Code::kOk;
  std::deque<Status> answers_;
  std::vector<OutRecord> taken_;

 private:
  std::mutex mu_;
  int calls_ = 0;
};

class DeadLettersTest : public ::testing::Test {
 protected:
  std::unique_ptr<DeadLetterQueue> Make() { return MakeDeadLetterQueue(options_, &sink_, &metrics_, &stopping_); }
  static DeadLetter Letter() {
    DeadLetter letter;
    letter.record = {"items", "", false, "", true, {{"h", "1"}}};
    letter.position = {2, 7};
    letter.timestamp_ms = 55;
    letter.stage = "KEY_CONVERTER";
    letter.reason = "the key is null";
    return letter;
  }
  double Letters() {
    return metrics_
        .GetCounter("freshet_dead_letters_total", "Records that left the stream as poison",
                    {{"stage", "KEY_CONVERTER"}})
        .Value();
  }

  DeadLetterOptions options_{.topic = "dead", .connector_name = "shop", .context_headers = true, .tolerate = true};
  FakeSink sink_;
  Metrics metrics_;
  std::atomic<bool> stopping_{false};
};

TEST_F(DeadLettersTest, CarriesTheRecordAndConnectsHeaders) {
  ASSERT_OK(Make()->Send({Letter()}));
  ASSERT_EQ(sink_.taken_.size(), 1u);
  const OutRecord& out = sink_.taken_[0];
  EXPECT_EQ(out.topic, "dead");
  EXPECT_FALSE(out.key.has_value());
  EXPECT_EQ(out.value, "");
  EXPECT_EQ(out.timestamp_ms, 55);
  const std::vector<std::pair<std::string, std::string>> headers = {
      {"h", "1"},
      {"__connect.errors.topic", "items"},
      {"__connect.errors.partition", "2"},
      {"__connect.errors.offset", "7"},
      {"__connect.errors.connector.name", "shop"},
      {"__connect.errors.task.id", "0"},
      {"__connect.errors.stage", "KEY_CONVERTER"},
      {"__connect.errors.class.name", "freshet.EventDecoder"},
      {"__connect.errors.exception.class.name", "freshet.InvalidArgument"},
      {"__connect.errors.exception.message", "the key is null"},
      {"__connect.errors.exception.stacktrace", "freshet.InvalidArgument: the key is null"}};
  EXPECT_EQ(out.headers, headers);
  EXPECT_EQ(Letters(), 1);
}

TEST_F(DeadLettersTest, ContextHeadersCanBeLeftOut) {
  options_.context_headers = false;
  ASSERT_OK(Make()->Send({Letter()}));
  ASSERT_EQ(sink_.taken_.size(), 1u);
  EXPECT_EQ(sink_.taken_[0].headers.size(), 1u);
}

TEST_F(DeadLettersTest, RetriesTransientFaultsUntilTheyPass) {
  sink_.answers_ = {Unavailable("1"), DeadlineExceeded("2")};
  ASSERT_OK(Make()->Send({Letter()}));
  EXPECT_EQ(sink_.taken_.size(), 1u);
  EXPECT_EQ(
      metrics_.GetCounter("freshet_dead_letter_retries_total", "Attempts to write dead letters that failed").Value(),
      2);
}

TEST_F(DeadLettersTest, StoppingEndsEndlessRetries) {
  sink_.always_ = Code::kUnavailable;
  auto queue = Make();
  Status status;
  std::thread sender([&] { status = queue->Send({Letter()}); });
  EXPECT_TRUE(test::WaitFor([&] { return sink_.calls() >= 2; }));
  stopping_ = true;
  sender.join();
  EXPECT_EQ(status.code(), Code::kCancelled);
  EXPECT_EQ(Letters(), 0);
}

TEST_F(DeadLettersTest, ALetterThatCanNeverBeWrittenStopsTheStream) {
  sink_.always_ = Code::kInvalidArgument;
  const Status status = Make()->Send({Letter()});
  EXPECT_EQ(status.category(), Category::kPermanent) << status.ToString();
  EXPECT_EQ(sink_.calls(), 1);
}

TEST_F(DeadLettersTest, WithoutATopicLettersAreOnlyCounted) {
  options_.topic.clear();
  ASSERT_OK(Make()->Send({Letter(), Letter()}));
  EXPECT_EQ(sink_.calls(), 0);
  EXPECT_EQ(Letters(), 2);
}

TEST_F(DeadLettersTest, WithoutToleranceTheFirstLetterStopsTheStream) {
  options_.tolerate = false;
  EXPECT_EQ(Make()->Send({Letter()}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(sink_.calls(), 0);
}

// However often it was tried while the broker was away, one copy is in the topic when it is back: what an attempt did
// not get through has expired before the next one, whatever the operator's own time-out is.
TEST_F(KafkaTest, CopiesOfADeadLetterDoNotGrowWithTheOutage) {
  ASSERT_OK(broker_->CreateTopic("dead", 1));
  KafkaOptions options = Options();
  options.librdkafka_options = {{"delivery.timeout.ms", "0"}, {"message.timeout.ms", "0"}};
  auto producer = OpenDeadLetterProducer(options);
  ASSERT_OK(producer);
  Metrics metrics;
  auto queue = MakeDeadLetterQueue({.topic = "dead"}, producer->get(), &metrics, nullptr);
  const auto letters = [](const std::string& value) {
    std::vector<DeadLetter> all(3);
    for (DeadLetter& letter : all) letter.record = {"items", "k", true, value, true, {}};
    return all;
  };
  ASSERT_OK(queue->Send(letters("before")));
  Counter& retries =
      metrics.GetCounter("freshet_dead_letter_retries_total", "Attempts to write dead letters that failed");
  ASSERT_OK(broker_->SetUp(false));
  auto sent = std::async(std::launch::async, [&] { return queue->Send(letters("during")); });
  EXPECT_TRUE(WaitFor([&] { return retries.Value() >= 2; }, 60'000));
  EXPECT_EQ(sent.wait_for(milliseconds(0)), std::future_status::timeout);
  ASSERT_OK(broker_->SetUp(true));
  ASSERT_OK(sent.get());
  // What was still waiting in the producer would come before this.
  ASSERT_OK(queue->Send(letters("after")));
  auto consumer = OpenKafkaConsumer(Pinned({"dead"}), NothingStored, &clock_, kTimeout);
  ASSERT_OK(consumer);
  std::map<std::string, int> copies;
  for (int read = 0; copies["after"] < 3 && read < 100; ++read) {
    for (const Kept& kept : Read(consumer->get(), 1)) ++copies[kept.copy.value];
  }
  EXPECT_EQ(copies, (std::map<std::string, int>{{"before", 3}, {"during", 3}, {"after", 3}}));
}

}  // namespace
}  // namespace freshet
