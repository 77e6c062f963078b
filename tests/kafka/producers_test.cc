// Bytes that others write to Apache Kafka: kcat in every compression, a transactional producer, and frames whose schema
// registry is away.
#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/http_client.h"
#include "freshet_test/checks.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/kafka_transactions.h"
#include "freshet_test/process.h"
#include "freshet_test/registry_server.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(20);
constexpr int kUpMs = 60'000;

class ProducersTest : public ::testing::Test {
 protected:
  ProducersTest() : broker_(dir_ / "kafka") {}

  [[nodiscard]] Config EngineConfig(const std::string& more = "") const {
    auto config = ParseConfig(EngineYaml(broker_.bootstrap_servers(), dir_ / "engine", "group") + more, "engine.yaml",
                              {"kafka.session_timeout_ms=6000"});
    EXPECT_OK(config);
    return *config;
  }
  void StartEngine(const Config& config) {
    auto engine = Engine::Start(config);
    ASSERT_OK(engine);
    engine_ = std::move(*engine);
  }
  // "" while there is no such item.
  [[nodiscard]] std::string TitleOf(const std::string& id) const {
    const auto attributes = engine_->applier().GetAttributes(id);
    if (!attributes.ok() || !*attributes) return "";
    const AttributeValue* title = FindAttribute(**attributes, "title");
    return title != nullptr ? std::get<std::string>(*title) : "";
  }
  [[nodiscard]] std::size_t Live() const { return engine_->applier().catalog().live(); }
  [[nodiscard]] bool Ready() const {
    const auto reply = HttpCall(engine_->http_address(), "GET", "/readyz", "", 2'000);
    return reply.ok() && reply->status == 200;
  }
  static std::string Value(const std::string& title) {
    return StrCat(R"({"vector": [1, 0, 0, 0, 0, 0, 0, 1], "attributes": {"title": ")", title, "\"}}");
  }

