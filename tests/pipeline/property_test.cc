// The whole engine on the embedded broker against the oracle: random streams over several partitions, checked after
// every run and after every restart, engine and sidecar alike.
#include <random>

#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/deploy/sidecar.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/checks.h"
#include "freshet_test/configs.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(20);

class PropertyTest : public ::testing::Test {
 protected:
  PropertyTest() {
    auto broker = StartMockBroker();
    EXPECT_OK(broker);
    broker_ = std::move(*broker);
    for (const char* topic : {"items", "interactions", "users"}) EXPECT_OK(broker_->CreateTopic(topic, 3));
    EXPECT_OK(broker_->CreateTopic("dead-letters", 1));
    for (const char* topic : {"vectors", "user-events"}) EXPECT_OK(broker_->CreateTopic(topic, 3));
    KafkaOptions kafka;
    kafka.bootstrap_servers = broker_->bootstrap_servers();
    auto producer = OpenKafkaProducer(kafka);
    EXPECT_OK(producer);
    producer_ = std::move(*producer);
  }

  [[nodiscard]] Config EngineConfig() const {
    auto config = ParseConfig(EngineYaml(broker_->bootstrap_servers(), dir_ / "engine"), "engine.yaml", {});
    EXPECT_OK(config);
    return *config;
  }
  [[nodiscard]] Config SidecarConfig() const {
    auto config = ParseConfig(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {});
    EXPECT_OK(config);
    return *config;
  }

  void Send(ItemStream* stream, int records) {
    std::vector<OutRecord> batch;
    for (int i = 0; i < records; ++i) batch.push_back(stream->Next(&oracle_));
    ASSERT_OK(producer_->Send(batch, kSendTimeout));
    sent_ += records;
  }
  // Records of the items topic that the replica's stored offsets cover: all of them, once it is done.
  template <typename Service>
  [[nodiscard]] bool WaitUntilCovered(const Service& service, const std::string& topic, std::int64_t records) {
    return WaitFor([&] {
      std::int64_t covered = 0;
      for (const auto& [partition, next] : service.applier().StoredOffsets({{topic, 0}, {topic, 1}, {topic, 2}})) {
        covered += next;
      }
      return covered >= records || !service.status().ok();
    });
  }
  // A follower is level with its engine when it has the engine's sequence.
  // Until the sidecar has all that was sent before this call, of every partition: its sequence alone may be that of one
  // partition while another is behind.
  [[nodiscard]] static bool WaitUntilLevel(const Engine& engine, const Sidecar& sidecar) {
    const std::int64_t now_ms = SystemClock().WallMs();
    return WaitFor([&] {
      return sidecar.applier().as_of_ms() >= now_ms || !sidecar.status().ok() || !engine.status().ok();
    });
  }

  TempDir dir_;
  std::unique_ptr<MockBroker> broker_;
  std::unique_ptr<KafkaProducer> producer_;
  Oracle oracle_;
  std::int64_t sent_ = 0;
};

TEST_F(PropertyTest, AnswersStoreAndIndexEqualTheOracleAfterEveryRunAndRestart) {
  const std::uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  ItemStream stream(seed, "items", 60, kTestDim);
  for (int run = 0; run < 6; ++run) {
    SCOPED_TRACE(StrCat("run ", run));
    // Some of it is in the log before the engine starts, some comes while it runs.
    Send(&stream, static_cast<int>(random() % 300));
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    auto sidecar = Sidecar::Start(SidecarConfig());
    ASSERT_OK(sidecar);
    for (int part = 0; part < 4; ++part) Send(&stream, static_cast<int>(random() % 150));
    ASSERT_TRUE(WaitUntilCovered(**engine, "items", sent_));
    ASSERT_OK((*engine)->status());
    EXPECT_EQ(Differs(oracle_, (*engine)->applier(), (*engine)->store(), (*engine)->recall()), "");
    ASSERT_TRUE(WaitUntilLevel(**engine, **sidecar));
    ASSERT_OK((*sidecar)->status());
    EXPECT_EQ(Differs(oracle_, (*sidecar)->applier(), (*sidecar)->store(), (*sidecar)->recall()), "") << "sidecar";
    ASSERT_OK((*sidecar)->Stop());
    ASSERT_OK((*engine)->Stop());
  }
}

