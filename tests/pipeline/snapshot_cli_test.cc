// The commands of deploy/docs/operations.md, as an operator runs them, on a running engine and its sidecar.
#include <csignal>
#include <filesystem>
#include <random>

#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/embedded_broker.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(60);

class SnapshotCliTest : public EmbeddedBrokerTest {
 protected:
  void SetUp() override {
    const std::string snapshots = StrCat("snapshots: {directory: ", S(), ", interval_seconds: 0}\n");
    engine_ = std::make_unique<Service>("run", dir_ / "engine",
                                        EngineYaml(broker_->bootstrap_servers(), dir_ / "engine/data") + snapshots +
                                            "admin: {listen: \"127.0.0.1:0\"}\n");
    sidecar_ = std::make_unique<Service>("sidecar", dir_ / "sidecar",
                                         SidecarYaml(broker_->bootstrap_servers(), dir_ / "sidecar/data") + snapshots);
  }
  [[nodiscard]] std::string S() const { return dir_ / "snapshots"; }
  [[nodiscard]] std::string C() const { return dir_ / "engine/config.yaml"; }
  void Put(int from, int to) {
    std::vector<OutRecord> records;
    for (int i = from; i < to; ++i) {
      OutRecord& record = records.emplace_back();
      record.topic = "items";
      record.key = StrCat("item-", i);
      record.value = StrCat(R"({"attributes":{"title":"t)", i, R"("},"vector":[)", i + 1, ",1,0,0,0,0,0,0]}");
    }
    ASSERT_OK(producer_->Send(records, kSendTimeout));
  }
  [[nodiscard]] bool WaitForItems(const Service& service, int live) {
    return WaitFor([&] { return service.StatusOf("items_live") == live; });
  }
  static std::unique_ptr<JsonDocument> Json(const std::vector<std::string>& arguments, int exit_code = 0) {
    std::vector<std::string> command = {FreshetBinary()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.emplace_back("--json");
    std::string out;
    EXPECT_EQ(RunCommand(command, &out), exit_code) << arguments[0] << " " << arguments[1];
    auto json = ParseJson(out);
    EXPECT_TRUE(json.ok()) << out;
    return json.ok() ? std::move(*json) : std::make_unique<JsonDocument>();
  }
  static int Run(const std::vector<std::string>& arguments, std::string* out = nullptr) {
    std::vector<std::string> command = {FreshetBinary()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return RunCommand(command, out);
  }
  // What /v1/status says of the snapshot that this start began from.
  static std::string RestoredFrom(const Service& service) {
    const auto address = ReadFile(service.data() + "/../address");
    if (!address.ok()) return "no address";
    const auto reply = HttpCall(std::string(Trim(*address)), "GET", "/v1/status", "", 2'000);
    if (!reply.ok()) return "no answer";
    const auto json = ParseJson(reply->body);
    return json.ok() ? std::string(JsonText(*JsonFind(*JsonFind(**json, "store"), "restored_from"))) : "no JSON";
  }

  std::unique_ptr<Service> engine_;
  std::unique_ptr<Service> sidecar_;
};

TEST_F(SnapshotCliTest, EveryCommandDoesWhatThePageSays) {
  EXPECT_EQ(Run({"snapshot", "create", "--config", C()}), 1);  // no engine runs
  engine_->Start();
  ASSERT_TRUE(engine_->WaitUntilUp());
  Put(0, 20);
  ASSERT_TRUE(WaitForItems(*engine_, 20));
  const auto created = Json({"snapshot", "create", "--config", C()});
  const std::string first(JsonText(*JsonFind((*JsonFind(*created, "snapshots"))[0], "id")));
  Put(20, 30);
  ASSERT_TRUE(WaitForItems(*engine_, 30));
  const std::string address(Trim(*ReadFile(dir_ / "engine/address")));
  const auto status = HttpCall(address, "GET", "/v1/status", "", 2'000);
  ASSERT_OK(status);
  const std::string admin(JsonText(*JsonFind(**ParseJson(status->body), "admin_address")));
  EXPECT_EQ(HttpCall(address, "POST", "/v1/admin/snapshots", "", 2'000)->status, 404);
  const auto asked = HttpCall(admin, "POST", "/v1/admin/snapshots", "", 2'000);
  ASSERT_OK(asked);
  EXPECT_EQ(asked->status, 202);
  const auto repository_size = [&] {
    return JsonFind(*Json({"snapshot", "list", "--directory", S()}), "snapshots")->Size();
  };
  ASSERT_TRUE(WaitFor([&] { return repository_size() == 2; }));
  const auto listed = Json({"snapshot", "list", "--config", C()});
  const std::string second(JsonText(*JsonFind((*JsonFind(*listed, "snapshots"))[0], "id")));
  EXPECT_NE(second, first);
  EXPECT_EQ(Run({"snapshot", "verify", "--config", C()}), 0);
  EXPECT_EQ(Run({"snapshot", "verify", "--directory", dir_ / "nowhere"}), 1) << "there are none";
  const auto diff = Json({"snapshot", "diff", "--config", C(), first, second});
  EXPECT_EQ(JsonFind(*diff, "items")->GetInt64(), 10);
  EXPECT_EQ(
      JsonFind(*Json({"snapshot", "prune", "--config", C(), "--keep-count", "1", "--dry-run"}), "removed")->Size(), 1U);
  EXPECT_EQ(Run({"snapshot", "restore", "--config", C()}), 1);  // the engine holds the directory
  ASSERT_EQ(engine_->StopGracefully(), 0);
  EXPECT_EQ(repository_size(), 2U);  // nothing was committed since

  // A machine of its own: by hand, then what the page says of looking at it.
  const std::string D = dir_ / "by-hand";
  EXPECT_EQ(JsonFind(*Json({"snapshot", "restore", "--directory", S(), "--data-dir", D}), "items")->GetInt64(), 30);
  const auto verified = Json({"store", "verify", D});
  EXPECT_EQ(JsonFind(*verified, "items")->GetInt64(), 30);
  EXPECT_EQ(JsonFind(*verified, "differences")->GetInt64(), 0);
  EXPECT_EQ(JsonFind(*JsonFind(*verified, "index_file"), "live")->GetInt64(), 30);
  std::string dump;
  EXPECT_EQ(Run({"store", "dump", D}, &dump), 0);
  EXPECT_NE(dump.find("item-29"), std::string::npos);
  EXPECT_EQ(Run({"snapshot", "restore", "--directory", S(), "--data-dir", dir_ / "follower", "--follower"}), 0);

  // Rolled back, the engine reads what came since again; so it does from an empty directory, by itself.
  EXPECT_EQ(Run({"snapshot", "restore", "--config", C(), "--snapshot", first}), 0);
  EXPECT_TRUE(FileExists(dir_ / "engine/data/damaged/CURRENT"));
  EXPECT_EQ(JsonFind(*Json({"store", "verify", dir_ / "engine/data"}), "items")->GetInt64(), 20);
  engine_->Start();
  ASSERT_TRUE(engine_->WaitUntilUp());
  ASSERT_TRUE(WaitForItems(*engine_, 30));
  EXPECT_EQ(RestoredFrom(*engine_), first) << "by hand, before it started";
  engine_->Kill();
  std::filesystem::remove_all(dir_ / "engine/data");
  engine_->Start();
  ASSERT_TRUE(engine_->WaitUntilUp());
  EXPECT_EQ(RestoredFrom(*engine_), second);
  ASSERT_TRUE(WaitForItems(*engine_, 30));
  engine_->Kill();
  engine_->Start();
  ASSERT_TRUE(engine_->WaitUntilUp());
  EXPECT_EQ(RestoredFrom(*engine_), second) << "whatever starts came after it";
  ASSERT_EQ(engine_->StopGracefully(), 0);

  // A damaged one is named, by list and by exit code.
  std::filesystem::remove(S() + "/" + second + "/store/CURRENT");
  std::string out;
  EXPECT_EQ(Run({"snapshot", "verify", "--config", C()}, &out), 1);
  EXPECT_NE(out.find("store/CURRENT: missing"), std::string::npos) << out;
  // The only whole one stays, though it is the oldest; what is newer is left to be looked at.
  const auto there = Json({"snapshot", "list", "--config", C()});
  for (const JsonValue& entry : JsonFind(*there, "snapshots")->GetArray()) {
    const std::string id(JsonText(*JsonFind(entry, "id")));
    if (id != first) std::filesystem::remove(S() + "/" + id + "/store/CURRENT");
  }
  const std::size_t before = repository_size();
  EXPECT_GE(before, 2U);
  const auto pruned = Json({"snapshot", "prune", "--config", C(), "--keep-count", "1"});
  EXPECT_EQ(JsonFind(*pruned, "removed")->Size(), 0U);
  EXPECT_EQ(repository_size(), before);
  EXPECT_EQ(Run({"snapshot", "verify", "--config", C(), first}), 0);
  EXPECT_EQ(
      JsonFind(*Json({"snapshot", "restore", "--directory", S(), "--data-dir", dir_ / "last"}), "items")->GetInt64(),
      20);
}

// A sidecar that was away for longer than user-events is kept takes the newest snapshot.
TEST_F(SnapshotCliTest, ASidecarThatFellBehindIsRestored) {
  engine_->Start();
  sidecar_->Start();
  ASSERT_TRUE(engine_->WaitUntilUp());
  ASSERT_TRUE(sidecar_->WaitUntilUp());
  Put(0, 5);
  ASSERT_TRUE(WaitForItems(*sidecar_, 5));
  EXPECT_EQ(RestoredFrom(*sidecar_), "");
  ASSERT_EQ(sidecar_->StopGracefully(), 0);
  // The embedded broker keeps 5 MiB of a partition, compressed: six bits a character leave 7 and more of these 10.
  static constexpr std::string_view kCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::mt19937_64 random(TestSeed());
  std::vector<OutRecord> records;
  for (int i = 0; i < 5'000; ++i) {
    std::string event;
    while (event.size() < 4'000) event += kCharacters[random() % kCharacters.size()];
    OutRecord& record = records.emplace_back();
    record.topic = "interactions";
    record.key = StrCat("u", i % 50);
    record.value = StrCat(R"({"item_id":"item-1","event":")", event, R"(","timestamp":)", i + 1, "}");
    if (records.size() == 250) {
      ASSERT_OK(producer_->Send(records, kSendTimeout));
      records.clear();
      // The engine must not fall behind the embedded broker itself.
      ASSERT_TRUE(WaitFor([&] { return engine_->StatusOf("sequence") == 5 + i + 1; }));
    }
  }
  ASSERT_TRUE(WaitFor([&] {
    return engine_->StatusOf("users") == 50 && engine_->StatusOf("lag_records") == 0 &&
           engine_->StatusOf("outbox_records") == 0;
  }));
  const auto created = Json({"snapshot", "create", "--config", C()});
  sidecar_->Start();
  ASSERT_TRUE(sidecar_->WaitUntilUp());
  EXPECT_EQ(RestoredFrom(*sidecar_), std::string(JsonText(*JsonFind((*JsonFind(*created, "snapshots"))[0], "id"))));
  ASSERT_TRUE(WaitFor([&] { return sidecar_->StatusOf("users") == 50; }));
  ASSERT_EQ(sidecar_->StopGracefully(), 0);
  ASSERT_EQ(engine_->StopGracefully(), 0);
  EXPECT_EQ(DumpOf(sidecar_->data()).histories, DumpOf(engine_->data()).histories);
}

}  // namespace
}  // namespace freshet::test
