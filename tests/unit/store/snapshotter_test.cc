// When snapshots are taken, what goes into them, and what holds them up.
#include <set>

#include "freshet/core/checksum.h"
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
    return std::make_unique<Snapshotter>(options, context ? *context : Context(), repository_.get(), node->store.get(),
                                         node->applier.get(), &node->clock, &node->metrics);
  }
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

}  // namespace
}  // namespace freshet::test
