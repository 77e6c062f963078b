// Partitions whose log is no longer the one that was read, on Apache Kafka: each is noticed, read again from its
// beginning, and what it no longer holds is removed, at the follower too.
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/deploy/sidecar.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/http_client.h"
#include "freshet/store/snapshot_repository.h"
#include "freshet_test/checks.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(20);
constexpr int kWaitMs = 60'000;

class RereadTest : public ::testing::TestWithParam<const char*> {
 protected:
  // One broker for all of them: it takes longer to start than most of them to run. Its cleaner looks often, so that
  // compaction is a matter of seconds.
  static void SetUpTestSuite() {
    broker_dir_ = std::make_unique<TempDir>();
    shared_ = std::make_unique<KafkaBroker>(
        *broker_dir_ / "kafka", "",
        std::vector<std::string>{"log.cleaner.backoff.ms=200", "log.cleaner.min.compaction.lag.ms=0"});
  }
  static void TearDownTestSuite() {
    shared_.reset();
    broker_dir_.reset();
  }
  RereadTest() : broker_(*shared_) {
    kafka_.bootstrap_servers = broker_.bootstrap_servers();
    auto producer = OpenKafkaProducer(kafka_);
    EXPECT_OK(producer);
    producer_ = std::move(*producer);
  }
  [[nodiscard]] std::string EngineText() const {
    return EngineYaml(broker_.bootstrap_servers(), dir_ / "engine", GetParam());
  }
  [[nodiscard]] Config EngineConfig() const {
    auto config = ParseConfig(EngineText(), "engine.yaml", {});
    EXPECT_OK(config);
    config->items.name = items_;
    config->interactions.name = prefix_ + "interactions";
    config->users->name = prefix_ + "users";
    config->dead_letters.topic = prefix_ + "dead-letters";
    config->group_id = prefix_ + "group";
    UseChangelog(&*config);
    config->kafka.librdkafka_options["topic.metadata.refresh.interval.ms"] = "500";
    return *config;
  }
  void UseChangelog(Config* config) const {
    config->publisher.vectors_topic = prefix_ + "vectors";
    config->publisher.user_events_topic = prefix_ + "user-events";
  }
  void MakeItems() { ASSERT_OK(CreateTopics(kafka_, {{items_, 1, /*compact=*/true}}, kSendTimeout)); }
  void MakeTopics() {
    MakeItems();
    ASSERT_OK(CreateTopics(
        kafka_,
        {{prefix_ + "users", 1, true}, {prefix_ + "interactions", 1, false}, {prefix_ + "dead-letters", 1, false}},
        kSendTimeout));
  }
  OutRecord Item(const std::string& id, float x) const {
    OutRecord record;
    record.topic = items_;
    record.key = id;
    record.value = StrCat(R"({"vector":[)", x, R"(,1,0,0,0,0,0,0],"attributes":{"title":"t"}})");
    return record;
  }
  [[nodiscard]] OutRecord Deleted(const std::string& id) const {
    OutRecord record;
    record.topic = items_;
    record.key = id;
    return record;
  }
  void Send(const std::vector<OutRecord>& records) { ASSERT_OK(producer_->Send(records, kSendTimeout)); }
  [[nodiscard]] static std::vector<std::string> Ids(const Applier& applier) {
    auto ids = applier.catalog().LiveIds();
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  template <typename Service>
  void ExpectIds(const Service& service, const std::vector<std::string>& ids) {
    EXPECT_TRUE(WaitFor([&] { return Ids(service.applier()) == ids || !service.status().ok(); }, kWaitMs));
    EXPECT_EQ(Ids(service.applier()), ids);
    EXPECT_OK(service.status());
  }
  void ExpectRereads(const Engine& engine, const std::string& cause, int times) {
    const auto metrics = HttpCall(engine.http_address(), "GET", "/metrics", "", 5'000);
    ASSERT_OK(metrics);
    std::string found;
    for (const std::string& line : Split(metrics->body, '\n')) {
      if (line.rfind("freshet_partition_rereads_total", 0) == 0 &&
          line.find(StrCat("\"", cause, "\"")) != std::string::npos) {
        found = line;
      }
    }
    EXPECT_TRUE(times == 0 ? found.empty() : found.size() > 2 && found.substr(found.rfind(' ') + 1) == StrCat(times))
        << found;
  }
  // That a topic still holds.
  [[nodiscard]] int Tombstones(const std::string& topic) const {
    ConsumerOptions options;
    options.kafka.bootstrap_servers = broker_.bootstrap_servers();
    options.topics = {topic};
    options.assign_all = true;
    SystemClock clock;
    auto source = OpenKafkaConsumer(
        options, [](const auto&) { return StoredPositions(); }, &clock, kSendTimeout);
    int found = 0;
    bool at_end = false;
    EXPECT_TRUE(WaitFor([&] {
      const auto polled = (*source)->Poll(std::chrono::milliseconds(100));
      if (polled.ok() && polled->kind == PollResult::Kind::kRecord) {
        found += polled->record.value ? 0 : 1;
        at_end = at_end || (*source)->LagRecords() == 0;
      }
      return at_end;
    }));
    return found;
  }
  [[nodiscard]] static std::size_t Live(const Engine& engine) { return engine.applier().catalog().live(); }
  [[nodiscard]] static std::size_t SnapshotsIn(const std::string& directory) {
    const auto entries = OpenLocalRepository(directory)->List();
    return entries.ok() ? entries->size() : 0;
  }
  // Runs an engine and a sidecar until both have `ids`, then stops them.
  void RunUntil(const std::vector<std::string>& ids, const std::string& cause = "") {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    auto sidecar_config = ParseConfig(SidecarYaml(broker_.bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {});
    ASSERT_OK(sidecar_config);
    UseChangelog(&*sidecar_config);
    auto sidecar = Sidecar::Start(*sidecar_config);
    ASSERT_OK(sidecar);
    ExpectIds(**engine, ids);
    ExpectIds(**sidecar, ids);
    if (!cause.empty()) ExpectRereads(**engine, cause, 1);
    EXPECT_OK((*engine)->applier().Audit());
    ASSERT_OK((*sidecar)->Stop());
    ASSERT_OK((*engine)->Stop());
  }

  static std::unique_ptr<TempDir> broker_dir_;
  static std::unique_ptr<KafkaBroker> shared_;
  static int tests_;
  const std::string prefix_ = StrCat("t", ++tests_, "-");  // of topics and group
  const std::string items_ = prefix_ + "items";
  TempDir dir_;
  KafkaBroker& broker_;
  KafkaOptions kafka_;
  std::unique_ptr<KafkaProducer> producer_;
};

TEST_P(RereadTest, EvictedOffsets) {
  MakeTopics();
  Send({Item("early", 1), Item("kept", 2)});
  RunUntil({"early", "kept"});
  Send({Deleted("early"), Item("kept", 3), Item("late", 4)});
  // As retention does it: the log now begins at `late`, beyond what was stored.
  ASSERT_OK(WriteFileAtomically(dir_ / "offsets.json", StrCat(R"({"partitions":[{"topic":")", items_,
                                                              R"(","partition":0,"offset":4}],"version":1})")));
  broker_.Tool({"kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", items_,
                "--add-config", "cleanup.policy=[compact,delete]"});
  broker_.Tool({"org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", dir_ / "offsets.json"});
  RunUntil({"late"}, "evicted");
}

TEST_P(RereadTest, ATopicMadeAnewWithFewerRecords) {
  MakeTopics();
  Send({Item("a", 1), Item("b", 2), Item("c", 3)});
  RunUntil({"a", "b", "c"});
  broker_.DeleteTopic(items_);
  MakeItems();
  Send({Item("b", 5)});
  RunUntil({"b"}, "beyond_end");
}

TEST_P(RereadTest, ATopicMadeAnewWithMoreRecords) {
  MakeTopics();
  Send({Item("a", 1), Item("b", 2)});
  RunUntil({"a", "b"});
  broker_.DeleteTopic(items_);
  MakeItems();
  Send({Item("x", 1), Item("y", 2), Item("b", 7), Item("z", 3)});
  RunUntil({"b", "x", "y", "z"}, "recreated");
}

TEST_P(RereadTest, ATopicMadeAnewWhileTheEngineRuns) {
  MakeTopics();
  Send({Item("a", 1), Item("b", 2)});
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ExpectIds(**engine, {"a", "b"});
  broker_.DeleteTopic(items_);
  MakeItems();
  Send({Item("x", 1), Item("y", 2), Item("b", 7), Item("z", 3)});
  ExpectIds(**engine, {"b", "x", "y", "z"});
  EXPECT_OK((*engine)->applier().Audit());
  ASSERT_OK((*engine)->Stop());
}

// The delete happens and its tombstone is compacted away, all while the engine is away.
TEST_P(RereadTest, TombstonesThatWereCompactedAway) {
  MakeTopics();
  broker_.Tool({"kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", items_,
                "--add-config", "delete.retention.ms=100,segment.ms=100,min.cleanable.dirty.ratio=0.001"});
  Send({Item("gone", 1), Item("kept", 2)});
  {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    ExpectIds(**engine, {"gone", "kept"});
    ASSERT_OK((*engine)->Stop());
  }
  Send({Deleted("gone")});
  // Each record may roll the segment, and the cleaner takes all but the active one.
  ASSERT_TRUE(WaitFor(
      [&] {
        Send({Item("later", 3)});
        return Tombstones(items_) == 0;
      },
      120'000));
  RunUntil({"kept", "later"}, "tombstones");
}

class FollowerTest : public RereadTest {
 protected:
  void SetUp() override { MakeTopics(); }
  [[nodiscard]] Config SidecarConfig(const std::string& more = "") const {
    auto config = ParseConfig(SidecarYaml(broker_.bootstrap_servers(), dir_ / "sidecar") + more, "sidecar.yaml", {});
    EXPECT_OK(config);
    UseChangelog(&*config);
    config->kafka.librdkafka_options["topic.metadata.refresh.interval.ms"] = "500";
    return *config;
  }
  void RunSidecarUntil(const std::vector<std::string>& ids, const std::string& more = "") {
    auto sidecar = Sidecar::Start(SidecarConfig(more));
    ASSERT_OK(sidecar);
    ExpectIds(**sidecar, ids);
    ASSERT_OK((*sidecar)->Stop());
  }
  [[nodiscard]] std::string Snapshots() const { return StrCat("snapshots: {directory: ", dir_ / "snapshots", "}\n"); }
};

// A sidecar that was away for longer than the changelog keeps tombstones: what they deleted is not answered for ever.
TEST_P(FollowerTest, TombstonesThatWereCompactedAway) {
  Send({Item("gone", 1), Item("kept", 2)});
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ExpectIds(**engine, {"gone", "kept"});
  const std::string vectors = prefix_ + "vectors";
  broker_.Tool({"kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", vectors,
                "--add-config", "delete.retention.ms=100,segment.ms=100,min.cleanable.dirty.ratio=0.001"});
  RunSidecarUntil({"gone", "kept"});
  Send({Deleted("gone")});
  ASSERT_TRUE(WaitFor([&] { return Live(**engine) == 1; }, kWaitMs));
  // Progress records roll the segments, and the cleaner takes all but the active one.
  ASSERT_TRUE(WaitFor([&] { return Tombstones(vectors) == 0; }, 120'000));
  Send({Item("later", 3)});
  RunSidecarUntil({"kept", "later"});
  ASSERT_OK((*engine)->Stop());
}

// Topics that were made anew hold what has changed since, and no more: a state without the rest would be taken for
// whole. A snapshot has the rest.
TEST_P(FollowerTest, AChangelogThatWasMadeAnewWantsANewerSnapshot) {
  Send({Item("a", 1), Item("b", 2)});
  Config engine_config = EngineConfig();
  engine_config.snapshots.directory = dir_ / "snapshots";
  const auto run_engine_until = [&](const std::vector<std::string>& ids) {
    auto engine = Engine::Start(engine_config);
    ASSERT_OK(engine);
    ExpectIds(**engine, ids);
    ASSERT_OK((*engine)->Stop());  // takes a snapshot
  };
  run_engine_until({"a", "b"});
  ASSERT_EQ(SnapshotsIn(dir_ / "snapshots"), 1u);
  RunSidecarUntil({"a", "b"}, Snapshots());
  broker_.DeleteTopic(prefix_ + "vectors");
  broker_.DeleteTopic(prefix_ + "user-events");
  ASSERT_OK(CreateTopics(kafka_, {{prefix_ + "vectors", 1, true}, {prefix_ + "user-events", 1, false}}, kSendTimeout));
  const auto refused = Sidecar::Start(SidecarConfig(Snapshots()));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition) << refused.status().ToString();
  EXPECT_NE(refused.status().message().find("no snapshot is newer"), std::string::npos) << refused.status().ToString();

  // The new topic may be as long as the old one by now: then only the last record tells them apart, when it is read.
  Send({Item("c", 3)});
  run_engine_until({"a", "b", "c"});
  ASSERT_EQ(SnapshotsIn(dir_ / "snapshots"), 2u);
  auto sidecar = Sidecar::Start(SidecarConfig(Snapshots()));
  ASSERT_OK(sidecar);
  const std::vector<std::string> all = {"a", "b", "c"};
  ASSERT_TRUE(WaitFor([&] { return !(*sidecar)->status().ok() || Ids((*sidecar)->applier()) == all; }, kWaitMs));
  const Status ended = (*sidecar)->Stop();
  EXPECT_TRUE(ended.ok() || ended.message().find("recreated") != std::string::npos) << ended.ToString();
  sidecar->reset();
  RunSidecarUntil(all, Snapshots());
}

// The process ends, and the next start begins with what there is.
TEST_P(FollowerTest, AChangelogMadeAnewWhileItIsFollowedEndsTheSidecarAndTheNextBeginsAnew) {
  Send({Item("a", 1), Item("b", 2)});
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  auto sidecar = Sidecar::Start(SidecarConfig());
  ASSERT_OK(sidecar);
  ExpectIds(**sidecar, {"a", "b"});
  ASSERT_OK((*engine)->Stop());
  engine->reset();
  broker_.DeleteTopic(prefix_ + "vectors");
  ASSERT_OK(CreateTopics(kafka_, {{prefix_ + "vectors", 1, true}}, kSendTimeout));
  EXPECT_TRUE(WaitFor([&] { return !(*sidecar)->status().ok(); }, kWaitMs));
  EXPECT_EQ((*sidecar)->status().code(), Code::kFailedPrecondition) << (*sidecar)->status().ToString();
  EXPECT_FALSE((*sidecar)->Stop().ok());
  sidecar->reset();
  EXPECT_TRUE(FileExists(dir_ / "sidecar/LOST"));
  engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  Send({Item("c", 3)});
  ExpectIds(**engine, {"a", "b", "c"});
  RunSidecarUntil({"c"});
  EXPECT_FALSE(FileExists(dir_ / "sidecar/LOST"));
  ASSERT_OK((*engine)->Stop());
}

TEST_P(FollowerTest, NewPartitionsOfTheChangelogAreFollowedWithoutARestart) {
  Send({Item("a", 1)});
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  auto sidecar = Sidecar::Start(SidecarConfig());
  ASSERT_OK(sidecar);
  ExpectIds(**sidecar, {"a"});
  broker_.Tool({"org.apache.kafka.tools.TopicCommand", "--alter", "--topic", prefix_ + "vectors", "--partitions", "6"});
  // Progress goes to each partition, once the engine has heard of them.
  ASSERT_TRUE(WaitFor(
      [&] {
        const auto marks = QueryWatermarks(kafka_, {prefix_ + "vectors"}, kSendTimeout);
        return marks.ok() && marks->size() == 6 &&
               std::all_of(marks->begin(), marks->end(), [](const auto& mark) { return mark.second.high > 0; });
      },
      kWaitMs));
  std::vector<std::string> ids = {"a"};
  for (int i = 0; i < 32; ++i) {
    ids.push_back(StrCat("late-", i));
    Send({Item(ids.back(), static_cast<float>(i))});
  }
  std::sort(ids.begin(), ids.end());
  ExpectIds(**sidecar, ids);
  EXPECT_TRUE(WaitFor([&] { return (*sidecar)->applier().as_of_ms() > SystemClock().WallMs() - 10'000; }, kWaitMs));
  ASSERT_OK((*sidecar)->Stop());
  ASSERT_OK((*engine)->Stop());
}

TEST_P(RereadTest, NewPartitionsAreReadWithoutARestart) {
  MakeTopics();
  Send({Item("a", 1)});
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ExpectIds(**engine, {"a"});
  broker_.Tool({"org.apache.kafka.tools.TopicCommand", "--alter", "--topic", items_, "--partitions", "3"});
  OutRecord record = Item("b", 2);
  record.partition = 2;
  // One that asks for the partitions now, not minutes later.
  auto producer = OpenKafkaProducer(kafka_);
  ASSERT_OK(producer);
  ASSERT_TRUE(WaitFor([&] { return (*producer)->Send({record}, kSendTimeout).ok(); }, kWaitMs));
  ExpectIds(**engine, {"a", "b"});
  ExpectRereads(**engine, "recreated", 0);
  ASSERT_OK((*engine)->Stop());
}

std::unique_ptr<TempDir> RereadTest::broker_dir_;
std::unique_ptr<KafkaBroker> RereadTest::shared_;
int RereadTest::tests_ = 0;

INSTANTIATE_TEST_SUITE_P(Assign, RereadTest, ::testing::Values("all", "group"),
                         [](const auto& assign) { return std::string(assign.param); });
// A sidecar is in no group.
INSTANTIATE_TEST_SUITE_P(Assign, FollowerTest, ::testing::Values("all"),
                         [](const auto& assign) { return std::string(assign.param); });

}  // namespace
}  // namespace freshet::test
