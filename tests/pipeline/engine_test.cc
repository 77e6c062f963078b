// One test a line of "What must always hold" that is about the engine as a whole, and how it starts, stops and fails.
#include "freshet/deploy/engine.h"

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/sidecar.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/http_client.h"
#include "freshet_test/checks.h"
#include "freshet_test/configs.h"
#include "freshet_test/embedded_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

class EngineTest : public EmbeddedBrokerTest {
 protected:
  ~EngineTest() override { EXPECT_OK(ArmFaults("")); }

  [[nodiscard]] Config EngineConfig(const std::vector<std::string>& overrides = {}) const {
    auto config = ParseConfig(EngineYaml(broker_->bootstrap_servers(), dir_ / "engine"), "engine.yaml", overrides);
    EXPECT_OK(config);
    return *config;
  }
  void Put(const std::string& id, float x) { Send("items", id, StrCat(R"({"vector":[)", x, ",1,0,0,0,0,0,0]}")); }
  void Delete(const std::string& id) { Send("items", id, std::nullopt); }
  [[nodiscard]] static bool WaitForLive(const Applier& applier, std::size_t live) {
    return WaitFor([&] { return applier.catalog().live() == live; });
  }
};

// Invariant 3: a deleted item is in no answer, not after a restart either, and a re-add brings it back.
TEST_F(EngineTest, ADeleteIsExactAndAReAddBringsTheItemBack) {
  Put("a", 1);
  Put("b", -1);
  {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    ASSERT_TRUE(WaitForLive((*engine)->applier(), 2));
    Delete("a");
    ASSERT_TRUE(WaitForLive((*engine)->applier(), 1));
    RecallRequest request;
    request.item = "a";
    EXPECT_EQ((*engine)->recall().Recall(request).status().code(), Code::kNotFound);
    ASSERT_OK((*engine)->Stop());
  }
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  EXPECT_EQ((*engine)->applier().catalog().LiveIds(), std::vector<std::string>{"b"});
  Put("a", 0.5F);
  ASSERT_TRUE(WaitForLive((*engine)->applier(), 2));
  EXPECT_OK((*engine)->applier().Audit());
}

// Invariant 7: vectors of one space are never answered or extended by a model of another.
TEST_F(EngineTest, AStoreOfAnotherEmbeddingSpaceIsRefusedWithBothNames) {
  {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    ASSERT_OK((*engine)->Stop());
  }
  const auto refused = Engine::Start(EngineConfig({"encoder.metric=l2"}));
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("passthrough-8-cosine"), std::string::npos);
  EXPECT_NE(refused.status().message().find("passthrough-8-l2"), std::string::npos);
}

TEST_F(EngineTest, ASidecarOfAnotherSpaceStopsInsteadOfMixing) {
  Put("a", 1);
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ASSERT_TRUE(
      WaitFor([&] { return (*engine)->applier().catalog().live() == 1 && (*engine)->store().outbox_records() == 0; }));
  auto config =
      ParseConfig(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {"encoder.metric=l2"});
  ASSERT_OK(config);
  auto sidecar = Sidecar::Start(*config);
  ASSERT_OK(sidecar);
  EXPECT_TRUE(WaitFor([&] { return !(*sidecar)->status().ok(); }));
  EXPECT_EQ((*sidecar)->status().code(), Code::kFailedPrecondition);
  EXPECT_EQ((*sidecar)->applier().catalog().live(), 0U);
}

// Every stage's failure stops the engine, is told, and loses nothing: the next start goes on.
TEST_F(EngineTest, AFailedCommitStopsTheEngineAndTheNextStartContinues) {
  Put("a", 1);
  for (const char* plan :
       {"store.before_write=stop@1", "store.after_write=stop@1", "applier.between_index_and_catalog=stop@1"}) {
    SCOPED_TRACE(plan);
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    ASSERT_OK(ArmFaults(plan));
    Put(StrCat("after ", plan), 1);
    EXPECT_TRUE(WaitFor([&] { return !(*engine)->status().ok(); }));
    EXPECT_FALSE((*engine)->Stop().ok());
    ASSERT_OK(ArmFaults(""));
  }
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  EXPECT_TRUE(WaitForLive((*engine)->applier(), 4));
  EXPECT_OK((*engine)->applier().Audit());
}

