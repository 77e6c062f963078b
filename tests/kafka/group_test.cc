// The consumer group and the process on Apache Kafka: static membership, offsets from the store, signals and exit
// codes.
#include <algorithm>
#include <csignal>
#include <set>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet/deploy/engine.h"
#include "freshet/deploy/sidecar.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/http_client.h"
#include "freshet_test/checks.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/registry_server.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(20);

class GroupTest : public ::testing::Test {
 protected:
  GroupTest() : broker_(dir_ / "kafka") {
    kafka_.bootstrap_servers = broker_.bootstrap_servers();
    auto producer = OpenKafkaProducer(kafka_);
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
  KafkaOptions kafka_;
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

// Two engines share the partitions: each answers with its own items only, all of them together with all; what one gives
// up the other has, and what comes back continues where it was.
TEST_F(GroupTest, EnginesAnswerWithTheItemsOfTheirOwnPartitions) {
  ItemStream stream(TestSeed(), "items", 200, kTestDim, /*null_keys=*/false);
  const auto config = [&](const std::string& name) {
    Config one = EngineConfig();
    one.data_dir = dir_ / name;
    one.group_instance_id = name;
    one.session_timeout_ms = 6'000;
    one.publisher.vectors_topic = "vectors-" + name;
    one.publisher.user_events_topic = "user-events-" + name;
    return one;
  };
  const auto ids = [](const Engine& engine) {
    const auto live = engine.applier().catalog().LiveIds();
    return std::set<std::string>(live.begin(), live.end());
  };
  const auto all = [&] {
    std::set<std::string> expected;
    for (const auto& [id, item] : oracle_.live()) expected.insert(id);
    return expected;
  };
  const auto answers_with = [&](const Engine& engine, const std::set<std::string>& expected) {
    for (const bool exact : {true, false}) {
      RecallRequest request;
      request.vector.emplace(kTestDim, 1.0F);
      request.k = 1000;
      request.exact = exact;
      const auto response = engine.recall().Recall(request);
      EXPECT_OK(response);
      std::set<std::string> found;
      for (const RecallHit& hit : response->results) found.insert(hit.id);
      EXPECT_EQ(found, expected);
    }
  };
  auto first = Engine::Start(config("first"));
  ASSERT_OK(first);
  Send(&stream, 500);
  ASSERT_TRUE(WaitUntilApplied(**first));
  EXPECT_EQ(ids(**first), all());
  // Its follower answers with the same.
  auto follower_config = ParseConfig(SidecarYaml(broker_.bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {});
  ASSERT_OK(follower_config);
  follower_config->publisher = config("first").publisher;
  auto follower = Sidecar::Start(*follower_config);
  ASSERT_OK(follower);
  const auto followed = [&] {
    const auto live = (*follower)->applier().catalog().LiveIds();
    return std::set<std::string>(live.begin(), live.end()) == ids(**first);
  };
  EXPECT_TRUE(WaitFor(followed, 60'000));
  {
    auto second = Engine::Start(config("second"));
    ASSERT_OK(second);
    Send(&stream, 300);
    const auto shared = [&] {
      std::set<std::string> both = ids(**first);
      const std::set<std::string> theirs = ids(**second);
      const std::size_t own = both.size();
      both.insert(theirs.begin(), theirs.end());
      return own > 0 && !theirs.empty() && both.size() == own + theirs.size() && both == all();
    };
    EXPECT_TRUE(WaitFor(shared, 60'000)) << ids(**first).size() << " and " << ids(**second).size() << " of "
                                         << all().size();
    answers_with(**first, ids(**first));
    answers_with(**second, ids(**second));
    EXPECT_GT((*first)->applier().catalog().hidden(), 0U);
    EXPECT_TRUE(WaitFor(followed, 60'000));
    EXPECT_EQ((*follower)->applier().catalog().hidden(), (*first)->applier().catalog().hidden());
    EXPECT_OK((*first)->applier().Audit());
    ASSERT_OK((*second)->Stop());
  }
  // A static member is missed when its session is over. What changed meanwhile, the first reads from where it was.
  Send(&stream, 300);
  EXPECT_TRUE(WaitFor([&] { return ids(**first) == all(); }, 60'000));
  ASSERT_TRUE(WaitUntilApplied(**first));
  EXPECT_EQ((*first)->applier().catalog().hidden(), 0U);
  EXPECT_TRUE(WaitFor(followed, 60'000));
  EXPECT_EQ((*follower)->applier().catalog().hidden(), 0U);
  EXPECT_EQ(Differs(oracle_, (*first)->applier(), (*first)->store(), (*first)->recall()), "");
  // Back again, with the store it had.
  auto second = Engine::Start(config("second"));
  ASSERT_OK(second);
  EXPECT_TRUE(WaitFor(
      [&] { return ids(**first).size() + ids(**second).size() == all().size() && !ids(**second).empty(); }, 60'000));
  answers_with(**second, ids(**second));
}

// While this engine was away others may have been given its partitions: what it has stored of them it does not answer
// with before the group says that they are its own.
TEST_F(GroupTest, NothingIsAnsweredBeforeTheFirstAssignment) {
  // A group that begins waits so long for members.
  const KafkaBroker slow(dir_ / "slow", "", {"group.initial.rebalance.delay.ms=10000"});
  KafkaOptions kafka;
  kafka.bootstrap_servers = slow.bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  Config config = EngineConfig();
  config.kafka = kafka;
  config.assign_all = true;
  ItemStream stream(TestSeed(), "items", 50, kTestDim, /*null_keys=*/false);
  {
    auto engine = Engine::Start(config);
    ASSERT_OK(engine);
    std::vector<OutRecord> batch;
    for (int i = 0; i < 200; ++i) batch.push_back(stream.Next(&oracle_));
    ASSERT_OK((*producer)->Send(batch, kSendTimeout));
    sent_ = 200;
    ASSERT_TRUE(WaitUntilApplied(**engine));
    ASSERT_OK((*engine)->Stop());
  }
  const std::size_t all = oracle_.live().size();
  config.assign_all = false;
  {
    auto engine = Engine::Start(config);
    ASSERT_OK(engine);
    const Catalog& catalog = (*engine)->applier().catalog();
    const auto reply = HttpCall((*engine)->http_address(), "GET", "/readyz", "", 2'000);
    EXPECT_EQ(catalog.live(), 0U) << "not assigned yet, or this machine took ten seconds";
    EXPECT_EQ(catalog.hidden(), all);
    ASSERT_OK(reply);
    EXPECT_EQ(reply->status, 503);
    EXPECT_NE(reply->body.find("no partition is assigned"), std::string::npos) << reply->body;
    EXPECT_TRUE(WaitFor([&] { return catalog.live() == all; }, 60'000));
    EXPECT_TRUE(WaitFor([&] {
      const auto ready = HttpCall((*engine)->http_address(), "GET", "/readyz", "", 2'000);
      return ready.ok() && ready->status == 200;
    }));
    ASSERT_OK((*engine)->Stop());
  }
  // What is pinned is known from the start.
  config.assign = {0, 2};
  auto engine = Engine::Start(config);
  ASSERT_OK(engine);
  const Catalog& catalog = (*engine)->applier().catalog();
  const std::size_t at_once = catalog.live();
  EXPECT_GT(at_once, 0U);
  EXPECT_LT(at_once, all);
  EXPECT_EQ(at_once + catalog.hidden(), all);
  EXPECT_TRUE(WaitFor([&] { return (*engine)->applier().as_of_ms() > 0; }));
  EXPECT_EQ(catalog.live(), at_once);
}

// An engine that can go on with no record, because the registry is away, still gives up at once what the group gives to
// another.
TEST_F(GroupTest, PartitionsThatMoveDuringAStallLeaveTheAnswersAtOnce) {
  RegistryServer registry;
  registry.Set("/schemas/ids/7", {200, R"({"schemaType": "JSON", "schema": "{\"type\": \"object\"}"})"});
  ItemStream stream(TestSeed(), "items", 200, kTestDim, /*null_keys=*/false);
  const auto config = [&](const std::string& name) {
    Config one = EngineConfig();
    one.data_dir = dir_ / name;
    one.group_instance_id = name;
    one.session_timeout_ms = 6'000;
    one.changelog = false;
    one.registry.url = registry.url();
    one.registry.timeout_ms = 1'000;
    return one;
  };
  auto first = Engine::Start(config("first"));
  ASSERT_OK(first);
  Send(&stream, 500);
  ASSERT_TRUE(WaitUntilApplied(**first));
  const Catalog& catalog = (*first)->applier().catalog();
  const std::size_t all = oracle_.live().size();
  ASSERT_TRUE(WaitFor([&] { return catalog.live() == all; }));
  registry.SetDown(true);
  std::vector<OutRecord> framed(4);
  for (OutRecord& record : framed) {
    record.topic = "items";
    record.partition = static_cast<std::int32_t>(&record - framed.data());
    record.key = StrCat("framed-", record.partition);
    record.value = std::string("\0\0\0\0\7", 5) + R"({"vector": [1, 0, 0, 0, 0, 0, 0, 0]})";
  }
  ASSERT_OK(producer_->Send(framed, kSendTimeout));
  ASSERT_TRUE(WaitFor([&] { return registry.requests() > 0; }));
  auto second = Engine::Start(config("second"));
  ASSERT_OK(second);
  EXPECT_TRUE(WaitFor([&] { return catalog.hidden() > 0; }, 60'000));
  EXPECT_GT(catalog.live(), 0U);
  EXPECT_EQ(catalog.live() + catalog.hidden(), all) << "nothing was applied meanwhile";
  registry.SetDown(false);
  const Catalog& other = (*second)->applier().catalog();
  EXPECT_TRUE(WaitFor([&] { return catalog.live() + other.live() == all + framed.size(); }, 60'000))
      << catalog.live() << " and " << other.live() << " of " << all + framed.size();
}

// errors.tolerance: none. The first poison record ends the engine, and the next start meets it again.
TEST_F(GroupTest, WithoutToleranceTheFirstPoisonRecordEndsTheEngineBeforeItsOffset) {
  const std::string yaml = dir_ / "strict.yaml";
  ASSERT_OK(WriteFileAtomically(
      yaml, EngineYaml(broker_.bootstrap_servers(), dir_ / "strict", "all") + "errors.tolerance: none\n"));
  ASSERT_OK(CreateTopics(EngineConfig().kafka, {{"items", 1, true}}, kSendTimeout));
  OutRecord good;
  good.topic = "items";
  good.key = "good";
  good.value = R"({"vector":[1,0,0,0,0,0,0,0]})";
  OutRecord poison = good;
  poison.key = "poison";
  poison.value = "{not json";
  ASSERT_OK(producer_->Send({good, poison}, kSendTimeout));
  for (int start = 0; start < 2; ++start) {
    EXPECT_EQ(RunCommand({FreshetBinary(), "run", "--config", yaml}, nullptr), 1);
    std::string out;
    EXPECT_EQ(RunCommand({FreshetBinary(), "store", "dump", dir_ / "strict"}, &out), 0);
    EXPECT_EQ(out.find("poison"), std::string::npos) << out;
  }
}

// What left the stream is listed with its reasons, repaired, and put back.
TEST_F(GroupTest, DeadLettersAreListedRepairedAndPutBack) {
  const std::string yaml = dir_ / "engine.yaml";
  ASSERT_OK(WriteFileAtomically(yaml, EngineYaml(broker_.bootstrap_servers(), dir_ / "engine", "all")));
  auto engine = Engine::Start(*ParseConfig(*ReadFile(yaml), yaml, {}));
  ASSERT_OK(engine);
  std::vector<OutRecord> records;
  const std::int64_t hour_ago_ms = SystemClock().WallMs() - 3'600'000;
  for (const char* value : {"{}", R"({"vector":[1]})", R"({"vector":[2]})"}) {
    OutRecord record;
    record.topic = "items";
    record.key = StrCat("i", records.size());
    record.value = value;
    record.headers = {{"trace", "x"}};
    record.partition = static_cast<std::int32_t>(3 - records.size());  // wherever their keys would put them
    record.timestamp_ms = hour_ago_ms;
    records.push_back(record);
  }
  records[0].key = std::string("\xff\xfe", 2);
  ASSERT_OK(producer_->Send(records, kSendTimeout));
  std::string out;
  const auto list = [&](const std::vector<std::string>& more) {
    std::vector<std::string> command = {FreshetBinary(), "dead-letters", "list", "--config", yaml};
    command.insert(command.end(), more.begin(), more.end());
    out.clear();
    return RunCommand(command, &out);
  };
  ASSERT_TRUE(WaitFor([&] { return list({"--json"}) == 0 && out.find(R"("records":3)") != std::string::npos; }, 60'000))
      << out;
  EXPECT_NE(out.find(R"("records":2)"), std::string::npos) << "one reason, twice: " << out;
  EXPECT_NE(out.find("KEY_CONVERTER"), std::string::npos) << "a key that is no id: " << out;
  ASSERT_EQ(list({"--records"}), 0);
  EXPECT_NE(out.find(R"("key_hex":"fffe")"), std::string::npos) << out;
  std::string repaired;
  for (const std::string& line : Split(out, '\n')) {
    const std::size_t at = line.find(R"([1])");
    if (at != std::string::npos) repaired += line.substr(0, at) + "[1,0,0,0,0,0,0,0]" + line.substr(at + 3) + "\n";
  }
  ASSERT_FALSE(repaired.empty()) << out;
  const auto replay = [&](const std::string& lines) {
    EXPECT_OK(WriteFileAtomically(dir_ / "letters.jsonl", lines));
    return RunCommand({FreshetBinary(), "dead-letters", "replay", dir_ / "letters.jsonl", "--config", yaml}, nullptr);
  };
  EXPECT_EQ(replay(repaired), 0);
  EXPECT_TRUE(WaitFor([&] { return (*engine)->applier().catalog().LiveIds() == std::vector<std::string>{"i1"}; }));
  // In the partition that it came from, behind the broken one, with its time; what has no partition goes by its key.
  ASSERT_EQ(replay(R"({"topic":"items","key":"by key","value":null})"), 0);
  const auto all = [&] {
    std::string kept;
    EXPECT_EQ(RunCommand({"kcat", "-C", "-b", broker_.bootstrap_servers(), "-t", "items", "-e", "-q", "-f",
                          "%p@%o %k %T %h\n"},
                         &kept),
              0);
    return Split(kept, '\n');
  };
  const std::vector<std::string> kept = all();
  EXPECT_EQ(std::count(kept.begin(), kept.end(), StrCat("2@0 i1 ", hour_ago_ms, " trace=x")), 1) << "as it came";
  EXPECT_EQ(std::count(kept.begin(), kept.end(), StrCat("2@1 i1 ", hour_ago_ms, " trace=x")), 1)
      << "as it was put back";
  EXPECT_EQ(std::count_if(kept.begin(), kept.end(),
                          [&](const std::string& line) {
                            const std::vector<std::string> words = Split(line, ' ');
                            return words.size() > 3 && words[1] == "by" && ParseInt(words[3]).value_or(0) > hour_ago_ms;
                          }),
            1);
  for (const char* broken : {R"({"topic":"elsewhere","key":"a","value":null})",
                             R"({"topic":"items","partition":"4","key":"a","value":null})",
                             R"({"topic":"items","partition":-1,"key":"a","value":null})",
                             R"({"topic":"items","partition":"2x","key":"a","value":null})",
                             R"({"topic":"items","timestamp_ms":1.5,"key":"a","value":null})"}) {
    EXPECT_EQ(replay(broken), 1) << broken;
  }
  EXPECT_EQ(all().size(), kept.size());
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
