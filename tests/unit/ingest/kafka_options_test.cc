#include <gtest/gtest.h>

#include "freshet/ingest/kafka.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(KafkaOptionsTest, KeysThatFreshetOwnsAreRefusedByName) {
  for (const char* key : {"bootstrap.servers", "metadata.broker.list", "group.id", "group.instance.id", "client.id",
                          "enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store", "auto.offset.reset",
                          "enable.partition.eof", "partition.assignment.strategy", "isolation.level", "rebalance_cb",
                          "log_cb", "enable.idempotence", "acks", "request.required.acks"}) {
    const Status status = ValidateLibrdkafkaOptions({{key, "x"}});
    EXPECT_EQ(status.code(), Code::kConfig) << key;
    EXPECT_NE(status.message().find(key), std::string::npos) << status.message();
  }
  EXPECT_OK(ValidateLibrdkafkaOptions({{"security.protocol", "ssl"}, {"ssl.ca.location", "/x"}}));
}

TEST(KafkaOptionsTest, UnknownOptionsAreConfigurationErrorsWithoutTheirValue) {
  KafkaOptions options;
  options.librdkafka_options = {{"no.such.option", "hunter2"}};
  const auto producer = OpenKafkaProducer(options);
  ASSERT_EQ(producer.status().code(), Code::kConfig);
  EXPECT_NE(producer.status().message().find("no.such.option"), std::string::npos);
  EXPECT_EQ(producer.status().message().find("hunter2"), std::string::npos);
}

TEST(KafkaOptionsTest, FetchesAreBounded) {
  EXPECT_OK(ValidateLibrdkafkaOptions({{"fetch.max.bytes", "1000000"}}));
  for (const char* key : {"fetch.max.bytes", "fetch.message.max.bytes", "max.partition.fetch.bytes"}) {
    const Status refused = ValidateLibrdkafkaOptions({{key, "1000000000"}});
    EXPECT_EQ(refused.code(), Code::kConfig);
    EXPECT_NE(refused.message().find(key), std::string::npos);
  }
}

TEST(KafkaOptionsTest, AConsumerNeedsTopicsAndAnAssignment) {
  SystemClock clock;
  const OffsetLookup nothing = [](const std::vector<TopicPartition>&) { return StoredPositions{}; };
  const auto open = [&](const ConsumerOptions& options) {
    return OpenKafkaConsumer(options, nothing, &clock, std::chrono::milliseconds(1)).status().code();
  };
  ConsumerOptions options;
  EXPECT_EQ(open(options), Code::kConfig) << "no topic";
  options.topics = {"items"};
  EXPECT_EQ(open(options), Code::kConfig) << "neither group nor assignment";
  options.assign_all = true;
  options.assign = {0};
  EXPECT_EQ(open(options), Code::kConfig) << "both assignments";
}

}  // namespace
}  // namespace freshet
