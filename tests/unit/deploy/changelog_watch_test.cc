#include "changelog_watch.h"

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet/store/changelog.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr auto kTimeout = std::chrono::seconds(15);

class ChangelogIsOursTest : public ::testing::Test {
 protected:
  ChangelogIsOursTest() {
    auto broker = StartMockBroker();
    EXPECT_OK(broker);
    broker_ = std::move(*broker);
    config_.kafka.bootstrap_servers = broker_->bootstrap_servers();
    for (const char* topic : {"vectors", "user-events"}) EXPECT_OK(broker_->CreateTopic(topic, 2));
  }
  void Publish(const std::string& topic, const std::vector<std::pair<std::string, std::string>>& headers) {
    auto producer = OpenKafkaProducer(config_.kafka);
    ASSERT_OK(producer);
    OutRecord record;
    record.topic = topic;
    record.partition = 1;
    record.key = "k";
    record.headers = headers;
    ASSERT_OK((*producer)->Send({record}, kTimeout));
  }
  std::unique_ptr<MockBroker> broker_;
  Config config_;
  SystemClock clock_;
};

TEST_F(ChangelogIsOursTest, UnlessANewerStorePublishesToAnyOfItsPartitions) {
  EXPECT_OK(CheckChangelogIsOurs(config_, 7, &clock_, kTimeout));
  Publish("vectors", {{kEpochHeader, "7"}});
  Publish("user-events", {{kEpochHeader, "6"}});
  EXPECT_OK(CheckChangelogIsOurs(config_, 7, &clock_, kTimeout));
  Publish("user-events", {{kEpochHeader, "8"}});
  const Status status = CheckChangelogIsOurs(config_, 7, &clock_, kTimeout);
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("user-events[1] holds the changelog of a newer store (epoch 8, this engine's is 7)"),
            std::string::npos)
      << status.ToString();
  EXPECT_OK(CheckChangelogIsOurs(config_, 8, &clock_, kTimeout));
}

TEST_F(ChangelogIsOursTest, WhateverStrangersWriteAndWhereverTheBrokerIs) {
  Publish("vectors", {});
  Publish("user-events", {{kEpochHeader, "no number"}});
  EXPECT_OK(CheckChangelogIsOurs(config_, 7, &clock_, kTimeout));
  ASSERT_OK(broker_->SetUp(false));
  EXPECT_OK(CheckChangelogIsOurs(config_, 7, &clock_, std::chrono::milliseconds(300)));
}

}  // namespace
}  // namespace freshet
