// The consumer group and the process on Apache Kafka: static membership, offsets from the store, signals and exit
// codes.
#include <csignal>

#include "freshet/core/file.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/checks.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(20);

class GroupTest : public ::testing::Test {
 protected:
  GroupTest() : broker_(dir_ / "kafka") {
    KafkaOptions kafka;
    kafka.bootstrap_servers = broker_.bootstrap_servers();
    auto producer = OpenKafkaProducer(kafka);
    EXPECT_OK(producer);
    producer_ = std::move(*producer);
  }
  [[nodiscard]] Config EngineConfig() const {
    auto config = ParseConfig(EngineYaml(broker_.bootstrap_servers(), dir_ / "engine", "group"), "engine.yaml", {});
    EXPECT_OK(config);
    return *config;
  }
  void Send(ItemStream* stream, int records) {
    std::vector<OutRecord> batch;
    for (int i = 0; i < records; ++i) batch.push_back(stream->Next(&oracle_));
    ASSERT_OK(producer_->Send(batch, kSendTimeout));
    sent_ += records;
  }
  [[nodiscard]] bool WaitUntilApplied(const Engine& engine) const {
    return WaitFor([&] {
      std::int64_t covered = 0;
      for (const auto& [partition, next] :
           engine.applier().StoredOffsets({{"items", 0}, {"items", 1}, {"items", 2}, {"items", 3}})) {
        covered += next;
      }
      return covered >= sent_ || !engine.status().ok();
    });
  }

  TempDir dir_;
  KafkaBroker broker_;
  std::unique_ptr<KafkaProducer> producer_;
  Oracle oracle_;
  std::int64_t sent_ = 0;
};

// The engine makes its topics itself, takes part in a group, and continues from the store after a graceful stop.
TEST_F(GroupTest, ContinuesFromTheStoredOffsets) {
  ItemStream stream(TestSeed(), "items", 50, kTestDim, /*null_keys=*/false);
  for (int run = 0; run < 3; ++run) {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    Send(&stream, 200);
    ASSERT_TRUE(WaitUntilApplied(**engine));
    EXPECT_EQ(Differs(oracle_, (*engine)->applier(), (*engine)->store(), (*engine)->recall()), "");
    ASSERT_OK((*engine)->Stop());
  }
}

// Invariant 1: the store's offsets count, whatever the broker's committed ones say. An engine that lost its store reads
// everything again although the group has commits.
TEST_F(GroupTest, TheBrokersCommitsAreNeverReadBack) {
  ItemStream stream(TestSeed(), "items", 50, kTestDim, /*null_keys=*/false);
  Config config = EngineConfig();
  {
    auto engine = Engine::Start(config);
    ASSERT_OK(engine);
    Send(&stream, 200);
    ASSERT_TRUE(WaitUntilApplied(**engine));
    ASSERT_OK((*engine)->Stop());
  }
  config.data_dir = dir_ / "another";
  auto engine = Engine::Start(config);
  ASSERT_OK(engine);
  ASSERT_TRUE(WaitUntilApplied(**engine));
  EXPECT_EQ(Differs(oracle_, (*engine)->applier(), (*engine)->store(), (*engine)->recall()), "");
}

TEST_F(GroupTest, ASecondSignalEndsAtOnceAndLosesNothing) {
  ItemStream stream(TestSeed(), "items", 50, kTestDim, /*null_keys=*/false);
  const std::string yaml = dir_ / "engine.yaml";
  ASSERT_OK(WriteFileAtomically(yaml, EngineYaml(broker_.bootstrap_servers(), dir_ / "engine", "group")));
  {
    Process process({FreshetBinary(), "run", "--config", yaml, "--address-file", dir_ / "address"}, dir_ / "log");
    ASSERT_TRUE(WaitFor([&] { return FileExists(dir_ / "address"); }, 60'000));
    Send(&stream, 300);
    process.Signal(SIGTERM);
    process.Signal(SIGTERM);
    const int status = process.Wait(30'000);
    EXPECT_TRUE(status == 128 + SIGTERM || status == 0) << status;
  }
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ASSERT_TRUE(WaitUntilApplied(**engine));
  EXPECT_EQ(Differs(oracle_, (*engine)->applier(), (*engine)->store(), (*engine)->recall()), "");
}

TEST(Process, WithoutABrokerTheEngineExitsWith69) {
  const TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "engine.yaml", EngineYaml("127.0.0.1:1", dir / "data")));
  EXPECT_EQ(RunCommand({FreshetBinary(), "run", "--config", dir / "engine.yaml"}, nullptr), 69);
}

}  // namespace
}  // namespace freshet::test
