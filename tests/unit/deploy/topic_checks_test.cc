#include "topic_checks.h"

#include <random>

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr auto kTimeout = std::chrono::seconds(15);

class LogIsComplete : public ::testing::Test {
 protected:
  LogIsComplete() {
    auto broker = StartMockBroker();
    EXPECT_OK(broker);
    broker_ = std::move(*broker);
    config_.kafka.bootstrap_servers = broker_->bootstrap_servers();
    config_.users.emplace().name = "users";
    for (const std::string& topic : TopicsOf(config_)) EXPECT_OK(broker_->CreateTopic(topic, 2));
  }
  // More than the broker keeps of a partition: its oldest records go.
  void Overflow(const std::string& topic, std::int32_t partition) {
    auto producer = OpenKafkaProducer(config_.kafka);
    ASSERT_OK(producer);
    OutRecord record;
    record.topic = topic;
    record.partition = partition;
    record.key = "k";
    std::mt19937 random(7);  // what cannot be compressed
    record.value.emplace(500'000, ' ');
    for (char& c : *record.value) c = static_cast<char>(random() & 0xff);
    for (int i = 0; i < 16; ++i) ASSERT_OK((*producer)->Send({record}, kTimeout));
  }
  std::unique_ptr<MockBroker> broker_;
  Config config_;
};

TEST_F(LogIsComplete, WhereEveryTopicBeginsAtItsBeginning) { EXPECT_OK(CheckLogIsComplete(config_, kTimeout)); }

// Not the items alone: histories and profiles of a store that begins empty would be gone without a word.
TEST_F(LogIsComplete, NotWithoutTheFirstRecordsOfAnyTopicThatIsRead) {
  for (const char* name : {"users", "items", "interactions"}) {
    const std::string topic = name;
    SCOPED_TRACE(topic);
    ASSERT_NO_FATAL_FAILURE(Overflow(topic, 1));
    const Status status = CheckLogIsComplete(config_, kTimeout);
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.ToString();
    EXPECT_NE(status.message().find(topic + "[1] begins at offset"), std::string::npos) << status.ToString();
    if (topic == "users") {
      Config without = config_;
      without.users.reset();
      EXPECT_OK(CheckLogIsComplete(without, kTimeout));  // nothing of it was ever read
      without = config_;
      without.assign = {0};
      EXPECT_OK(CheckLogIsComplete(without, kTimeout));  // that partition is another engine's
    }
  }
}

TEST_F(LogIsComplete, NotWhereATopicCannotBeAsked) {
  ASSERT_OK(broker_->SetUp(false));
  EXPECT_EQ(CheckLogIsComplete(config_, std::chrono::milliseconds(500)).category(), Category::kTransient);
}

TEST(UserEvents, AreKeptForLongerThanASnapshotTakesToCome) {
  Config config;
  EXPECT_EQ(UserEventsNeedMs(config), 0) << "no snapshots";
  config.snapshots.directory = "/snapshots";
  config.snapshots.interval_seconds = 600;
  EXPECT_EQ(UserEventsNeedMs(config), 600'000);
  EXPECT_EQ(UserEventsRetentionMs(config), 7LL * 24 * 3600 * 1000);
  config.snapshots.interval_seconds = 30 * 86'400;
  EXPECT_GT(UserEventsRetentionMs(config), 30LL * 24 * 3600 * 1000);
  config.changelog = false;
  EXPECT_EQ(UserEventsRetentionMs(config), 0);
}

}  // namespace
}  // namespace freshet