// Poison leaves with a reason, each record once, and never stops the stream.
TEST_F(PropertyTest, DeadLettersAreExactlyThePoison) {
  const std::uint64_t seed = TestSeed();
  ItemStream stream(seed, "items", 30, kTestDim);
  Send(&stream, 500);
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ASSERT_TRUE(WaitUntilCovered(**engine, "items", sent_));
  ASSERT_OK((*engine)->Stop());

  ConsumerOptions consumer;
  consumer.kafka.bootstrap_servers = broker_->bootstrap_servers();
  consumer.topics = {"dead-letters"};
  consumer.assign_all = true;
  SystemClock clock;
  auto source = OpenKafkaConsumer(
      consumer, [](const auto&) { return StoredPositions(); }, &clock, std::chrono::seconds(10));
  ASSERT_OK(source);
  std::size_t letters = 0;
  EXPECT_TRUE(WaitFor([&] {
    const auto polled = (*source)->Poll(std::chrono::milliseconds(50));
    if (polled.ok() && polled->kind == PollResult::Kind::kRecord) {
      ++letters;
      bool reason = false;
      for (const auto& [name, value] : polled->record.headers) {
        reason |= name == "__connect.errors.exception.message" && !value.empty();
      }
      EXPECT_TRUE(reason);
    }
    return letters >= oracle_.poison();
  }));
  EXPECT_EQ(letters, oracle_.poison());
  EXPECT_GT(letters, 0U);
}

// What is known of users survives a restart, is applied once, and arrives at the sidecar; forgetting removes it all.
TEST_F(PropertyTest, UserEventsReachTheSidecarAsTheEngineAppliedThem) {
  const auto interaction = [](const std::string& user, const std::string& item, int at) {
    OutRecord record;
    record.topic = "interactions";
    record.key = user;
    record.value =
        StrCat(R"({"user_id":")", user, R"(","item_id":")", item, R"(","event":"view","timestamp":)", at, "}");
    return record;
  };
  std::vector<OutRecord> records;
  for (int i = 0; i < 200; ++i) records.push_back(interaction(StrCat("u", i % 7), StrCat("i", i), 1000 + i));
  OutRecord profile;
  profile.topic = "users";
  profile.key = "u1";
  profile.value = R"({"features":{"country":"FR"}})";
  records.push_back(profile);
  ASSERT_OK(producer_->Send(records, kSendTimeout));
  for (int restart = 0; restart < 2; ++restart) {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    auto sidecar = Sidecar::Start(SidecarConfig());
    ASSERT_OK(sidecar);
    ASSERT_TRUE(WaitUntilCovered(**engine, "interactions", 200));
    ASSERT_TRUE(WaitUntilCovered(**engine, "users", 1));
    ASSERT_TRUE(WaitUntilLevel(**engine, **sidecar));
    for (int user = 0; user < 7; ++user) {
      const auto at_engine = (*engine)->applier().GetUser(StrCat("u", user));
      const auto at_sidecar = (*sidecar)->applier().GetUser(StrCat("u", user));
      ASSERT_TRUE(at_engine.ok() && *at_engine && at_sidecar.ok() && *at_sidecar);
      EXPECT_EQ((*at_engine)->history.size(), user < 4 ? 29U : 28U);
      EXPECT_EQ((*at_engine)->seen, (*at_sidecar)->seen);
      EXPECT_EQ((*at_engine)->features, (*at_sidecar)->features);
      EXPECT_EQ((*at_engine)->features.empty(), user != 1);
    }
    ASSERT_OK((*sidecar)->Stop());
    ASSERT_OK((*engine)->Stop());
  }
  OutRecord forget;
  forget.topic = "users";
  forget.key = "u1";
  ASSERT_OK(producer_->Send({forget}, kSendTimeout));
  auto engine = Engine::Start(EngineConfig());
  auto sidecar = Sidecar::Start(SidecarConfig());
  ASSERT_OK(engine);
  ASSERT_OK(sidecar);
  ASSERT_TRUE(WaitUntilCovered(**engine, "users", 2));
  ASSERT_TRUE(WaitUntilLevel(**engine, **sidecar));
  EXPECT_FALSE(*(*engine)->applier().GetUser("u1"));
  EXPECT_FALSE(*(*sidecar)->applier().GetUser("u1"));
}

}  // namespace
}  // namespace freshet::test
