// Repository and restore: what is published is whole, what is damaged is refused by name.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "snapshot_fixture.h"

namespace freshet::test {
namespace {

TEST_F(SnapshotTest, IsRestoredAsItWasWithoutBuildingAnything) {
  TakeTwo();
  const auto entries = repository_->List();
  ASSERT_OK(entries);
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].id, second_.id);
  EXPECT_EQ((*entries)[0].manifest.previous, first_.id);
  EXPECT_EQ(second_.items, 3U);
  EXPECT_EQ(second_.users, 1U);
  EXPECT_NE(second_.Find("index"), nullptr);
  ASSERT_OK(repository_->Verify(second_, {}));
  RestoreAndCompare({"a", "c", "d"});
}

TEST_F(SnapshotTest, UnchangedTablesAreSharedAndCostNothing) {
  TakeTwo();
  std::size_t shared = 0;
  for (const SnapshotFile& file : second_.files) {
    const SnapshotFile* before = first_.Find(file.name);
    if (!file.name.ends_with(".sst") || before == nullptr) continue;
    EXPECT_TRUE(std::filesystem::equivalent(snapshots() + "/" + first_.id + "/" + file.name,
                                            snapshots() + "/" + second_.id + "/" + file.name));
    ++shared;
  }
  EXPECT_GT(shared, 0U);
}

TEST_F(SnapshotTest, ADamagedOneIsRefusedByFileAndTheNextIsUsed) {
  TakeTwo();
  for (const SnapshotFile& file : second_.files) {
    SCOPED_TRACE(file.name);
    const std::string path = snapshots() + "/" + second_.id + "/" + file.name;
    const std::string whole = Slurp(path);
    std::string damaged = whole;
    if (!damaged.empty()) damaged[damaged.size() / 2] ^= 4;
    if (damaged.empty()) damaged = "x";
    for (const std::string& bytes : {damaged, whole.substr(0, whole.size() / 2) + std::string(whole.empty(), 'y')}) {
      Spill(path, bytes);
      RestoreOptions options;
      options.data_dir = dir_ / "restored";
      const auto restored = RestoreSnapshot(*repository_, options);
      ASSERT_OK(restored);
      EXPECT_EQ(restored->manifest.id, first_.id);
      ASSERT_EQ(restored->refused.size(), 1U);
      EXPECT_NE(restored->refused[0].find(file.name), std::string::npos) << restored->refused[0];
      EXPECT_NE(repository_->Verify(second_, {}).message().find(file.name), std::string::npos);
      options.id = second_.id;
      EXPECT_EQ(RestoreSnapshot(*repository_, options).status().code(), Code::kCorruption);
    }
    Spill(path, whole);
  }
  EXPECT_OK(repository_->Verify(second_, {}));
}

// Invariant 6: after an error at any step the list is as before, and garbage goes. (What a kill leaves is the crash
// test's.)
TEST_F(SnapshotTest, AFailureAtAnyStepLeavesWhatThereWas) {
  OpenNode node(data());
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  ASSERT_OK(Take(&node));
  std::int64_t offset = 1;
  for (const char* point :
       {"snapshot.before_checkpoint", "snapshot.after_checkpoint", "index_file.before_write", "index_file.after_write",
        "index_file.before_named", "snapshot.before_file", "snapshot.before_file@3", "snapshot.before_manifest",
        "snapshot.before_publish", "snapshot.after_publish", "snapshot.before_flush", "snapshot.after_flush",
        "index_file.before_sync", "index_file.after_named", "index_file.before_log_sync", "index_file.before_remove",
        "snapshot.before_file_sync", "snapshot.before_folder_sync", "snapshot.before_publish_sync"}) {
    SCOPED_TRACE(point);
    const std::string name = point;
    const std::size_t at = name.find('@');
    ASSERT_OK(ArmFaults(name.substr(0, at) + "=error" + (at == std::string::npos ? "" : name.substr(at))));
    ASSERT_OK(node.applier->Apply(Changes(offset++).Put("b").Take()));
    const std::size_t before = repository_->List()->size();
    EXPECT_FALSE(Take(&node).ok());
    ASSERT_OK(ArmFaults(""));
    const auto entries = repository_->List();
    ASSERT_OK(entries);
    EXPECT_EQ(entries->size(), before);
    for (const SnapshotEntry& entry : *entries) {
      ASSERT_OK(entry.status);
      EXPECT_OK(repository_->Verify(entry.manifest, {}));
    }
    EXPECT_FALSE(FileExists(data() + "/checkpoint"));
    EXPECT_LE(std::distance(std::filesystem::directory_iterator(data() + "/index"), {}), 2);
  }
  std::filesystem::create_directories(snapshots() + "/.tmp-20261121t131502-1/store");
  EXPECT_EQ(*repository_->CollectGarbage(), 1U);
  ASSERT_OK(Take(&node));
  RestoreAndCompare({"a", "b"});
}

