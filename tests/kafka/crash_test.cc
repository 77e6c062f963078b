// The engine as a process on Apache Kafka, killed with -9 at random moments, and the broker too: nothing lost,
// duplicated or resurrected, and the sidecar ends equal to the engine.
#include <csignal>
#include <map>
#include <random>
#include <thread>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/http_client.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/oracle.h"
#include "freshet_test/process.h"
#include "freshet_test/service.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr int kEngineKills = 25;
constexpr int kBrokerKills = 3;
constexpr int kItems = 400;
constexpr int kUsers = 20;
constexpr int kUpMs = 60'000;

class CrashTest : public ::testing::TestWithParam<const char*> {};

TEST_P(CrashTest, NothingIsLostDuplicatedOrResurrected) {
  const std::uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  const TempDir dir;
  KafkaBroker broker(dir / "kafka", GetParam());
  ASSERT_FALSE(::testing::Test::HasFatalFailure());
  for (const char* topic : {"items", "users", "vectors"}) broker.CreateTopic(topic, 4, true);
  for (const char* topic : {"interactions", "user-events"}) broker.CreateTopic(topic, 4, false);
  broker.CreateTopic("dead-letters", 1, false);

  KafkaOptions kafka;
  kafka.bootstrap_servers = broker.bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  // Long histories: every interaction there ever was is compared, not the last fifty.
  const std::string bounds = "store: {history: 10000, seen: 100000}\n";
  Service engine("run", dir / "engine", EngineYaml(broker.bootstrap_servers(), dir / "engine/data", "group") + bounds);
  Service sidecar("sidecar", dir / "sidecar", SidecarYaml(broker.bootstrap_servers(), dir / "sidecar/data") + bounds);
  engine.Start();
  sidecar.Start();

  // The producer never stops: items as the oracle has them, and interactions that count up per user, so that one lost
  // or applied twice shows in the history.
  Oracle oracle;
  ItemStream stream(seed, "items", kItems, kTestDim, /*null_keys=*/false);
  std::map<std::string, std::vector<std::string>> histories;
  std::atomic<bool> done{false};
  std::atomic<std::int64_t> sent{0};
  std::thread producing([&] {
    for (int round = 0; !done; ++round) {
      std::vector<OutRecord> records;
      for (int i = 0; i < 40; ++i) records.push_back(stream.Next(&oracle));
      for (int i = 0; i < 10; ++i) {
        const std::string user = StrCat("u", (round * 10 + i) % kUsers);
        const std::string item = StrCat("bought-", round * 10 + i);
        OutRecord record;
        record.topic = "interactions";
        record.key = user;
        record.value = StrCat(R"({"item_id":")", item, R"(","timestamp":)", round * 10 + i + 1, "}");
        records.push_back(record);
        histories[user].push_back(item);
      }
      // The broker may be dead just now: the idempotent producer keeps the order and sends each once.
      for (const OutRecord& record : records) {
        const Status queued = (*producer)->Produce(record);
        EXPECT_OK(queued);
      }
      EXPECT_OK((*producer)->Flush(std::chrono::seconds(120)));
      sent += static_cast<std::int64_t>(records.size());
    }
  });

  int broker_kills = 0;
  for (int kill = 1; kill <= kEngineKills; ++kill) {
    ASSERT_TRUE(engine.WaitUntilUp()) << "kill " << kill << ", see the log in " << dir.path();
    // A moment that differs each time: after so many more records were sent, wherever the engine is with them then.
    const std::int64_t until = sent + static_cast<std::int64_t>(random() % 400);
    EXPECT_TRUE(WaitFor([&] { return sent >= until; }, kUpMs));
    if (kill % (kEngineKills / kBrokerKills) == 0 && broker_kills < kBrokerKills) {
      broker.Kill();
      ++broker_kills;
      broker.Start();
    }
    engine.Kill();
    engine.Start();
    // The sidecar is killed now and then as well.
    if (kill % 10 == 5) {
      sidecar.Kill();
      sidecar.Start();
    }
  }
  EXPECT_EQ(broker_kills, kBrokerKills);
  done = true;
  producing.join();
  ASSERT_TRUE(engine.WaitUntilUp());
  ASSERT_TRUE(sidecar.WaitUntilUp());

  // Done when the engine lags by nothing, has published everything, and the sidecar has its sequence.
  std::int64_t calm_since = 0;
  ASSERT_TRUE(WaitFor(
      [&] {
        EXPECT_TRUE(engine.process().running() && sidecar.process().running());
        const bool level = engine.StatusOf("lag_records") == 0 && engine.StatusOf("outbox_records") == 0 &&
                           engine.StatusOf("sequence") == sidecar.StatusOf("sequence") &&
                           engine.StatusOf("items_live") == static_cast<std::int64_t>(oracle.live().size());
        calm_since = level ? calm_since + 1 : 0;
        return calm_since > 20;
      },
      120'000))
      << "engine " << engine.StatusOf("items_live") << " live, lag " << engine.StatusOf("lag_records") << ", outbox "
      << engine.StatusOf("outbox_records") << ", sequence " << engine.StatusOf("sequence") << "; sidecar "
      << sidecar.StatusOf("sequence") << "; oracle " << oracle.live().size();
  EXPECT_EQ(engine.StopGracefully(), 0);
  EXPECT_EQ(sidecar.StopGracefully(), 0);

  const Dump at_engine = DumpOf(engine.data());
  const Dump at_sidecar = DumpOf(sidecar.data());
  std::map<std::string, std::string> expected;
  for (const auto& [id, item] : oracle.live()) expected[id] = item.title;
  EXPECT_EQ(at_engine.titles, expected);
  EXPECT_EQ(at_sidecar.items, at_engine.items);
  EXPECT_EQ(at_engine.histories, histories);
  EXPECT_EQ(at_sidecar.histories, at_engine.histories);
  std::cout << "sent " << sent << " records, " << oracle.live().size() << " items live, " << kEngineKills
            << " kills of the engine, " << broker_kills << " of the broker\n";
}

// The empty version is the default, 3.9.1.
INSTANTIATE_TEST_SUITE_P(Versions, CrashTest, ::testing::Values("", "4.1.1"),
                         [](const auto& version) { return version.index == 0 ? "Default" : "Newest"; });

}  // namespace
}  // namespace freshet::test
