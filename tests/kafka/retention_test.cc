// How long Kafka keeps what freshet relies on, asked of Apache Kafka.
#include "freshet/ingest/kafka.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kTimeout = std::chrono::seconds(20);

TEST(Retention, ATopicIsMadeAsAskedForAndSaysSo) {
  const TempDir dir;
  const KafkaBroker broker(dir / "kafka");
  KafkaOptions kafka;
  kafka.bootstrap_servers = broker.bootstrap_servers();
  constexpr std::int64_t kTwoWeeksMs = 14LL * 24 * 3600 * 1000;
  ASSERT_OK(CreateTopics(kafka,
                         {{"asked", 1, /*compact=*/false, kTwoWeeksMs},
                          {"default", 1, /*compact=*/false},
                          {"compacted", 1, /*compact=*/true}},
                         kTimeout));
  EXPECT_EQ(RetentionMs(kafka, "asked", kTimeout), kTwoWeeksMs);
  EXPECT_EQ(RetentionMs(kafka, "default", kTimeout), 7LL * 24 * 3600 * 1000);
  EXPECT_EQ(RetentionMs(kafka, "compacted", kTimeout), std::nullopt) << "for ever";
  EXPECT_EQ(TombstoneRetentionMs(kafka, {"asked", "compacted"}, kTimeout),
            (std::map<std::string, std::int64_t>{{"compacted", 24LL * 3600 * 1000}}));
}

}  // namespace
}  // namespace freshet::test