TEST_F(SnapshotTest, RetentionKeepsTheNewestGoodOneWhateverTheBounds) {
  OpenNode node(data());
  for (int i = 0; i < 6; ++i) {
    ASSERT_OK(node.applier->Apply(Changes(i).Put("item " + std::to_string(i)).Take()));
    ASSERT_OK(Take(&node, 3));
  }
  EXPECT_EQ(repository_->List()->size(), 3U);
  Retention keep;
  keep.max_bytes = 1;
  keep.max_age_ms = 1;
  EXPECT_EQ(Prune(repository_.get(), keep, node.clock.WallMs() + 1'000'000, true)->size(), 2U);
  ASSERT_OK(Prune(repository_.get(), keep, node.clock.WallMs() + 1'000'000));
  const auto left = repository_->List();
  ASSERT_EQ(left->size(), 1U);
  EXPECT_EQ((*left)[0].manifest.sequence, 6U);
  // A clock that went backwards makes nothing old and no order wrong.
  node.clock.AdvanceMs(-100'000'000);
  ASSERT_OK(node.applier->Apply(Changes(6).Put("later").Take()));
  const auto later = Take(&node);
  ASSERT_OK(later);
  EXPECT_EQ((*repository_->List())[0].id, later->id);
}

TEST_F(SnapshotTest, AFollowerGoesOnAtTheChangelogsPosition) {
  TakeTwo();
  RestoreOptions options;
  options.data_dir = dir_ / "sidecar";
  options.follower = true;
  ASSERT_OK(RestoreSnapshot(*repository_, options));
  ApplierOptions follower;
  follower.role = ApplierOptions::Role::kFollower;
  OpenNode node(OptionsAt(dir_ / "sidecar"), follower);
  EXPECT_EQ(node.Ids(), (Ids{"a", "c", "d"}));
  EXPECT_EQ(node.store->outbox_records(), 0U);
  const std::vector<TopicPartition> wanted = {{"vectors", 0}, {"user-events", 0}, {"items", 0}};
  const auto offsets = node.applier->StoredOffsets(wanted);
  EXPECT_EQ(offsets, (std::map<TopicPartition, std::int64_t>{{wanted[0], 5}, {wanted[1], 6}}));
  // What the engine publishes again is old; what is new comes in.
  EncodedBatch batch = Changes(5, "vectors").Put("a", -1).Put("e").Take();
  batch.progress[0].epoch = second_.epoch;
  batch.items[0].sequence = second_.sequence;
  batch.items[1].sequence = second_.sequence + 1;
  batch.progress[0].sequence = second_.sequence + 1;
  ASSERT_OK(node.applier->Apply(std::move(batch)));
  EXPECT_EQ(node.Ids(), (Ids{"a", "c", "d", "e"}));
  EXPECT_GT((**node.applier->GetVector("a"))[0], 0);
  // The same event under a new number, as a restored engine publishes it, and one that is new.
  const auto event = [&](std::int64_t changelog_offset, std::int64_t source_offset) {
    EncodedBatch one = Changes(changelog_offset, "user-events").Buy("u", "c").Take();
    one.progress[0].epoch = second_.epoch;
    one.progress[0].sequence = one.users[0].sequence =
        second_.sequence + 1000 + static_cast<std::uint64_t>(changelog_offset);
    one.users[0].source_topic = "interactions";
    one.users[0].source = {0, source_offset};
    return one;
  };
  ASSERT_OK(node.applier->Apply(event(6, 0)));
  EXPECT_EQ((**node.applier->GetUser("u")).history.size(), 1U);
  ASSERT_OK(node.applier->Apply(event(7, 1)));
  EXPECT_EQ((**node.applier->GetUser("u")).history.size(), 2U);
  // A new epoch replaces what came with the snapshot, whatever the engine's partition was.
  EncodedBatch anew = Changes(7, "vectors").Put("z").Take();
  anew.progress[0].epoch = second_.epoch + 1;
  anew.progress[0].sequence = anew.items[0].sequence = 1;
  ASSERT_OK(node.applier->Apply(std::move(anew)));
  EXPECT_EQ(node.Ids(), (Ids{"z"}));
}

