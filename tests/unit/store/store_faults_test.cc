// What a commit survives, and a disk that is full or fails: nothing acknowledged is lost, answers go on, and applying
// goes on by itself.
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <numeric>

#include "fault_env.h"
#include "freshet/core/file.h"
#include "freshet/store/snapshotter.h"
#include "store_fixture.h"

namespace freshet::test {
namespace {

using Ids = std::vector<std::string>;
using Failure = FaultFileSystem::Failure;

std::string Name(int i) { return "item " + std::to_string(i); }

// Commits of one item each, from `from` to before `to`.
void ApplySome(OpenNode* node, int from, int to) {
  for (int i = from; i < to; ++i) ASSERT_OK(node->applier->Apply(Changes(i).Put(Name(i)).Take()));
}

struct AfterPowerLoss {
  std::uint64_t sequence = 0;
  std::int64_t next_offset = 0;
};

class PowerLossTest : public ::testing::Test {
 protected:
  // `before` commits, then `wait`, then `after` commits, then the power goes.
  AfterPowerLoss Lose(StoreOptions options, int before, const std::function<void()>& wait, int after) {
    options.env = fault_.env.get();
    {
      OpenNode node(options);
      ApplySome(&node, 0, before);
      if (wait) wait();
      ApplySome(&node, before, before + after);
      fault_.files->LosePower();
    }
    fault_.files->DropUnsynced();
    options.env = nullptr;
    OpenNode node(options);
    AfterPowerLoss found;
    found.sequence = node.applier->sequence();
    const std::vector<TopicPartition> wanted = {{"items", 0}};
    const auto offsets = node.applier->StoredOffsets(wanted);
    found.next_offset = offsets.empty() ? 0 : offsets.begin()->second;
    // A prefix of whole commits, offsets with them ...
    EXPECT_EQ(node.Ids().size(), found.sequence);
    EXPECT_EQ(found.next_offset, static_cast<std::int64_t>(found.sequence));
    EXPECT_EQ(node.store->Check({})->differences, 0U);
    EXPECT_OK(node.applier->Audit());
    // ... and Kafka has the rest.
    ApplySome(&node, static_cast<int>(found.next_offset), before + after);
    EXPECT_EQ(node.Ids().size(), static_cast<std::size_t>(before + after));
    return found;
  }
  TempDir dir_;
  FaultEnv fault_;
};

TEST_F(PowerLossTest, SyncLosesNothing) {
  StoreOptions options = OptionsAt(dir_ / "data");
  options.durability = Durability::kSync;
  EXPECT_EQ(Lose(options, 10, {}, 10).sequence, 20U);
}

// The proof that it can lose: without a sync nothing of the log has to be on the disk.
TEST_F(PowerLossTest, WalLosesWhatWasNotWrittenBack) {
  EXPECT_LT(Lose(OptionsAt(dir_ / "data"), 10, {}, 10).sequence, 20U);
}

TEST_F(PowerLossTest, IntervalLosesAtMostTheLastInterval) {
  StoreOptions options = OptionsAt(dir_ / "data");
  options.durability = Durability::kInterval;
  options.sync_interval_ms = 20;
  const auto found = Lose(
      options, 10,
      [this] {
        // Two whole rounds: the first may have begun before the last commit.
        const int seen = fault_.files->syncs();
        EXPECT_TRUE(WaitFor([&] { return fault_.files->syncs() > seen; }));
      },
      0);
  EXPECT_EQ(found.sequence, 10U);
}

// The power goes at every write and sync of flushes and compactions: tables, manifests and CURRENT with their names.
TEST_F(PowerLossTest, AtAnyStepOfAFlushTheStoreIsAPrefix) {
  int lost = 0;
  for (int step = 1; step <= 12; ++step) {
    SCOPED_TRACE(step);
    FaultEnv fault;
    StoreOptions options = OptionsAt(dir_ / std::to_string(step));
    options.durability = Durability::kSync;
    options.env = fault.env.get();
    std::uint64_t acknowledged = 0;
    {
      OpenNode node(options);
      ApplySome(&node, 0, 10);
      acknowledged = node.applier->sequence();
      fault.files->LosePowerAfter(step);
      (void)node.store->Flush();
    }
    fault.files->DropUnsynced();
    lost += fault.files->names_lost();
    options.env = nullptr;
    OpenNode node(options);
    EXPECT_EQ(node.applier->sequence(), acknowledged);
    EXPECT_EQ(node.Ids().size(), 10U);
    EXPECT_EQ(node.store->Check({})->differences, 0U);
  }
  EXPECT_GT(lost, 0) << "no step had a name that was not synced: this shows nothing";
}

class FailingDiskTest : public ::testing::TestWithParam<Failure> {
 protected:
  TempDir dir_;
  FaultEnv fault_;
};

TEST_P(FailingDiskTest, WaitsSaysSoAnswersAndGoesOnByItself) {
  StoreOptions options = OptionsAt(dir_ / "data");
  options.env = fault_.env.get();
  {
    OpenNode node(options);
    BoundedQueue<EncodedBatch> queue(100, 1 << 20);
    node.applier->Start(&queue, {});
    ASSERT_TRUE(queue.Push(Changes(0).Put(Name(0)).Take(), 1));
    ASSERT_TRUE(WaitFor([&] { return node.applier->sequence() == 1; }));
    fault_.files->Fail(GetParam());
    for (int i = 1; i < 10; ++i) ASSERT_TRUE(queue.Push(Changes(i).Put(Name(i)).Take(), 1));
    ASSERT_TRUE(WaitFor([&] { return !node.applier->blocked().empty(); }));
    EXPECT_EQ(node.metrics.GetGauge("freshet_store_blocked", "1 while nothing can be committed, see /readyz").Value(),
              1);
    EXPECT_OK(node.applier->status());
    EXPECT_TRUE(node.applier->GetVector(Name(0))->has_value());
    EXPECT_EQ(node.store->TrimOutbox(1).code(), Code::kUnavailable);
    EXPECT_EQ(node.applier->AtRest([] { return Status::Ok(); }).code(), Code::kUnavailable);
    EXPECT_EQ(node.applier->sequence(), 1U);
    fault_.files->Fail(Failure::kNone);
    ASSERT_TRUE(WaitFor([&] { return node.applier->sequence() == 10; }));
    EXPECT_EQ(node.applier->blocked(), "");
    queue.Close();
    node.applier->Join();
    EXPECT_EQ(node.store->outbox_records(), 10U);
    EXPECT_OK(node.applier->Audit());
  }
  OpenNode node(OptionsAt(dir_ / "data"));
  EXPECT_EQ(node.Ids().size(), 10U);
  EXPECT_EQ(node.store->Check({})->differences, 0U);
}

// The n-th write fails, whichever it is: of a commit, of a flush, of a table, of the manifest.
TEST_P(FailingDiskTest, EveryStepMayFail) {
  int healed = 0;
  std::vector<int> steps = {1, 2, 3, 5, 8, 13, 21, 34};
  if (std::getenv("FRESHET_EVERY_STEP") != nullptr) {  // all of them: RocksDB's own retries take a second each
    steps.resize(60);
    std::iota(steps.begin(), steps.end(), 1);
  }
  for (const int n : steps) {
    SCOPED_TRACE(n);
    StoreOptions options = OptionsAt(dir_ / std::to_string(n));
    options.env = fault_.env.get();
    OpenNode node(options);
    BoundedQueue<EncodedBatch> queue(100, 1 << 20);
    node.applier->Start(&queue, {});
    fault_.files->FailFrom(n, GetParam());
    for (int i = 0; i < 12; ++i) ASSERT_TRUE(queue.Push(Changes(i).Put(Name(i % 5), static_cast<float>(i)).Take(), 1));
    const Status flushed = node.store->Flush();
    if (WaitFor([&] { return node.applier->sequence() == 12 || !node.applier->blocked().empty(); }) &&
        !node.applier->blocked().empty()) {
      ++healed;
    }
    fault_.files->FailFrom(0, Failure::kNone);
    fault_.files->Fail(Failure::kNone);
    ASSERT_TRUE(WaitFor([&] { return node.applier->sequence() == 12; })) << flushed.ToString();
    queue.Close();
    node.applier->Join();
    ASSERT_OK(node.applier->status());
    EXPECT_EQ(node.Ids().size(), 5U);
    EXPECT_EQ((**node.store->GetItem(Name(1))).position.offset, 11);
    EXPECT_OK(node.applier->Audit());
    EXPECT_EQ(node.store->Check({})->differences, 0U);
  }
  EXPECT_GT(healed, 2);
}

INSTANTIATE_TEST_SUITE_P(Failures, FailingDiskTest, ::testing::Values(Failure::kNoSpace, Failure::kIoError),
                         [](const auto& failure) {
                           return failure.param == Failure::kNoSpace ? "NoSpace" : "IoError";
                         });

// On a real file system of 24 MiB, in a mount namespace of its own. RocksDB's default info log would abort the process
// here (traps: Debian's build has assertions on). Returns the exit code.
constexpr int kCannotMount = 77;

// In a process of its own, begun anew (RocksDB's threads do not survive a fork), on an empty disk of so many MiB of its
// own: `work` gets a directory and that disk; what it returns other than 0 says where it failed.
int OnASmallDisk(int mib, const std::function<int(const std::string& directory, const std::string& disk)>& work) {
  const TempDir dir;
  const std::string disk = dir / "disk";
  const bool root = ::geteuid() == 0;
  if (!CreateDirectories(disk).ok()) return 1;
  if (::unshare(CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("none", disk.c_str(), "tmpfs", 0, ("size=" + std::to_string(mib) + "m").c_str()) != 0) {
    return kCannotMount;
  }
  const int failed_at = work(dir.path(), disk);
  ::umount2(disk.c_str(), MNT_DETACH);
  return failed_at;
}

void InAChild(const std::function<int()>& work) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  int code = -1;
  const auto ended = [&](int status) {
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code == 0 || code == kCannotMount;
  };
  EXPECT_EXIT(::_exit(work()), ended, "");
  if (code == kCannotMount) GTEST_SKIP() << "a mount namespace is not allowed here; FailingDiskTest covers the rest";
}

void FillUp(const std::string& path) {
  std::ofstream filler(path, std::ios::binary);
  const std::string block(1 << 16, 'x');
  while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
  }
}

int FillASmallDisk(const std::string& mount_point) {
  OpenNode node(OptionsAt(mount_point + "/data"));
  BoundedQueue<EncodedBatch> queue(4, 1 << 20);
  node.applier->Start(&queue, {});
  if (!queue.Push(Changes(0).Put(Name(0)).Take(), 1)) return 2;
  if (!WaitFor([&] { return node.applier->sequence() == 1; })) return 3;
  FillUp(mount_point + "/filler");
  int sent = 1;
  for (; node.applier->blocked().empty(); ++sent) {
    Changes changes(sent);
    changes.Put(Name(sent));
    if (!queue.Push(changes.Take(), 1) || sent > 1'000'000) return 4;
    if (sent % 64 == 0 && !WaitFor([&] { return queue.size() < 3 || !node.applier->blocked().empty(); })) return 5;
    if (queue.size() >= 3 && !WaitFor([&] { return queue.size() < 3 || !node.applier->blocked().empty(); })) return 5;
  }
  auto vector = node.applier->GetVector(Name(0));
  if (!vector.ok() || !*vector || !node.applier->status().ok()) return 6;
  ::unlink((mount_point + "/filler").c_str());
  if (!WaitFor([&] { return node.applier->sequence() == static_cast<std::uint64_t>(sent); })) return 11;
  queue.Close();
  node.applier->Join();
  if (!node.applier->status().ok() || !node.applier->blocked().empty()) return 7;
  if (node.Ids().size() != static_cast<std::size_t>(sent)) return 8;
  if (!node.applier->Audit().ok()) return 9;
  return ::testing::Test::HasFailure() ? 10 : 0;
}

TEST(SmallDisk, FullIsNoAbortAndNoLoss) {
  InAChild([] { return OnASmallDisk(24, [](const auto&, const auto& disk) { return FillASmallDisk(disk); }); });
}

// The repository's disk has less and less room: a snapshot is there whole or not at all, and the engine goes on. Then
// the disk is read-only.
int SnapshotsOnASmallDisk(const std::string& data, const std::string& mount_point) {
  OpenNode node(data);
  for (int i = 0; i < 2'000; ++i) {
    if (!node.applier->Apply(Changes(i).Put(Name(i)).Take()).ok()) return 2;
  }
  const auto repository = OpenLocalRepository(mount_point + "/snapshots");
  SnapshotOptions options;
  options.directory = repository->name();
  options.keep.max_count = 100;
  Snapshotter snapshotter(options, {}, repository.get(), node.store.get(), node.applier.get(), &node.clock,
                          &node.metrics);
  const auto whole = [&](std::size_t count) {
    const auto entries = repository->List();
    if (!entries.ok() || entries->size() != count) return false;
    return std::all_of(entries->begin(), entries->end(), [&](const SnapshotEntry& entry) {
      return entry.status.ok() && repository->Verify(entry.manifest, {}).ok();
    });
  };
  std::size_t taken = 0;
  std::size_t refused = 0;
  for (std::uint64_t left = 48; left <= 48; left -= 4) {
    // What the space check allows for is taken from it, so that the disk runs full underneath as well.
    std::ofstream(mount_point + "/filler").close();
    const std::uint64_t free = repository->free_bytes();
    const std::uint64_t filler = free > (left << 20) ? free - (left << 20) : 0;
    const std::string block(1 << 16, 'x');
    std::ofstream file(mount_point + "/filler", std::ios::binary);
    for (std::uint64_t at = 0; at < filler; at += block.size()) {
      file.write(block.data(), static_cast<std::streamsize>(block.size())).flush();
    }
    node.clock.AdvanceMs(1'000);
    const auto manifest = snapshotter.Create(/*hurry=*/true);
    if (manifest.ok()) {
      ++taken;
    } else if (manifest.status().code() != Code::kResourceExhausted) {
      return 3;
    } else {
      ++refused;
    }
    if (!whole(taken)) return 4;
    if (!node.applier->Apply(Changes(2'000 + static_cast<int>(left)).Put("late").Take()).ok()) return 5;
  }
  if (taken == 0 || refused == 0) return 6;
  // Past the check, the disk runs full while it is written.
  ::unlink((mount_point + "/filler").c_str());
  if (!repository->CollectGarbage().ok()) return 7;
  const auto newest = (*repository->List())[0].manifest;
  FillUp(mount_point + "/filler");
  SnapshotManifest another = newest;
  another.id = MakeSnapshotId(node.clock.WallMs() + 1'000, newest.sequence + 1);
  const Status put = repository->Put(&another, {{"store/large", mount_point + "/filler", /*stable=*/false}}, {}, {});
  if (put.code() != Code::kResourceExhausted) return 8;
  ::unlink((mount_point + "/filler").c_str());
  if (!repository->CollectGarbage().ok() || !whole(taken)) return 9;
  if (::mount(nullptr, mount_point.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 10;
  if (snapshotter.Create(/*hurry=*/true).ok() || !whole(taken)) return 11;
  if (!node.applier->Apply(Changes(3'000).Put("last").Take()).ok()) return 12;
  if (::mount(nullptr, mount_point.c_str(), nullptr, MS_REMOUNT, nullptr) != 0) return 13;
  if (!snapshotter.Create(/*hurry=*/true).ok() || !whole(taken + 1)) return 14;
  return ::testing::Test::HasFailure() ? 15 : 0;
}

TEST(SmallDisk, ASnapshotIsWholeOrNotThere) {
  InAChild([] {
    return OnASmallDisk(
        64, [](const auto& directory, const auto& disk) { return SnapshotsOnASmallDisk(directory + "/data", disk); });
  });
}

}  // namespace
}  // namespace freshet::test
