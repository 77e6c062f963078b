// What a commit survives, and a disk that is full or fails: nothing acknowledged is lost, answers go on, and applying
// goes on by itself.
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <numeric>

#include "fault_env.h"
#include "freshet/core/file.h"
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
int FillASmallDisk(const std::string& mount_point) {
  constexpr int kCannotMount = 77;
  const bool root = ::geteuid() == 0;
  if (::unshare(CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) != 0) return kCannotMount;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("none", mount_point.c_str(), "tmpfs", 0, "size=24m") != 0) {
    return kCannotMount;
  }
  OpenNode node(OptionsAt(mount_point + "/data"));
  BoundedQueue<EncodedBatch> queue(4, 1 << 20);
  node.applier->Start(&queue, {});
  if (!queue.Push(Changes(0).Put(Name(0)).Take(), 1)) return 2;
  if (!WaitFor([&] { return node.applier->sequence() == 1; })) return 3;
  {
    std::ofstream filler(mount_point + "/filler", std::ios::binary);
    const std::string block(1 << 16, 'x');
    while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
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
  const TempDir dir;
  const std::string mount_point = dir / "disk";
  ASSERT_OK(CreateDirectories(mount_point));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(FillASmallDisk(mount_point));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == 77)
    GTEST_SKIP() << "a mount namespace is not allowed here; FailingDiskTest covers the rest";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace freshet::test
