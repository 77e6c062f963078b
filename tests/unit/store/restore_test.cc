// What ends a restore and what only refuses a snapshot, room, and numbers that are never given twice.
#include <sched.h>
#include <sys/mount.h>

#include <thread>

#include "sequence_floor.h"
#include "snapshot_fixture.h"

namespace freshet::test {
namespace {

class RestoreTest : public SnapshotTest {
 protected:
  FailingRepository failing_{repository_.get()};
};

TEST_F(RestoreTest, ASnapshotThatCannotBeReadIsRefusedAndTheNextIsUsed) {
  TakeTwo();
  const auto restored_with = [&](const std::string& reason) {
    const auto restored = RestoreSnapshot(failing_, RestoreTo("restored"));
    ASSERT_OK(restored);
    EXPECT_EQ(restored->manifest.id, first_.id);
    ASSERT_EQ(restored->refused.size(), 1U);
    EXPECT_NE(restored->refused[0].find(second_.id + ": " + reason), std::string::npos) << restored->refused[0];
  };
  for (const SnapshotFile& file : second_.files) {
    SCOPED_TRACE(file.name);
    failing_.fetching = {{second_.id + "/" + file.name, Unavailable(file.name + ": read: Input/output error")}};
    restored_with(file.name + ": read");
  }
  failing_.fetching.clear();
  failing_.reading[second_.id] = IoError("manifest.json: Input/output error");
  restored_with("manifest.json");
}

TEST_F(RestoreTest, WhatFailsAtTheDestinationEndsIt) {
  TakeTwo();
  for (const Status& status : {IoError("injected"), ResourceExhausted("injected")}) {
    failing_.fetching["index"] = status;
    EXPECT_EQ(RestoreSnapshot(failing_, RestoreTo("restored")).status().code(), status.code());
    EXPECT_FALSE(FileExists(dir_ / "restored/CURRENT"));
  }
}

// They may be whole: that is no reason to begin empty.
TEST_F(RestoreTest, WhereNoneCanBeReadTheLogDoesNotDecide) {
  TakeTwo();
  failing_.fetching["store/CURRENT"] = Unavailable("read: Input/output error");
  std::filesystem::remove_all(data());
  const auto opened = OpenOrRestore(OptionsAt(data()), &failing_, false, false, [] { return Status::Ok(); }, {});
  EXPECT_EQ(opened.status().code(), Code::kUnavailable);
  EXPECT_NE(opened.status().message().find("Input/output error"), std::string::npos) << opened.status().ToString();
  EXPECT_FALSE(FileExists(data() + "/CURRENT"));
}

// A disk that fails to read, as the kernel says it: reading one's own memory at address 0 is an IO error too.
TEST_F(RestoreTest, AFailingDiskBeneathTheSnapshots) {
  TakeTwo();
  bool allowed = false;
  std::thread in_a_namespace([&] {
    const std::string file = snapshots() + "/" + second_.id + "/store/CURRENT";
    allowed = ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
              ::mount("/proc/self/mem", file.c_str(), nullptr, MS_BIND, nullptr) == 0;
    if (!allowed) return;
    EXPECT_EQ(repository_->Verify(second_, {}).code(), Code::kIoError);
    const auto current = second_.Find("store/CURRENT");
    const Status fetched = repository_->Fetch(second_, *current, dir_ / "CURRENT", false, {});
    EXPECT_EQ(fetched.code(), Code::kUnavailable);
    EXPECT_NE(fetched.message().find(file), std::string::npos) << fetched.ToString();
    const auto restored = RestoreSnapshot(*repository_, RestoreTo("restored"));
    ASSERT_OK(restored);
    EXPECT_EQ(restored->manifest.id, first_.id);
    ::umount2(file.c_str(), MNT_DETACH);
  });
  in_a_namespace.join();
  if (!allowed) GTEST_SKIP() << "a mount namespace is not allowed here; the tests above cover the rest";
  RestoreAndCompare({"a", "c", "d"});
}

// Asked for before anything is fetched; what is shared takes none.
TEST_F(RestoreTest, RoomIsAskedForFirst) {
  TakeTwo();
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;
  std::string grown = "index";
  failing_.altering = [&](SnapshotManifest* manifest) {
    for (SnapshotFile& file : manifest->files) file.bytes += file.name == grown ? kHuge : 0;
  };
  failing_.shares = false;
  const Status full = RestoreSnapshot(failing_, RestoreTo("restored")).status();
  EXPECT_EQ(full.code(), Code::kResourceExhausted);
  EXPECT_NE(full.message().find("bytes are free, restoring " + second_.id + " needs 11529"), std::string::npos)
      << full.message();
  EXPECT_FALSE(FileExists(dir_ / "restored/restoring"));
  failing_.shares = true;
  EXPECT_EQ(RestoreSnapshot(failing_, RestoreTo("restored")).status().code(), Code::kNotFound);  // only as long as said
  grown = "store/CURRENT";
  EXPECT_EQ(RestoreSnapshot(failing_, RestoreTo("restored")).status().code(), Code::kResourceExhausted);
}

class NumbersTest : public RestoreTest {
 protected:
  // Restores, gives some numbers, returns the highest.
  std::uint64_t RestoreAndGoOn(SnapshotRepository* repository, const Clock* clock, const std::string& name,
                               const std::string& id = "") {
    RestoreOptions options = RestoreTo(name);
    options.clock = clock;
    options.id = id;
    const auto restored = RestoreSnapshot(*repository, options);
    EXPECT_OK(restored);
    OpenNode node(options.data_dir);
    const std::int64_t offset = restored->manifest.offsets.empty() ? 0 : restored->manifest.offsets[0].next_offset;
    EXPECT_OK(node.applier->Apply(Changes(100 + offset).Put("later").Put("last").Take()));
    return node.applier->sequence();
  }
  ManualClock long_ago_{0};
};

TEST_F(NumbersTest, GoOnAboveALostMachinesThoughTheClockIsWrong) {
  TakeTwo();
  ManualClock later(SystemClock().WallMs() + 86'400'000);
  const std::uint64_t given = RestoreAndGoOn(repository_.get(), &later, "first machine");
  EXPECT_GT(given, newest_sequence_);
  std::filesystem::remove_all(dir_ / "first machine");
  EXPECT_GT(RestoreAndGoOn(repository_.get(), &long_ago_, "second machine"), given);
}

TEST_F(NumbersTest, GoOnWhereTheRepositoryCanOnlyBeRead) {
  TakeTwo();
  failing_.noting = IoError("read-only file system");
  ManualClock later(SystemClock().WallMs() + 86'400'000);
  std::uint64_t given = RestoreAndGoOn(&failing_, &later, "restored");
  EXPECT_EQ(*repository_->NotedSequence(second_.epoch), 0U);
  // Damaged beyond reading: what a restore noted beside it counts.
  std::filesystem::remove(dir_ / "restored/CURRENT");
  std::uint64_t again = RestoreAndGoOn(&failing_, &long_ago_, "restored");
  EXPECT_GT(again, given);
  // The note is gone: the store itself says it, as long as it can be read.
  std::filesystem::remove(dir_ / "restored/numbers");
  given = std::exchange(again, RestoreAndGoOn(&failing_, &long_ago_, "restored", first_.id));
  EXPECT_GT(again, given);
}

TEST_F(NumbersTest, ARollbackGoesOnAboveWhatItRollsBack) {
  TakeTwo();
  std::uint64_t given = 0;
  {
    OpenNode node(data());
    for (int i = 0; i < 50; ++i) ASSERT_OK(node.applier->Apply(Changes(10 + i).Put("x" + std::to_string(i)).Take()));
    given = node.applier->sequence();
  }
  EXPECT_GT(RestoreAndGoOn(repository_.get(), &long_ago_, "data", first_.id), given);
}

TEST_F(NumbersTest, TheNoteIsWholeOrNotThere) {
  const std::string path = dir_ / "numbers";
  EXPECT_TRUE(ReadSequenceFloors(path)->empty());
  for (std::uint64_t epoch = 1; epoch <= 100; ++epoch) ASSERT_OK(RaiseSequenceFloor(path, epoch, 10 * epoch));
  ASSERT_OK(RaiseSequenceFloor(path, 100, 7));
  const auto floors = ReadSequenceFloors(path);
  ASSERT_OK(floors);
  EXPECT_EQ(floors->size(), 64U);  // the newest
  EXPECT_EQ(floors->at(100), 1000U);
  EXPECT_EQ(floors->begin()->first, 37U);
  const std::string whole = Slurp(path);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] ^= 1;
    Spill(path, damaged);
    EXPECT_EQ(ReadSequenceFloors(path).status().code(), Code::kCorruption) << at;
    Spill(path, whole.substr(0, at));
    EXPECT_EQ(ReadSequenceFloors(path).status().code(), Code::kCorruption) << at;
  }
  ASSERT_OK(RaiseSequenceFloor(path, 3, 4));
  EXPECT_EQ(*ReadSequenceFloors(path), (SequenceFloors{{3, 4}}));
}

}  // namespace
}  // namespace freshet::test