// Invariant 8: the outbox is at least once. What was sent but not trimmed is sent again and changes nothing.
// Followers drop what an older store says: of two engines that publish to the same topics, the older must not go on as
// if it were heard.
TEST_F(EngineTest, AnotherEngineOnTheSameChangelogEndsTheOlderOne) {
  Config config = EngineConfig();
  config.changelog_check_ms = 100;
  auto older = Engine::Start(config);
  ASSERT_OK(older);
  Put("a", 1);
  ASSERT_TRUE(WaitForLive((*older)->applier(), 1));
  EXPECT_OK((*older)->status());
  Config another = config;
  another.data_dir = dir_ / "another";
  auto newer = Engine::Start(another);
  ASSERT_OK(newer);
  ASSERT_TRUE(WaitFor([&] { return !(*older)->status().ok(); }));
  const Status fenced = (*older)->status();
  EXPECT_EQ(fenced.code(), Code::kFailedPrecondition);
  EXPECT_NE(fenced.message().find("Give each engine topics of its own"), std::string::npos) << fenced.ToString();
  EXPECT_FALSE((*older)->Stop().ok());
  older->reset();
  const Status again = Engine::Start(config).status();
  EXPECT_NE(again.message().find("holds the changelog of a newer store"), std::string::npos) << again.ToString();
  EXPECT_OK((*newer)->status());
  ASSERT_OK((*newer)->Stop());
  newer->reset();
  newer = Engine::Start(another);
  ASSERT_OK(newer);
  ASSERT_OK((*newer)->Stop());
}

TEST_F(EngineTest, RepublishedChangesChangeNothingAtTheSidecar) {
  {
    auto engine = Engine::Start(EngineConfig());
    ASSERT_OK(engine);
    ASSERT_OK(ArmFaults("outbox.before_trim=stop@1"));
    Put("a", 1);
    EXPECT_TRUE(WaitFor([&] { return !(*engine)->status().ok(); }));
    EXPECT_FALSE((*engine)->Stop().ok());
    ASSERT_OK(ArmFaults(""));
  }
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  Delete("a");
  Put("b", 1);
  auto config = ParseConfig(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {});
  ASSERT_OK(config);
  auto sidecar = Sidecar::Start(*config);
  ASSERT_OK(sidecar);
  const std::int64_t sent_ms = SystemClock().WallMs();
  ASSERT_TRUE(WaitFor([&] { return (*sidecar)->applier().as_of_ms() >= sent_ms; }));
  EXPECT_EQ((*engine)->applier().sequence(), 3U);
  EXPECT_EQ((*sidecar)->applier().sequence(), 3U);
  EXPECT_EQ((*sidecar)->applier().catalog().LiveIds(), std::vector<std::string>{"b"});
}