// What was not published before the snapshot is renumbered: a key's newest record has its highest number.
TEST_F(SnapshotTest, ARestoredEngineGivesNoNumberTwice) {
  TakeTwo();
  RestoreOptions options;
  options.data_dir = dir_ / "restored";
  options.id = first_.id;
  ASSERT_OK(RestoreSnapshot(*repository_, options));
  OpenNode node(dir_ / "restored");
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  const auto outbox = node.store->ReadOutbox(10, 1 << 20);
  ASSERT_OK(outbox);
  ASSERT_EQ(outbox->size(), 2U);
  EXPECT_GT((*outbox)[0].sequence, newest_sequence_);
  EXPECT_EQ((*outbox)[1].sequence, (*outbox)[0].sequence + 1);
  EXPECT_EQ(node.store->sequence(), (*outbox)[1].sequence);
  ASSERT_OK(node.applier->Apply(Changes(2).Put("c").Delete("b").Put("d", -1).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"a", "c", "d"}));
}

Result<OpenedStore> OpenAt(const std::string& data, SnapshotRepository* repository,
                           const std::function<Status()>& log_is_complete = {}) {
  return OpenOrRestore(OptionsAt(data), repository, /*follower=*/false, /*damaged=*/false, log_is_complete, {});
}

TEST_F(SnapshotTest, AnEmptyOrDamagedDirectoryIsRestored) {
  TakeTwo();
  for (const char* what : {"empty", "no CURRENT", "no MANIFEST", "no table", "CURRENT is garbage", "half restored"}) {
    SCOPED_TRACE(what);
    const std::string copy = dir_ / what;
    if (std::string(what) != "empty") {
      std::filesystem::copy(data(), copy, std::filesystem::copy_options::recursive);
    }
    for (const auto& entry : std::filesystem::directory_iterator(std::string(what) == "empty" ? data() : copy)) {
      const std::string name = entry.path().filename();
      if (std::string(what) == "no CURRENT" && name == "CURRENT") std::filesystem::remove(entry);
      if (std::string(what) == "no MANIFEST" && name.starts_with("MANIFEST")) std::filesystem::remove(entry);
      if (std::string(what) == "no table" && name.ends_with(".sst")) std::filesystem::remove(entry);
      if (std::string(what) == "CURRENT is garbage" && name == "CURRENT") Spill(entry.path(), "MANIFEST-9\n");
    }
    if (std::string(what) == "half restored") {
      RestoreOptions options;
      options.data_dir = copy;
      for (const char* fault : {"restore.before_file=stop@2", "copy.before_sync=stop", "restore.before_note=stop",
                                "restore.after_note=stop", "restore.before_ready=stop", "restore.after_ready=stop",
                                "restore.before_sync=stop", "restore.before_move=error", "restore.within_aside=error@2",
                                "restore.within_move=error@2", "restore.before_current=error"}) {
        ASSERT_OK(ArmFaults(fault));
        EXPECT_FALSE(RestoreSnapshot(*repository_, options).ok()) << fault;
        ASSERT_OK(ArmFaults(""));
      }
      EXPECT_FALSE(FileExists(copy + "/CURRENT"));
    }
    auto opened = OpenAt(copy, repository_.get());
    ASSERT_OK(opened);
    ASSERT_TRUE(opened->restored.has_value());
    EXPECT_EQ(opened->restored->manifest.id, second_.id);
    opened->store.reset();
    OpenNode node(copy);
    EXPECT_EQ(node.Ids(), (Ids{"a", "c", "d"}));
  }
}

// What a crash within a checkpoint leaves is no store: a new engine's directory stays a new engine's.
TEST_F(SnapshotTest, WhatACheckpointLeftIsNoPartOfAStore) {
  std::filesystem::create_directories(data() + "/checkpoint.tmp");
  Spill(data() + "/checkpoint.tmp/000001.log", "half");
  std::filesystem::create_directories(data() + "/checkpoint");
  const auto opened = OpenAt(data(), repository_.get(), [] { return FailedPrecondition("the log is short"); });
  ASSERT_OK(opened);
  EXPECT_FALSE(FileExists(data() + "/damaged"));
}