  TempDir dir_;
  KafkaBroker broker_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(ProducersTest, KcatInEveryCompression) {
  StartEngine(EngineConfig());
  const std::vector<std::string> codecs = {"none", "gzip", "snappy", "lz4", "zstd"};
  constexpr int kItems = 200;
  const std::string file = dir_ / "lines";
  const auto send = [&](const std::vector<std::string>& options) {
    std::vector<std::string> command = {"kcat", "-P",
                                        "-b",   broker_.bootstrap_servers(),
                                        "-t",   "items",
                                        "-K",   "\t",
                                        "-H",   "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {"-l", file});
    ASSERT_EQ(RunCommand(command, nullptr), 0);
  };
  for (const std::string& codec : codecs) {
    std::ofstream lines(file);
    for (int i = 0; i < kItems; ++i) lines << codec << "-" << i << "\t" << Value(StrCat(codec, " item ", i)) << "\n";
    lines.close();
    send({"-z", codec});
  }
  ASSERT_TRUE(WaitFor([&] { return Live() == codecs.size() * kItems; }, kUpMs)) << Live();
  for (const std::string& codec : codecs) {
    for (int i = 0; i < kItems; ++i) EXPECT_EQ(TitleOf(StrCat(codec, "-", i)), StrCat(codec, " item ", i));
  }
  // -Z: an empty value is sent as null, which deletes. What is poison changes nothing.
  std::ofstream(file) << "none-0\t\nnone-1\t\n";
  send({"-Z"});
  ASSERT_TRUE(WaitFor([&] { return Live() == codecs.size() * kItems - 2; }, kUpMs)) << Live();
  EXPECT_EQ(TitleOf("none-0"), "");
  std::ofstream(file) << "none-2\t{no json\nnone-3\t" << Value("again") << "\n";
  send({});
  ASSERT_TRUE(WaitFor([&] { return TitleOf("none-3") == "again"; }, kUpMs));
  EXPECT_EQ(TitleOf("none-2"), "none item 2");
  // The poison may be in another partition than what was waited for.
  std::string letters;
  EXPECT_TRUE(WaitFor(
      [&] {
        EXPECT_EQ(RunCommand({"kcat", "-C", "-b", broker_.bootstrap_servers(), "-t", "dead-letters", "-e", "-q", "-f",
                              "%k %h\n"},
                             &letters),
                  0);
        return !letters.empty();
      },
      kUpMs));
  EXPECT_EQ(std::count(letters.begin(), letters.end(), '\n'), 1) << letters;
  EXPECT_TRUE(letters.starts_with("none-2 ")) << letters;
  EXPECT_NE(letters.find("traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), std::string::npos)
      << "headers of the record are kept: " << letters;
  ASSERT_OK(engine_->Stop());
}

// What a transaction wrote is read when it was committed, what was aborted never; and the markers that transactions
// leave in the log do not keep the engine from being at its end.
TEST_F(ProducersTest, TransactionsThatAreAbortedAreNeverSeen) {
  StartEngine(EngineConfig());
  TransactionalProducer producer(broker_.bootstrap_servers(), "shop");
  constexpr int kTransactions = 20;
  for (int i = 0; i < kTransactions; ++i) {
    ASSERT_EQ(producer.Begin(), "");
    // One item of its own, and one that all of them write.
    for (const std::string& key : {StrCat("item-", i), std::string("shared")}) {
      ASSERT_EQ(producer.Write("items", key, Value(StrCat("transaction ", i))), "");
    }
    ASSERT_EQ(producer.End(/*commit=*/i % 2 == 0), "");
  }
  const std::int64_t ended_ms = SystemClock().WallMs();
  // The end of the log is a marker of an aborted transaction: no record comes of it, and as_of goes past it.
  EXPECT_TRUE(WaitFor([&] { return Live() == kTransactions / 2 + 1; }, kUpMs)) << Live();
  EXPECT_TRUE(WaitFor([&] { return engine_->applier().as_of_ms() >= ended_ms; }, kUpMs));
  for (int i = 0; i < kTransactions; ++i) {
    EXPECT_EQ(TitleOf(StrCat("item-", i)), i % 2 == 0 ? StrCat("transaction ", i) : "");
  }
  EXPECT_EQ(TitleOf("shared"), StrCat("transaction ", kTransactions - 2));
  ASSERT_OK(engine_->Stop());
}

// FRESHET_REGISTRY_AWAY_S: how long; the issue of a minute is run by hand. Longer than the poll interval and the
// session in any case: the engine keeps its place in the group, makes no dead letter, and goes on.
TEST_F(ProducersTest, ARegistryThatIsAway) {
  const char* wanted = std::getenv("FRESHET_REGISTRY_AWAY_S");
  const int away_s = wanted != nullptr ? std::atoi(wanted) : 10;
  RegistryServer registry;
  registry.Set("/schemas/ids/7", {200, R"({"schemaType": "JSON", "schema": "{\"type\": \"object\"}"})"});
  registry.SetDown(true);
  Config config = EngineConfig(StrCat("schema_registry: {url: \"", registry.url(), "\", timeout_ms: 1000}\n"));
  config.kafka.librdkafka_options["max.poll.interval.ms"] = "6000";
  config.max_lag_seconds = 2;
  StartEngine(config);
  KafkaOptions kafka;
  kafka.bootstrap_servers = broker_.bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  Oracle oracle;
  ItemStream stream(TestSeed(), "items", 50, kTestDim, /*null_keys=*/false);
  std::vector<OutRecord> records;
  for (int i = 0; i < 300; ++i) {
    OutRecord record = stream.Next(&oracle);
    // Confluent's frame: a zero byte and the schema's id; what is no object is poison in it, too.
    if (record.value && !record.value->empty()) record.value->insert(0, std::string("\0\0\0\0\7", 5));
    records.push_back(std::move(record));
  }
  const auto sent = static_cast<std::int64_t>(records.size());
  ASSERT_OK((*producer)->Send(records, kSendTimeout));
  ASSERT_TRUE(WaitFor([&] { return registry.requests() > 0; }, kUpMs));
  ASSERT_TRUE(WaitFor([&] { return !Ready(); }, kUpMs));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(away_s);
  int ready = 0;
  EXPECT_TRUE(WaitFor(
      [&] {
        EXPECT_OK(engine_->status());
        ready += Ready() ? 1 : 0;
        return std::chrono::steady_clock::now() >= until;
      },
      away_s * 1'000 + kUpMs));
  EXPECT_EQ(ready, 0);
  EXPECT_GT(registry.requests(), 3);
  EXPECT_LT(registry.requests(), 20 * away_s) << "tried again and again without a pause";
  registry.SetDown(false);
  EXPECT_TRUE(WaitFor([&] { return Live() == oracle.live().size() && Ready(); }, kUpMs))
      << Live() << " live, " << oracle.live().size() << " expected";
  // The last of them may be poison.
  EXPECT_TRUE(WaitFor(
      [&] {
        std::int64_t covered = 0;
        for (std::int32_t p = 0; p < 4; ++p) {
          for (const auto& [partition, next] : engine_->applier().StoredOffsets({{"items", p}})) covered += next;
        }
        return covered >= sent;
      },
      kUpMs));
  EXPECT_TRUE(
      WaitFor([&] { return Differs(oracle, engine_->applier(), engine_->store(), engine_->recall()).empty(); }, kUpMs));
  ASSERT_OK(engine_->Stop());
  std::string letters;
  EXPECT_EQ(
      RunCommand({"kcat", "-C", "-b", broker_.bootstrap_servers(), "-t", "dead-letters", "-e", "-q", "-f", "%o\n"},
                 &letters),
      0);
  EXPECT_EQ(static_cast<std::size_t>(std::count(letters.begin(), letters.end(), '\n')), oracle.poison());
}

}  // namespace
}  // namespace freshet::test
