// How long Kafka keeps what freshet relies on, asked of Apache Kafka.
#include "freshet/ingest/kafka.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/test_support.h"
#include "topic_checks.h"

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
  // The broker that is asked may hear of a new topic a moment later.
  EXPECT_TRUE(WaitFor([&] { return RetentionMs(kafka, "asked", kTimeout) == kTwoWeeksMs; }));
  EXPECT_TRUE(WaitFor([&] { return RetentionMs(kafka, "default", kTimeout) == 7LL * 24 * 3600 * 1000; }));
  EXPECT_EQ(RetentionMs(kafka, "compacted", kTimeout), std::nullopt) << "for ever";
  EXPECT_EQ(TombstoneRetentionMs(kafka, {"asked", "compacted"}, kTimeout),
            (std::map<std::string, std::int64_t>{{"compacted", 24LL * 3600 * 1000}}));
}

// A sidecar that restores the newest snapshot needs every user event since.
TEST(Retention, UserEventsThatAreKeptForLessThanASnapshotTakesToComeAreWarnedOf) {
  const TempDir dir;
  const KafkaBroker broker(dir / "kafka");
  Config config;
  config.kafka.bootstrap_servers = broker.bootstrap_servers();
  config.snapshots.directory = dir / "snapshots";
  config.snapshots.interval_seconds = 3'600;
  ASSERT_OK(CreateTopics(
      config.kafka, {{"short", 1, /*compact=*/false, 3'599'000}, {"long", 1, /*compact=*/false, 3'600'000}}, kTimeout));
  config.publisher.user_events_topic = "short";
  EXPECT_TRUE(WaitFor([&] { return WarnOfShortRetention(config, kTimeout); }));
  config.publisher.user_events_topic = "long";
  EXPECT_FALSE(WarnOfShortRetention(config, kTimeout));
  config.publisher.user_events_topic = "short";
  config.snapshots.interval_seconds = 0;  // none by time
  EXPECT_FALSE(WarnOfShortRetention(config, kTimeout));
}

}  // namespace
}  // namespace freshet::test
