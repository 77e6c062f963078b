// An engine whose disk is full, as its operator sees it: /readyz says why, answers go on, and so does everything else
// when there is room. The same at every step of a checkpoint and of a restore.
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "freshet/ingest/kafka.h"
#include "freshet/store/snapshotter.h"
#include "freshet_test/configs.h"
#include "freshet_test/service.h"

namespace freshet::test {
namespace {

constexpr auto kSendTimeout = std::chrono::seconds(60);

// A shell with a mount namespace of its own.
std::vector<std::string> Apart(const std::string& script) {
  std::vector<std::string> command = {"unshare", "--mount"};
  if (::geteuid() != 0) command.emplace_back("--map-root-user");
  command.insert(command.end(), {"sh", "-c", script});
  return command;
}

// `mount`: of the disk. The engine's process id goes to dir/pid.
std::string EngineOn(const TempDir& dir, const std::string& mount) {
  return StrCat(mount, " && echo $$ > ", dir / "pid", " && exec ", FreshetBinary(), " run --config ",
                dir / "engine.yaml", " --address-file ", dir / "address");
}

TEST(FullDisk, ReadyzSaysSoAnswersGoOnAndNothingIsLost) {
  const TempDir dir;
  ASSERT_OK(CreateDirectories(dir / "disk"));
  auto broker = StartMockBroker();
  ASSERT_OK(broker);
  for (const char* topic : {"items", "interactions", "users", "dead-letters"}) {
    ASSERT_OK((*broker)->CreateTopic(topic, 1));
  }
  KafkaOptions kafka;
  kafka.bootstrap_servers = (*broker)->bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  ASSERT_OK(WriteFileAtomically(dir / "engine.yaml", EngineYaml(kafka.bootstrap_servers, dir / "disk/data") +
                                                         "changelog: {enabled: false}\n"
                                                         "store: {write_buffer_bytes: 1048576}\n"));
  // A disk of its own, in a mount namespace of its own.
  const std::string mount = StrCat("mount -t tmpfs -o size=24m none ", dir / "disk");
  if (RunCommand(Apart(mount), nullptr) != 0) GTEST_SKIP() << "a mount namespace is not allowed here";
  Process engine(Apart(EngineOn(dir, mount)), dir / "log");
  ASSERT_TRUE(WaitFor([&] { return FileExists(dir / "address") || !engine.running(); }, kServiceUpMs));
  ASSERT_TRUE(engine.running()) << *ReadFile(dir / "log");
  const std::string address(Trim(*ReadFile(dir / "address")));
  const std::string disk = StrCat("/proc/", Trim(*ReadFile(dir / "pid")), "/root", dir / "disk");

  int sent = 0;
  const auto put = [&] {
    OutRecord record;
    record.topic = "items";
    record.key = StrCat("item-", sent++);
    record.value =
        StrCat(R"({"vector":[)", sent, R"(,1,0,0,0,0,0,0],"attributes":{"text":")", std::string(2'000, 'x'), R"("}})");
    ASSERT_OK((*producer)->Send({record}, kSendTimeout));
  };
  const auto get = [&](const std::string& path) {
    auto reply = HttpCall(address, "GET", path, "", 5'000);
    return reply.ok() ? StrCat(reply->status, " ", reply->body) : reply.status().ToString();
  };
  put();
  ASSERT_TRUE(WaitFor([&] { return get("/readyz").starts_with("200"); }, kServiceUpMs)) << get("/readyz");
  {
    std::ofstream filler(disk + "/filler", std::ios::binary);
    ASSERT_TRUE(filler.is_open()) << disk;
    const std::string block(1 << 16, 'x');
    while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  while (get("/readyz").starts_with("200") && sent < 20'000) put();
  EXPECT_TRUE(get("/readyz").starts_with("503")) << get("/readyz");
  EXPECT_NE(get("/readyz").find("nothing can be committed"), std::string::npos) << get("/readyz");
  EXPECT_NE(get("/metrics").find("\nfreshet_store_blocked 1"), std::string::npos);
  EXPECT_TRUE(get("/livez").starts_with("200")) << get("/livez");
  const auto answer = HttpCall(address, "POST", "/v1/recall", R"({"vector":[1,1,0,0,0,0,0,0],"k":1})", 5'000);
  ASSERT_OK(answer);
  EXPECT_EQ(answer->status, 200) << answer->body;
  EXPECT_NE(answer->body.find("item-"), std::string::npos) << answer->body;

  ASSERT_EQ(::unlink((disk + "/filler").c_str()), 0);
  put();
  ASSERT_TRUE(WaitFor(
      [&] {
        return get("/readyz").starts_with("200") &&
               get("/v1/status").find(StrCat(R"("items_live":)", sent, ",")) != std::string::npos;
      },
      kServiceUpMs))
      << get("/readyz") << "\n"
      << get("/v1/status");
  engine.Signal(SIGTERM);
  EXPECT_EQ(engine.Wait(kServiceUpMs), 0) << *ReadFile(dir / "log");
}

// The disk of the data has room for one file more each time, until a snapshot is there: whichever step of the
// checkpoint or of the index file fails, it is told, nothing is lost, and the engine goes on.
TEST(FullDisk, AtEveryStepOfACheckpoint) {
  const TempDir dir;
  ASSERT_OK(CreateDirectories(dir / "disk"));
  auto broker = StartMockBroker();
  ASSERT_OK(broker);
  for (const char* topic : {"items", "interactions", "users", "dead-letters"}) {
    ASSERT_OK((*broker)->CreateTopic(topic, 1));
  }
  KafkaOptions kafka;
  kafka.bootstrap_servers = (*broker)->bootstrap_servers();
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  ASSERT_OK(WriteFileAtomically(dir / "engine.yaml",
                                StrCat(EngineYaml(kafka.bootstrap_servers, dir / "disk/data"),
                                       "changelog: {enabled: false}\nstore: {write_buffer_bytes: 1048576}\n",
                                       "snapshots: {directory: ", dir / "snapshots", ", interval_seconds: 0}\n",
                                       "admin: {listen: \"127.0.0.1:0\"}\n")));
  const std::string mount = StrCat("mount -t tmpfs -o size=256m,nr_inodes=600 none ", dir / "disk");
  if (RunCommand(Apart(mount), nullptr) != 0) GTEST_SKIP() << "a mount namespace is not allowed here";
  Process engine(Apart(EngineOn(dir, mount)), dir / "log");
  ASSERT_TRUE(WaitFor([&] { return FileExists(dir / "address") || !engine.running(); }, kServiceUpMs));
  ASSERT_TRUE(engine.running()) << *ReadFile(dir / "log");
  const std::string address(Trim(*ReadFile(dir / "address")));
  const std::string disk = StrCat("/proc/", Trim(*ReadFile(dir / "pid")), "/root", dir / "disk");
  const auto status = [&]() -> std::unique_ptr<JsonDocument> {
    const auto reply = HttpCall(address, "GET", "/v1/status", "", 5'000);
    if (!reply.ok()) return nullptr;
    auto json = ParseJson(reply->body);
    return json.ok() ? std::move(*json) : nullptr;
  };
  int sent = 0;
  const auto put = [&] {
    OutRecord record;
    record.topic = "items";
    record.key = StrCat("item-", sent++);
    record.value = StrCat(R"({"vector":[)", sent, R"(,1,0,0,0,0,0,0],"attributes":{"title":"t"}})");
    ASSERT_OK((*producer)->Send({record}, kSendTimeout));
  };
  const auto all_there = [&] {
    const auto now = status();
    return now != nullptr && JsonFind(*now, "items_live")->GetInt64() == sent;
  };
  const auto of_snapshots = [&](const char* key) {
    const auto now = status();
    return now == nullptr ? -1 : JsonFind(*JsonFind(*now, "snapshots"), key)->GetInt64();
  };
  const auto blocked = [&] {
    const auto now = status();
    return now == nullptr || !JsonText(*JsonFind(*JsonFind(*now, "store"), "blocked")).empty();
  };
  put();
  ASSERT_TRUE(WaitFor(all_there, kServiceUpMs));
  const std::string admin(JsonText(*JsonFind(*status(), "admin_address")));
  const auto ask = [&] {
    const auto asked = HttpCall(admin, "POST", "/v1/admin/snapshots", "", 5'000);
    ASSERT_OK(asked);
    EXPECT_EQ(asked->status, 202);
  };
  // What a flush takes is there; from now on it has nothing to do.
  ask();
  ASSERT_TRUE(WaitFor([&] { return of_snapshots("created") == 1; }, kServiceUpMs));
  std::vector<std::string> fillers;
  const auto fill = [&] {
    while (std::ofstream(StrCat(disk, "/filler-", fillers.size())).is_open()) {
      fillers.push_back(StrCat(disk, "/filler-", fillers.size()));
    }
  };
  fill();
  int failed = 0;
  int at_the_checkpoint = 0;
  bool opened_again = false;
  while (of_snapshots("created") == 1) {
    ask();
    ASSERT_TRUE(WaitFor([&] { return of_snapshots("failed") > failed || of_snapshots("created") == 2; }, kServiceUpMs));
    if (of_snapshots("created") == 2) break;
    ++failed;
    const auto now = status();
    ASSERT_NE(now, nullptr);
    const std::string why(JsonText(*JsonFind(*JsonFind(*now, "snapshots"), "last_failure")));
    if (why.find(": checkpoint: ") != std::string::npos) ++at_the_checkpoint;
    ASSERT_FALSE(fillers.empty()) << why;
    // The row that names an index file is flushed next time. To open the store again takes several files.
    const bool reopens = blocked();
    for (int i = 0; i < (reopens ? 8 : 1) && !fillers.empty(); ++i) {
      ASSERT_EQ(::unlink(fillers.back().c_str()), 0);
      fillers.pop_back();
    }
    if (reopens && WaitFor([&] { return !blocked(); }, 3'000) && !std::exchange(opened_again, true)) fill();
    ASSERT_TRUE(engine.running()) << *ReadFile(dir / "log");
  }
  EXPECT_GT(at_the_checkpoint, 5) << "of " << failed << " failures";
  put();
  ASSERT_TRUE(WaitFor(all_there, kServiceUpMs)) << *ReadFile(dir / "log");
  for (const std::string& filler : fillers) ASSERT_EQ(::unlink(filler.c_str()), 0);
  engine.Signal(SIGTERM);
  EXPECT_EQ(engine.Wait(kServiceUpMs), 0) << *ReadFile(dir / "log");
  EXPECT_EQ(RunCommand({FreshetBinary(), "snapshot", "verify", "--directory", dir / "snapshots"}, nullptr), 0);
  std::string restored;
  EXPECT_EQ(RunCommand({FreshetBinary(), "snapshot", "restore", "--directory", dir / "snapshots", "--data-dir",
                        dir / "restored", "--json"},
                       &restored),
            0);
  EXPECT_NE(restored.find(StrCat(R"("items":)", sent, ",")), std::string::npos) << restored;
}

// Onto a disk without room it is not begun, and the bytes are named. Where there is room for one file more each time,
// it ends at another step each time, and what was there before is still there.
TEST(FullDisk, AtEveryStepOfARestore) {
  const TempDir dir;
  ASSERT_OK(CreateDirectories(dir / "disk"));
  std::vector<std::string> ids;
  {
    StoreOptions options;
    options.directory = dir / "data";
    options.space_id = "s";
    options.dim = 2;
    auto store = Store::Open(options);
    ASSERT_OK(store);
    SystemClock clock;
    Metrics metrics;
    Applier applier(ApplierOptions{}, options, store->get(), &clock, &metrics);
    HnswOptions index;
    index.dim = 2;
    index.capacity = 4096;
    ASSERT_OK(applier.Rebuild([&] { return MakeHnswIndex(index); }));
    const auto repository = OpenLocalRepository(dir / "snapshots");
    Snapshotter snapshotter({}, {}, repository.get(), store->get(), &applier, &clock, &metrics);
    for (int i = 0; i < 2; ++i) {
      EncodedBatch batch;
      batch.space_id = "s";
      batch.progress.push_back(PartitionProgress{{"items", 0}, i + 1, 0, 0, 0, 0});
      ItemChange& change = batch.items.emplace_back();
      change.update.item_id = StrCat("item-", i);
      change.update.vector = {1, 1};
      change.position = {0, i};
      ASSERT_OK(applier.Apply(std::move(batch)));
      const auto manifest = snapshotter.Create(/*hurry=*/true);
      ASSERT_OK(manifest);
      ids.push_back(manifest->id);
    }
  }
  const std::string disk = dir / "disk";
  if (RunCommand(Apart(StrCat("mount -t tmpfs none ", disk)), nullptr) != 0) {
    GTEST_SKIP() << "a mount namespace is not allowed here";
  }
  std::string said;
  const int failed_at = RunCommand(Apart(StrCat("disk=", disk, "; freshet=", FreshetBinary(),
                                                "; snapshots=", dir / "snapshots", "; first=", ids[0], R"(
    restore() { $freshet snapshot restore --directory $snapshots --data-dir $disk/data "$@" 2>&1; }
    mount -t tmpfs -o size=8m none $disk || exit 2
    restore
    [ $? = 69 ] || exit 3
    [ ! -e $disk/data/restoring ] || exit 4
    mount -o remount,size=256m,nr_inodes=400 $disk || exit 5
    restore --snapshot $first || exit 6
    files=0
    while touch $disk/filler-$files 2>/dev/null; do files=$((files + 1)); done
    failed=0
    while ! restore; do
      [ -e $disk/data/CURRENT ] || exit 7
      failed=$((failed + 1))
      files=$((files - 2))
      rm $disk/filler-$files $disk/filler-$((files + 1)) || exit 8
    done
    echo "failed $failed times"
    [ $failed -gt 8 ] || exit 9
    rm $disk/filler-*
    $freshet store verify --json $disk/data || exit 10
    $freshet store verify --json $disk/data/damaged || exit 11
  )")),
                                   &said);
  EXPECT_EQ(failed_at, 0) << said;
  EXPECT_NE(said.find(StrCat("bytes are free, restoring ", ids[1], " needs ")), std::string::npos) << said;
  EXPECT_NE(said.find(StrCat("is as ", ids[1], ": 2 items")), std::string::npos) << said;
  EXPECT_NE(said.find(R"("items":2)"), std::string::npos) << said;
  EXPECT_NE(said.find(R"("items":1)"), std::string::npos) << said;  // what was there before
}

}  // namespace
}  // namespace freshet::test
