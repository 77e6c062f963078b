// The engine changes its model: sidecars answer in one embedding space or in the other, never in both.
#include <filesystem>

#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/embedded_broker.h"
#include "freshet_test/service.h"
#include "package_writer.h"
#include "tiny_model.h"

namespace freshet::test {
namespace {

namespace fs = std::filesystem;

// In A item "a" lies at (1, 0) and "b" at (0, 1), in B the other way about: whoever took "a" is nearest to "a" in both,
// and to "b" where tower and items are of two spaces.
PackageContents ModelA() { return TinyPackage(); }
PackageContents ModelB() {
  PackageContents contents = TinyPackage();
  for (FeatureSpec* spec : {&contents.manifest.item, &contents.manifest.user}) {
    spec->features[0].vocabulary = {"b", "a"};
    EXPECT_OK(spec->Finish());
  }
  contents.goldens.items[0].vector = {1, 2};
  return contents;
}

class SpaceMoveTest : public EmbeddedBrokerTest {
 protected:
  void SetUp() override {
    for (const char* item : {"a", "b", "c"}) Send("items", item, "{}");
    Send("interactions", "ann", R"({"user_id":"ann","item_id":"a","event":"view","timestamp":1700000000000})");
    auto written = WritePackage(ModelA(), dir_ / "models/a");
    ASSERT_OK(written);
    a_ = *written;
    written = WritePackage(ModelB(), dir_ / "models/b");
    ASSERT_OK(written);
    b_ = *written;
    ASSERT_NE(a_, b_);
  }
  Service Engine(const std::string& name, const std::string& package) const {
    const std::string yaml = EngineYaml(broker_->bootstrap_servers(), dir_ / (name + "/data"));
    return Service("run", dir_ / name,
                   StrCat(WithPackage(yaml, package, dir_.path()), "snapshots: {directory: ", dir_ / "snapshots",
                          ", interval_seconds: 0, at_stop: false}\n"));
  }
  Service Sidecar(const std::string& name, const std::string& package, const std::string& allowed_root,
                  bool with_snapshots) const {
    const std::string yaml = SidecarYaml(broker_->bootstrap_servers(), dir_ / (name + "/data"));
    return Service("sidecar", dir_ / name,
                   WithPackage(yaml, package, allowed_root) +
                       (with_snapshots ? StrCat("snapshots: {directory: ", dir_ / "snapshots", "}\n") : "") +
                       "ready: {max_lag_seconds: 1}\n");
  }
  // Once it is as new as what the sidecar answers.
  void TakeSnapshot(const std::string& engine, const Service& running, const Service& sidecar) const {
    ASSERT_TRUE(WaitFor([&] { return running.StatusOf("as_of_ms") > sidecar.StatusOf("as_of_ms"); }));
    ASSERT_EQ(
        RunCommand({FreshetBinary(), "snapshot", "create", "--config", dir_ / (engine + "/config.yaml")}, nullptr), 0);
  }
  // The space that it answers in now. Empty: it does not answer.
  std::string SpaceOf(const Service& service) {
    const auto reply = service.Call("POST", "/v1/recall", R"({"user": "ann", "k": 1})");
    if (!reply.ok()) return "";
    EXPECT_EQ(reply->status, 200) << reply->body;
    const auto answer = ParseJson(reply->body);
    EXPECT_OK(answer);
    const JsonValue& results = *JsonFind(**answer, "results");
    EXPECT_EQ(results.Size(), 1U) << reply->body;
    EXPECT_EQ(JsonText(*JsonFind(results[0], "id")), "a") << "tower and items are of two spaces: " << reply->body;
    EXPECT_NEAR(JsonFind(results[0], "score")->GetDouble(), 0, 1e-6) << reply->body;
    return std::string(JsonText(*JsonFind(**answer, "model_version")));
  }
  // Waits until the sidecar has moved from A to B; of what it answers meanwhile everything is of one space.
  void WaitForTheMove(const Service& sidecar) {
    bool back = false;
    bool moved = false;
    ASSERT_TRUE(WaitFor(
        [&] {
          const std::string space = SpaceOf(sidecar);
          back |= moved && space == a_;
          moved |= space == b_;
          return moved;
        },
        kServiceUpMs));
    EXPECT_FALSE(back);
    EXPECT_EQ(sidecar.StatusOf("items_live"), 3);
    EXPECT_EQ(sidecar.MetricOf("freshet_other_space"), 0);
  }
  static bool ReadySays(const Service& sidecar, const std::string& what) {
    const auto reply = sidecar.Call("GET", "/readyz");
    return reply.ok() && reply->status == 503 && reply->body.find(what) != std::string::npos;
  }

  std::string a_, b_;  // spaces
};

TEST_F(SpaceMoveTest, ASidecarMovesWithTheModelOfTheSnapshot) {
  Service first = Engine("first", dir_ / "models/a");
  first.Start();
  ASSERT_TRUE(first.WaitUntilUp());
  Service sidecar = Sidecar("sidecar", dir_ / "models/a", dir_.path(), true);
  sidecar.Start();
  ASSERT_TRUE(sidecar.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return sidecar.StatusOf("items_live") == 3 && sidecar.StatusOf("users") == 1; }));
  EXPECT_EQ(SpaceOf(sidecar), a_);
  ASSERT_EQ(first.StopGracefully(), 0);