// Answers say how fresh they are, and the sidecar's word includes the engine's.
TEST_F(EngineTest, AsOfMovesOnWhileNothingArrivesAndStandsStillWithoutTheEngine) {
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  auto config = ParseConfig(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {});
  ASSERT_OK(config);
  auto sidecar = Sidecar::Start(*config);
  ASSERT_OK(sidecar);
  ASSERT_TRUE(WaitFor([&] { return (*sidecar)->applier().as_of_ms() > 0; }));
  const std::int64_t first = (*sidecar)->applier().as_of_ms();
  EXPECT_TRUE(WaitFor([&] { return (*sidecar)->applier().as_of_ms() > first; }));
  EXPECT_LE((*sidecar)->applier().as_of_ms(), (*engine)->applier().as_of_ms());
  const auto ready = HttpCall((*sidecar)->http_address(), "GET", "/readyz", "", 2'000);
  ASSERT_OK(ready);
  EXPECT_EQ(ready->status, 200);
}

// The engine is gone: what the sidecar has is answered, said to be as old as it is, and past the bound it is not ready.
TEST_F(EngineTest, PastTheBoundASidecarAnswersAndIsNotReady) {
  Put("a", 1);
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  auto config = ParseConfig(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml",
                            {"ready.max_lag_seconds=1"});
  ASSERT_OK(config);
  auto sidecar = Sidecar::Start(*config);
  ASSERT_OK(sidecar);
  const auto get = [&](const char* path) {
    auto reply = HttpCall((*sidecar)->http_address(), "GET", path, "", 10'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  };
  ASSERT_TRUE(WaitForLive((*sidecar)->applier(), 1));
  ASSERT_TRUE(WaitFor([&] { return get("/readyz").status == 200; }));
  ASSERT_OK((*engine)->Stop());
  engine->reset();
  HttpReply ready;
  ASSERT_TRUE(WaitFor([&] {
    ready = get("/readyz");
    return ready.status == 503;
  }));
  EXPECT_NE(ready.body.find("s behind the log, the bound is 1"), std::string::npos) << ready.body;
  EXPECT_EQ(get("/livez").status, 200);
  EXPECT_EQ(get("/startupz").status, 200);
  const std::int64_t as_of_ms = (*sidecar)->applier().as_of_ms();
  const auto status = ParseJson(get("/v1/status").body);
  ASSERT_OK(status);
  EXPECT_EQ(JsonFind(**status, "as_of_ms")->GetInt64(), as_of_ms) << "it stands still";
  EXPECT_GT(JsonFind(**status, "lag_seconds")->GetDouble(), 1);
  EXPECT_EQ(JsonFind(**status, "lag_records")->GetInt64(), 0) << "there is nothing to read";
  const auto answer =
      HttpCall((*sidecar)->http_address(), "POST", "/v1/recall", R"({"vector":[1,0,0,0,0,0,0,0],"k":5})", 10'000);
  ASSERT_OK(answer);
  EXPECT_EQ(answer->status, 200);
  EXPECT_NE(answer->body.find(StrCat("\"as_of_ms\":", as_of_ms)), std::string::npos) << answer->body;

  auto again = Engine::Start(EngineConfig());
  ASSERT_OK(again);
  EXPECT_TRUE(WaitFor([&] { return get("/readyz").status == 200; }));
  EXPECT_GT((*sidecar)->applier().as_of_ms(), as_of_ms);
}

// A restart while Kafka is away is no outage: what is stored is answered, said to be old, and followed later.
TEST_F(EngineTest, ASidecarStartsWithoutABrokerFromItsOwnState) {
  Put("a", 1);
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  auto config = ParseConfig(SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar"), "sidecar.yaml", {});
  ASSERT_OK(config);
  {
    auto sidecar = Sidecar::Start(*config);
    ASSERT_OK(sidecar);
    ASSERT_TRUE(WaitForLive((*sidecar)->applier(), 1));
    ASSERT_OK((*sidecar)->Stop());
  }
  ASSERT_OK(broker_->SetUp(false));
  auto sidecar = Sidecar::Start(*config);
  ASSERT_OK(sidecar);
  const auto reply =
      HttpCall((*sidecar)->http_address(), "POST", "/v1/recall", R"({"vector":[1,0,0,0,0,0,0,0],"k":5})", 2'000);
  ASSERT_OK(reply);
  EXPECT_NE(reply->body.find("\"a\""), std::string::npos) << reply->body;
  const auto ready = HttpCall((*sidecar)->http_address(), "GET", "/readyz", "", 2'000);
  ASSERT_OK(ready);
  EXPECT_EQ(ready->status, 503);
  EXPECT_NE(ready->body.find("Kafka could not be reached yet"), std::string::npos) << ready->body;
  ASSERT_OK(broker_->SetUp(true));
  Put("b", 2);
  EXPECT_TRUE(WaitForLive((*sidecar)->applier(), 2));
  EXPECT_OK((*sidecar)->status());
  ASSERT_OK((*sidecar)->Stop());
  ASSERT_OK((*engine)->Stop());
}

TEST_F(EngineTest, AnswersOverHttpAndCountsWhatItDid) {
  Put("a", 1);
  auto engine = Engine::Start(EngineConfig());
  ASSERT_OK(engine);
  ASSERT_TRUE(WaitForLive((*engine)->applier(), 1));
  const auto reply =
      HttpCall((*engine)->http_address(), "POST", "/v1/recall", R"({"vector":[1,0,0,0,0,0,0,0],"k":5})", 2'000);
  ASSERT_OK(reply);
  EXPECT_EQ(reply->status, 200);
  const auto json = ParseJson(reply->body);
  ASSERT_OK(json);
  EXPECT_EQ(JsonFind(**json, "results")->Size(), 1U);
  const auto metrics = HttpCall((*engine)->http_address(), "GET", "/metrics", "", 2'000);
  ASSERT_OK(metrics);
  for (const char* name : {"freshet_build_info", "freshet_items_live 1", "freshet_freshness_seconds_count",
                           "freshet_ingest_records_total", "freshet_commits_total"}) {
    EXPECT_NE(metrics->body.find(name), std::string::npos) << name;
  }
}

TEST(CommandLine, HelpWrongUsageAndWrongConfigHaveTheirExitCodes) {
  std::string out;
  EXPECT_EQ(RunCommand({FreshetBinary(), "--help"}, &out), 0);
  for (const char* name : {"run", "sidecar", "broker", "import", "replay", "train", "query", "config", "store"}) {
    EXPECT_NE(out.find(name), std::string::npos);
    std::string help;
    EXPECT_EQ(RunCommand({FreshetBinary(), name, "--help"}, &help), 0) << name;
  }
  EXPECT_EQ(RunCommand({FreshetBinary(), "runn"}, nullptr), 2);
  EXPECT_EQ(RunCommand({FreshetBinary()}, nullptr), 2);
  const TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "bad.yaml", "kafka:\n  bootstrap_server: x\n"));
  EXPECT_EQ(RunCommand({FreshetBinary(), "run", "--config", dir / "bad.yaml"}, nullptr), 78);
  EXPECT_EQ(RunCommand({FreshetBinary(), "run", "--config", dir / "missing.yaml"}, nullptr), 78);
}

}  // namespace
}  // namespace freshet::test