TEST_F(SnapshotTest, AStoreBehindItsSnapshotHasLostItsLog) {
  OpenNode* node = new OpenNode(data());
  ASSERT_OK(node->applier->Apply(Changes().Put("a").Take()));
  std::filesystem::copy(data(), dir_ / "torn", std::filesystem::copy_options::recursive);
  ASSERT_OK(node->applier->Apply(Changes(1).Put("b").Take()));
  ASSERT_OK(Take(node));
  delete node;
  const auto opened = OpenAt(dir_ / "torn", repository_.get());
  ASSERT_OK(opened);
  EXPECT_TRUE(opened->restored.has_value());
  EXPECT_TRUE((*opened->store->GetItem("b")).has_value());
  // A roll-back is no loss: it stays.
  RestoreOptions back;
  back.data_dir = dir_ / "back";
  ASSERT_OK(RestoreSnapshot(*repository_, back));
  const auto again = OpenAt(dir_ / "back", repository_.get());
  ASSERT_OK(again);
  EXPECT_FALSE(again->restored.has_value());
}

TEST_F(SnapshotTest, WithoutAGoodOneTheLogDecides) {
  TakeTwo();
  for (const SnapshotManifest* manifest : {&first_, &second_}) {
    std::filesystem::remove(snapshots() + "/" + manifest->id + "/store/CURRENT");
  }
  std::filesystem::remove(data() + "/CURRENT");
  const auto truncated = [] { return FailedPrecondition("the log is short"); };
  const auto refused = OpenAt(data(), repository_.get(), truncated);
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("the log is short"), std::string::npos);
  const auto opened = OpenAt(data(), repository_.get(), [] { return Status::Ok(); });
  ASSERT_OK(opened);
  EXPECT_TRUE(opened->from_log);
  EXPECT_EQ(opened->store->sequence(), 0U);
  EXPECT_GT(opened->store->epoch(), second_.epoch);
}

TEST_F(SnapshotTest, AnotherSpaceIsNotRestoredAndASecondOwnerIsRefused) {
  TakeTwo();
  RestoreOptions options;
  options.data_dir = dir_ / "restored";
  options.space_id = "t";
  options.dim = 3;
  options.metric = "cosine";
  const auto other = RestoreSnapshot(*repository_, options);
  EXPECT_EQ(other.status().code(), Code::kNotFound);
  EXPECT_NE(other.status().message().find("embedding space s"), std::string::npos);
  OpenNode node(data());
  options.data_dir = data();
  EXPECT_EQ(RestoreSnapshot(*repository_, options).status().code(), Code::kFailedPrecondition);
}

TEST_F(SnapshotTest, LinksThatLeadOutAreNotFollowed) {
  TakeTwo();
  const std::string inside = snapshots() + "/" + second_.id;
  std::filesystem::rename(inside, dir_ / "elsewhere");
  std::filesystem::create_directory_symlink(dir_ / "elsewhere", inside);
  EXPECT_EQ(repository_->Read(second_.id).status().code(), Code::kNotFound);
  std::filesystem::remove(inside);
  std::filesystem::rename(dir_ / "elsewhere", inside);
  std::filesystem::rename(inside + "/store", dir_ / "store-elsewhere");
  std::filesystem::create_directory_symlink(dir_ / "store-elsewhere", inside + "/store");
  EXPECT_EQ(repository_->Verify(second_, {}).code(), Code::kCorruption);
  for (const char* id : {"../x", "", "A", "-x", "x/y", ".tmp-x"}) {
    EXPECT_EQ(repository_->Read(id).status().code(), Code::kInvalidArgument) << id;
    EXPECT_EQ(repository_->Remove(id).code(), Code::kInvalidArgument) << id;
  }
}

// Files are copied where they cannot be links: the snapshot and what is restored from it are the same.
TEST_F(SnapshotTest, AnotherFileSystemGetsCopies) {
  struct stat here {};
  struct stat there {};
  ASSERT_EQ(::stat(dir_.path().c_str(), &here), 0);
  std::string other;
  for (const char* candidate : {"/dev/shm", "/tmp", "/var/tmp"}) {
    if (::stat(candidate, &there) == 0 && there.st_dev != here.st_dev && ::access(candidate, W_OK) == 0) {
      other = candidate;
    }
  }
  if (other.empty()) GTEST_SKIP() << "there is one file system only";
  other += "/freshet-other-" + std::to_string(::getpid());
  repository_ = OpenLocalRepository(other);
  EXPECT_FALSE(repository_->SharesWith(dir_.path()));
  TakeTwo();
  EXPECT_OK(repository_->Verify(second_, {}));
  RestoreAndCompare({"a", "c", "d"});
  std::filesystem::remove_all(other);
}

}  // namespace
}  // namespace freshet::test
