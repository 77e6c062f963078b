// When snapshots are taken, what goes into them, and what holds them up.
#include <set>

#include "freshet/core/checksum.h"
#include "rate_limit.h"
#include "snapshot_files.h"
#include "snapshot_fixture.h"

namespace freshet::test {
namespace {

class SnapshotterTest : public SnapshotTest {
 protected:
  [[nodiscard]] SnapshotOptions NeverDue() const {
    SnapshotOptions options;
    options.directory = snapshots();
    options.interval_seconds = 0;
    return options;
  }
  std::unique_ptr<Snapshotter> SnapshotterOf(OpenNode* node, const SnapshotOptions& options,
                                             std::optional<SnapshotContext> context = {}) {
    return std::make_unique<Snapshotter>(options, context ? *context : Context(), &failing_, node->store.get(),
                                         node->applier.get(), &node->clock, &node->metrics);
  }
  FailingRepository failing_{repository_.get()};
};

// Missing, read-only or a file: told, and the engine goes on.
TEST_F(SnapshotterTest, ATargetThatCannotBeWrittenIsTold) {
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  Spill(snapshots(), "a file");
  EXPECT_FALSE(Take(&node).ok());
  std::filesystem::remove(snapshots());
  ASSERT_OK(node.applier->Apply(Changes(1).Put("b").Take()));
  ASSERT_OK(Take(&node));
}

// A slow target does not hold up a stop, and leaves nothing behind.
TEST_F(SnapshotterTest, AStopEndsASlowSnapshot) {
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  SnapshotOptions options = NeverDue();
  options.bytes_per_second = 100;
  const auto snapshotter = SnapshotterOf(&node, options);
  snapshotter->Start();
  snapshotter->Request();
  ASSERT_TRUE(WaitFor([&] { return FileExists(data() + "/checkpoint"); }));
  snapshotter->Stop();
  EXPECT_EQ(snapshotter->report().failed, 1U);
  EXPECT_TRUE(repository_->List()->empty());
  EXPECT_EQ(*repository_->CollectGarbage(), 0U);
  EXPECT_FALSE(FileExists(data() + "/checkpoint"));
  ASSERT_OK(Take(&node));
}

TEST_F(SnapshotterTest, AreTakenAsTheyBecomeDueAndOnRequest) {
  OpenNode node(data());
  SnapshotOptions options = NeverDue();
  options.records = 2;
  const auto snapshotter = SnapshotterOf(&node, options);
  snapshotter->Start();
  BoundedQueue<EncodedBatch> queue(4, 1 << 20);
  node.applier->Start(&queue, {});
  ASSERT_TRUE(queue.Push(Changes(0).Put("a").Take(), 1));
  ASSERT_TRUE(queue.Push(Changes(1).Put("b").Take(), 1));
  ASSERT_TRUE(WaitFor([&] { return snapshotter->report().created == 1; }));
  EXPECT_FALSE(snapshotter->IsBehind());
  snapshotter->Request();
  ASSERT_TRUE(WaitFor([&] { return snapshotter->report().created == 2; }));
  const auto asked = AskForSnapshot(data(), std::chrono::seconds(30));
  ASSERT_OK(asked);
  EXPECT_EQ(*asked, snapshotter->report().last_id);
  EXPECT_EQ(repository_->List()->size(), 3U);
  ASSERT_OK(ArmFaults("snapshot.before_publish=error"));
  EXPECT_EQ(AskForSnapshot(data(), std::chrono::seconds(30)).status().code(), Code::kUnavailable);
  EXPECT_EQ(snapshotter->report().failed, 1U);
  queue.Close();
  node.applier->Join();
  snapshotter->Stop();
}

TEST_F(SnapshotterTest, AnIntervalCountsOnlyWhereSomethingWasCommitted) {
  OpenNode node(data());
  SnapshotOptions options = NeverDue();
  options.interval_seconds = 60;
  const auto snapshotter = SnapshotterOf(&node, options);
  snapshotter->Start();
  node.clock.AdvanceMs(120'000);
  ASSERT_OK(node.applier->Apply(Changes(0).Put("a").Take()));
  ASSERT_TRUE(WaitFor([&] { return snapshotter->report().created == 1; }));
  // Nothing new: however long it waits. Then something, but not for long enough.
  node.clock.AdvanceMs(600'000);
  EXPECT_EQ(AskForSnapshot(data(), std::chrono::seconds(30)).ok(), true);  // it went through its loop
  EXPECT_EQ(snapshotter->report().created, 2U);
  ASSERT_OK(node.applier->Apply(Changes(1).Put("b").Take()));
  node.clock.AdvanceMs(59'000);
  EXPECT_TRUE(snapshotter->IsBehind());
  EXPECT_EQ(repository_->List()->size(), 2U);
  node.clock.AdvanceMs(2'000);
  ASSERT_TRUE(WaitFor([&] { return snapshotter->report().created == 3; }));
  snapshotter->Stop();
}

// An engine that has read its topics to their end knows more of time than its last commit says.
TEST_F(SnapshotterTest, IsAsNewAsWhatWasReadWithoutAChange) {
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes(0).Put("a").Take()));
  EncodedBatch nothing;
  nothing.space_id = "s";
  nothing.as_of_ms = 4711;
  ASSERT_OK(node.applier->Apply(std::move(nothing)));
  const auto manifest = Take(&node);
  ASSERT_OK(manifest);
  EXPECT_EQ(manifest->as_of_ms, 4711);
}

TEST_F(SnapshotterTest, BytesOfLogMakeOneDue) {
  OpenNode node(data());
  SnapshotOptions options = NeverDue();
  options.wal_bytes = 4'000;
  const auto snapshotter = SnapshotterOf(&node, options);
  snapshotter->Start();
  int items = 0;
  while (node.store->wal_bytes() < 4'000) {
    EXPECT_EQ(snapshotter->report().created, 0U);
    ASSERT_OK(node.applier->Apply(Changes(items).Put("item " + std::to_string(items)).Take()));
    ++items;
  }
  ASSERT_TRUE(WaitFor([&] { return snapshotter->report().created == 1; }));
  EXPECT_GT(items, 3);
  snapshotter->Stop();
  EXPECT_EQ((*repository_->List())[0].manifest.items, static_cast<std::uint64_t>(items));
}

// "Newest" is by sequence, ages are never negative, and no id is given twice.
TEST_F(SnapshotterTest, AClockThatGoesBackwards) {
  OpenNode node(data());
  SnapshotOptions options = NeverDue();
  options.keep.max_count = 8;
  options.keep.max_age_ms = 3'600'000;
  const auto snapshotter = SnapshotterOf(&node, options);
  const std::int64_t noon = node.clock.WallMs();
  std::set<std::string> ids;
  std::string newest;
  for (const std::int64_t hours : {0, -48, 0, -1}) {
    node.clock.SetWallMs(noon + hours * 3'600'000);
    ASSERT_OK(
        node.applier->Apply(Changes(static_cast<std::int64_t>(ids.size())).Put(std::to_string(ids.size())).Take()));
    const auto manifest = snapshotter->Create(/*hurry=*/true);
    ASSERT_OK(manifest);
    newest = manifest->id;
    EXPECT_TRUE(ids.insert(newest).second) << newest;
    EXPECT_EQ((*repository_->List())[0].id, newest);
  }
  const auto entries = repository_->List();
  EXPECT_EQ((*entries)[0].manifest.items, 4U);
  // Two days old by its own time: it went when the clock had come back.
  EXPECT_EQ(entries->size(), 3U);
  RestoreAndCompare({"0", "1", "2", "3"});
}

TEST_F(SnapshotterTest, TheModelsFilesGoAlongAndAreVerified) {
  const std::string model = dir_ / "model";
  ASSERT_OK(CreateDirectories(model));
  const std::vector<std::string> files = {"goldens.json", "item_tower.pt", "model.yaml", "user_tower.pt"};
  Spill(model + "/notes.txt", "not of the package");
  SnapshotContext context = Context();
  context.model = "towers 3";
  context.model_directory = model;
  for (const std::string& name : files) {
    Spill(model + "/" + name, "bytes of " + name);
    context.model_files[name] = Sha256Hex("bytes of " + name);
  }
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  const auto snapshotter = SnapshotterOf(&node, NeverDue(), context);
  const auto manifest = snapshotter->Create(/*hurry=*/true);
  ASSERT_OK(manifest);
  EXPECT_EQ(manifest->model, "towers 3");
  const std::string there = snapshots() + "/" + manifest->id + "/model/";
  for (const std::string& name : files) EXPECT_EQ(Slurp(there + name), "bytes of " + name);
  EXPECT_FALSE(FileExists(there + "notes.txt"));
  ASSERT_OK(repository_->Verify(*manifest, {}));
  // Changed where it came from: the snapshot keeps what it had, and there is none of this store with another model.
  Spill(model + "/item_tower.pt", "retrained");
  ASSERT_OK(repository_->Verify(*manifest, {}));
  const Status changed = snapshotter->Create(/*hurry=*/true).status();
  EXPECT_EQ(changed.code(), Code::kFailedPrecondition);
  EXPECT_NE(changed.message().find("item_tower.pt"), std::string::npos) << changed.message();
  EXPECT_EQ(repository_->List()->size(), 1U);
  Spill(there + "item_tower.pt", "bytes of item_towel.pt");
  EXPECT_EQ(repository_->Verify(*manifest, {}).code(), Code::kCorruption);
}

// Each try costs a flush and an index file: they become rare, and never cease.
TEST_F(SnapshotterTest, AFailureIsTriedAgainAfterLongerAndLongerWaits) {
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  SnapshotOptions options = NeverDue();
  options.records = 1;
  std::atomic<bool> away{true};
  SnapshotContext context = Context();
  context.changelog_ends = [&]() -> Result<std::vector<PartitionProgress>> {
    if (away) return Unavailable("the broker is away");
    return std::vector<PartitionProgress>{{{"vectors", 0}, 5, 0, 0, 0, 0}};
  };
  const auto snapshotter = SnapshotterOf(&node, options, context);
  const auto failed = [&] { return snapshotter->report().failed; };
  snapshotter->Start();
  ASSERT_TRUE(WaitFor([&] { return failed() == 1; }));
  EXPECT_EQ(snapshotter->report().retry_seconds, 1);
  // Its loop has gone round when it answers, and has not tried by itself.
  node.clock.AdvanceMs(999);
  EXPECT_EQ(AskForSnapshot(data(), std::chrono::seconds(30)).status().code(), Code::kUnavailable);
  EXPECT_EQ(failed(), 2U);
  node.clock.AdvanceMs(1'999);
  EXPECT_FALSE(AskForSnapshot(data(), std::chrono::seconds(30)).ok());
  EXPECT_EQ(failed(), 3U);
  EXPECT_EQ(snapshotter->report().retry_seconds, 4);
  node.clock.AdvanceMs(4'000);
  ASSERT_TRUE(WaitFor([&] { return failed() == 4; }));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(snapshotter->Create().ok());
  EXPECT_EQ(snapshotter->report().retry_seconds, 300);
  Gauge& gauge = node.metrics.GetGauge("freshet_snapshot_retry_seconds",
                                       "How long the next scheduled snapshot waits after a failure; 0: none failed");
  EXPECT_EQ(gauge.Value(), 300);
  away = false;
  node.clock.AdvanceMs(300'000);
  ASSERT_TRUE(WaitFor([&] { return snapshotter->report().created == 1; }));
  EXPECT_EQ(snapshotter->report().retry_seconds, 0);
  EXPECT_EQ(gauge.Value(), 0);
  EXPECT_EQ(failed(), 14U);
  snapshotter->Stop();
}

// It is there: to take it again and again would only fill the disk.
TEST_F(SnapshotterTest, WhatIsPublishedIsASuccessThoughOldOnesCannotBeRemoved) {
  OpenNode node(data());
  SnapshotOptions options = NeverDue();
  options.keep.max_count = 1;
  const auto snapshotter = SnapshotterOf(&node, options);
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK(node.applier->Apply(Changes(i).Put(std::to_string(i)).Take()));
    node.clock.AdvanceMs(1'000);
    const auto manifest = snapshotter->Create(/*hurry=*/true);
    ASSERT_OK(manifest);
    failing_.removing[manifest->id] = IoError("injected");
    EXPECT_FALSE(snapshotter->IsBehind());
  }
  const Snapshotter::Report report = snapshotter->report();
  EXPECT_EQ(report.created, 3U);
  EXPECT_EQ(report.failed, 0U);
  EXPECT_EQ(report.retry_seconds, 0);
  EXPECT_EQ(report.prune_failures, 2U);
  EXPECT_NE(report.last_prune_failure.find("injected"), std::string::npos);
  EXPECT_EQ(repository_->List()->size(), 3U);
  failing_.removing.clear();
  ASSERT_OK(snapshotter->Create(/*hurry=*/true));
  EXPECT_EQ(repository_->List()->size(), 1U);
  EXPECT_EQ(snapshotter->report().last_prune_failure, "");
}

// What a crash left: the files of a checkpoint, whatever RocksDB calls it, and snapshots that are not whole.
TEST_F(SnapshotterTest, AStartRemovesWhatACrashLeftAndCountsOnlyWhatIsWhole) {
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  const auto taken = Take(&node);
  ASSERT_OK(taken);
  for (const char* name : {"/checkpoint", "/checkpoint.tmp"}) {
    std::filesystem::create_directories(data() + name);
    Spill(data() + name + "/000001.log", "half");
  }
  {
    const auto snapshotter = SnapshotterOf(&node, NeverDue());
    snapshotter->Start();
    EXPECT_FALSE(FileExists(data() + "/checkpoint"));
    EXPECT_FALSE(FileExists(data() + "/checkpoint.tmp"));
    EXPECT_FALSE(snapshotter->IsBehind());
  }
  std::filesystem::remove(snapshots() + "/" + taken->id + "/store/CURRENT");
  const auto snapshotter = SnapshotterOf(&node, NeverDue());
  snapshotter->Start();
  EXPECT_TRUE(snapshotter->IsBehind());
}

// The log, which the flush makes tables of, and the model, which is copied, take room too.
TEST_F(SnapshotterTest, RoomIsAskedForForAllOfIt) {
  OpenNode node(data());
  failing_.shares = true;
  failing_.free = kSpareBytes + 100'000;
  for (int i = 0; i < 4; ++i) {
    Changes changes(i);
    changes.Put(std::string(60'000, static_cast<char>('a' + i)));
    ASSERT_OK(node.applier->Apply(changes.Take()));
  }
  SnapshotContext context = Context();
  EXPECT_EQ(SnapshotterOf(&node, NeverDue(), context)->Create(true).status().code(), Code::kResourceExhausted);
  ASSERT_OK(node.store->Flush());
  EXPECT_OK(SnapshotterOf(&node, NeverDue(), context)->Create(true));
  ASSERT_OK(CreateDirectories(dir_ / "model"));
  context.model_directory = dir_ / "model";
  for (const std::size_t bytes : {200'000, 1'000}) {
    const std::string model(bytes, 'm');
    Spill(dir_ / "model/item_tower.pt", model);
    context.model_files["item_tower.pt"] = Sha256Hex(model);
    const auto manifest = SnapshotterOf(&node, NeverDue(), context)->Create(true);
    EXPECT_EQ(manifest.status().code(), bytes > 100'000 ? Code::kResourceExhausted : Code::kOk);
  }
}

TEST_F(SnapshotterTest, EverythingThatIsReadAndWrittenIsPaced) {
  OpenNode node(data());
  for (int i = 0; i < 20; ++i) ASSERT_OK(node.applier->Apply(Changes(i).Put("item " + std::to_string(i)).Take()));
  SnapshotContext context = Context();
  const std::string model(300'000, 'm');
  ASSERT_OK(CreateDirectories(dir_ / "model"));
  Spill(dir_ / "model/item_tower.pt", model);
  context.model_directory = dir_ / "model";
  context.model_files["item_tower.pt"] = Sha256Hex(model);
  SnapshotOptions options = NeverDue();
  options.bytes_per_second = std::uint64_t{1} << 50;
  const auto snapshotter = SnapshotterOf(&node, options, context);
  const auto manifest = snapshotter->Create();
  ASSERT_OK(manifest);
  std::uint64_t wanted = 0;
  for (const SnapshotFile& file : manifest->files) {
    // Written and read; read by the check and for the checksum; copied and read by the check; read.
    const bool twice = file.name == "index" || file.name.ends_with(".sst") || file.name.starts_with("model/");
    wanted += (twice ? 2 : 1) * file.bytes;
  }
  EXPECT_GE(snapshotter->report().paced_bytes, wanted);
}

// A clock that only waiting moves.
TEST(RateLimit, AnAverageSinceTheBeginning) {
  const TempDir dir;
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
  std::ofstream(dir / "file", std::ios::binary) << std::string(3 * kMiB, 'x');
  std::int64_t now_us = 5'000'000;
  bool stop = false;
  RateLimit limit(
      kMiB, [&] { return now_us; },
      [&](std::int64_t wait_us) {
        now_us += std::min<std::int64_t>(wait_us, 50'000);  // it may come back early
        return !stop;
      });
  const Throttle throttle = [&](std::uint64_t bytes) { return limit(bytes); };
  ASSERT_OK(SumOfFile(dir / "file", throttle));
  EXPECT_EQ(now_us, 8'000'000);
  ASSERT_OK(CopyWithSum(dir / "file", dir / "copy", throttle));
  EXPECT_EQ(now_us, 11'000'000);
  // Idle time is no credit that is lost: what waited is not made to wait again.
  now_us += 2'000'000;
  ASSERT_OK(SumOfFile(dir / "file", throttle));
  EXPECT_EQ(now_us, 14'000'000);
  EXPECT_EQ(limit.bytes(), 9 * kMiB);
  stop = true;
  EXPECT_EQ(SumOfFile(dir / "file", throttle).status().code(), Code::kCancelled);
}

}  // namespace
}  // namespace freshet::test