  // The new engine: another model, a store of its own. The sidecar sees it and stays what it is.
  Service second = Engine("second", dir_ / "models/b");
  second.Start();
  ASSERT_TRUE(second.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return second.StatusOf("items_live") == 3; }));
  ASSERT_TRUE(WaitFor([&] { return sidecar.MetricOf("freshet_other_space") == 1; }));
  ASSERT_TRUE(WaitFor([&] { return ReadySays(sidecar, "has moved to embedding space " + b_); }));
  EXPECT_EQ(SpaceOf(sidecar), a_);
  EXPECT_EQ(sidecar.StatusOf("items_live"), 3);

  ASSERT_NO_FATAL_FAILURE(TakeSnapshot("second", second, sidecar));
  ASSERT_NO_FATAL_FAILURE(WaitForTheMove(sidecar));
  Send("items", "d", "{}");
  ASSERT_TRUE(WaitFor([&] { return sidecar.StatusOf("items_live") == 4; })) << "it follows on";
  EXPECT_TRUE(fs::exists(sidecar.data() + "/damaged")) << "what it had is kept";

  // It stays there, whatever package its configuration still names.
  ASSERT_EQ(sidecar.StopGracefully(), 0);
  sidecar.Start();
  ASSERT_TRUE(sidecar.WaitUntilUp());
  EXPECT_EQ(SpaceOf(sidecar), b_);
  EXPECT_EQ(sidecar.StatusOf("items_live"), 4);

  // Without snapshots, from a log that the older model began.
  Service fresh = Sidecar("fresh", dir_ / "models/b", dir_.path(), false);
  fresh.Start();
  ASSERT_TRUE(fresh.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return fresh.StatusOf("items_live") == 4 && fresh.StatusOf("users") == 1; }));
  EXPECT_EQ(SpaceOf(fresh), b_);
  EXPECT_GT(fresh.MetricOf("freshet_follow_other_space_total"), 0);
  ASSERT_EQ(fresh.StopGracefully(), 0);
  ASSERT_EQ(sidecar.StopGracefully(), 0);
  ASSERT_EQ(second.StopGracefully(), 0);
}

// A package is executable code: it is not taken from where the configuration does not allow it.
TEST_F(SpaceMoveTest, ASidecarMovesWithTheModelThatItIsGiven) {
  ASSERT_OK(WritePackage(ModelA(), dir_ / "own/current"));
  Service first = Engine("first", dir_ / "models/a");
  first.Start();
  ASSERT_TRUE(first.WaitUntilUp());
  Service sidecar = Sidecar("sidecar", dir_ / "own/current", dir_ / "own", true);
  sidecar.Start();
  ASSERT_TRUE(sidecar.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return sidecar.StatusOf("items_live") == 3 && sidecar.StatusOf("users") == 1; }));
  ASSERT_EQ(first.StopGracefully(), 0);
  Service second = Engine("second", dir_ / "models/b");
  second.Start();
  ASSERT_TRUE(second.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return second.StatusOf("items_live") == 3; }));
  ASSERT_NO_FATAL_FAILURE(TakeSnapshot("second", second, sidecar));
  ASSERT_TRUE(WaitFor([&] { return ReadySays(sidecar, "put its model package at " + dir_ / "own/current"); }));
  EXPECT_EQ(SpaceOf(sidecar), a_);
  ASSERT_OK(WritePackage(ModelB(), dir_ / "own/current"));
  ASSERT_NO_FATAL_FAILURE(WaitForTheMove(sidecar));
  EXPECT_FALSE(fs::exists(sidecar.data() + "/model"));

  // One that was away over all of this, with the new package in place, does the same at its start; so does not one
  // for whose package there is no snapshot.
  ASSERT_EQ(sidecar.StopGracefully(), 0);
  ASSERT_OK(WritePackage(ModelA(), dir_ / "own/current"));
  sidecar.Start();
  EXPECT_EQ(sidecar.process().Wait(kServiceUpMs), 69) << "no snapshot is of that space";
  ASSERT_OK(WritePackage(ModelB(), dir_ / "own/current"));
  sidecar.Start();
  ASSERT_TRUE(sidecar.WaitUntilUp());
  EXPECT_EQ(SpaceOf(sidecar), b_);
  ASSERT_EQ(sidecar.StopGracefully(), 0);
  ASSERT_EQ(second.StopGracefully(), 0);
}

// An engine never mixes either: a store of another model's vectors is not opened, and the refusal says what to do.
TEST_F(SpaceMoveTest, AnEngineWithAnotherModelRefusesTheOldStore) {
  Service engine = Engine("engine", dir_ / "models/a");
  engine.Start();
  ASSERT_TRUE(engine.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return engine.StatusOf("items_live") == 3 && engine.StatusOf("users") == 1; }));
  ASSERT_EQ(engine.StopGracefully(), 0);
  ASSERT_OK(WritePackage(ModelB(), dir_ / "models/a"));
  engine.Start();
  EXPECT_EQ(engine.process().Wait(kServiceUpMs), 1);
  const auto log = ReadFile(dir_ / "engine/log");
  ASSERT_OK(log);
  EXPECT_NE(log->find("or an empty data_dir to embed all again"), std::string::npos) << *log;
  // As it says.
  fs::remove_all(engine.data());
  engine.Start();
  ASSERT_TRUE(engine.WaitUntilUp());
  ASSERT_TRUE(WaitFor([&] { return engine.StatusOf("items_live") == 3 && engine.StatusOf("users") == 1; }));
  EXPECT_EQ(SpaceOf(engine), b_);
  ASSERT_EQ(engine.StopGracefully(), 0);
}

}  // namespace
}  // namespace freshet::test
