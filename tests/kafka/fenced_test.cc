// A consumer whose place in its group somebody with the same name takes.
#include <chrono>

#include "freshet/core/clock.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/checks.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(60);
constexpr int kWaitMs = 120'000;

// A join whose answer a broker took to its grave fences the member that sent it. Here another process does.
TEST(Fenced, AMemberJoinsAnewAndOfTwoOneGivesUp) {
  const TempDir dir;
  const KafkaBroker broker(dir / "kafka");
  KafkaOptions kafka;
  kafka.bootstrap_servers = broker.bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  ASSERT_OK(CreateTopics(kafka, {{"items", 4, true}}, kSendTimeout));
  ConsumerOptions options;
  options.kafka = kafka;
  options.topics = {"items"};
  options.group_id = "group";
  options.group_instance_id = "one";
  options.session_timeout_ms = 6000;
  const SystemClock clock;
  const auto open = [&] {
    auto source = OpenKafkaConsumer(
        options, [](const auto&) { return StoredPositions{}; }, &clock, kSendTimeout);
    EXPECT_OK(source);
    return std::move(*source);
  };
  // Polls `source` until it has read something; false once it failed.
  const auto reads = [](RecordSource* source) {
    bool failed = false;
    const auto done = [&] {
      const auto polled = source->Poll(std::chrono::milliseconds(10));
      failed = !polled.ok();
      return failed || polled->kind == PollResult::Kind::kRecord;
    };
    const bool read = WaitFor(done, kWaitMs);
    return read && !failed;
  };
  OutRecord record;
  record.topic = "items";
  record.key = "a";
  record.value = "{}";
  auto older = open();
  ASSERT_OK((*producer)->Send({record}, kSendTimeout));
  ASSERT_TRUE(reads(older.get()));
  auto newer = open();
  ASSERT_TRUE(reads(newer.get()));
  newer.reset();  // a static member does not leave
  EXPECT_TRUE(reads(older.get())) << "it was not read on, though the other one is gone";
  // Two that stay take the place from each other, until one of them has had enough.
  newer = open();
  Status of_older;
  Status of_newer;
  EXPECT_TRUE(WaitFor(
      [&] {
        of_older = older->Poll(std::chrono::milliseconds(5)).status();
        of_newer = newer->Poll(std::chrono::milliseconds(5)).status();
        return !of_older.ok() || !of_newer.ok();
      },
      kWaitMs));
  const Status& given_up = of_older.ok() ? of_newer : of_older;
  EXPECT_EQ(given_up.code(), Code::kFailedPrecondition) << given_up.ToString();
  EXPECT_NE(given_up.message().find("another member that is called `one`"), std::string::npos) << given_up.ToString();
  RecordSource* left = of_older.ok() ? older.get() : newer.get();
  ASSERT_OK((*producer)->Send({record}, kSendTimeout));
  EXPECT_TRUE(reads(left));
}

}  // namespace
}  // namespace freshet::test
