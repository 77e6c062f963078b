// Bits flipped and files cut short at random places of every kind of file in a snapshot and in a store: refused by name
// or harmless, never a crash, never a wrong answer. FRESHET_DAMAGES says how many; a quarter of them are of stores.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/store/restore.h"
#include "freshet/store/snapshotter.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr int kDim = 4;
constexpr int kItems = 40;
constexpr int kUsers = 6;
// Every so many of those that are found are repaired as well: that is the slow part, and the same for all.
constexpr int kRepairEvery = 25;
constexpr int kRestoreEvery = 100;

StoreOptions OptionsAt(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.space_id = "s";
  options.dim = kDim;
  options.write_buffer_bytes = std::size_t{1} << 20;
  options.cache_bytes = std::size_t{8} << 20;
  return options;
}

HnswOptions IndexOptions() {
  HnswOptions options;
  options.dim = kDim;
  options.capacity = 4096;
  return options;
}

EncodedBatch BatchOf(int from, int to) {
  EncodedBatch batch;
  batch.space_id = "s";
  batch.progress.push_back(PartitionProgress{{"items", 0}, to, 0, 0, 0, 0});
  batch.progress.push_back(PartitionProgress{{"interactions", 0}, to, 0, 0, 0, 0});
  for (int i = from; i < to; ++i) {
    ItemChange& change = batch.items.emplace_back();
    change.update.item_id = StrCat("item-", i % kItems);
    change.update.attributes = {{"title", StrCat("title ", i)}};
    change.update.vector = {1, static_cast<float>(i), 0, 1};
    change.position = {0, i};
    UserChange& event = batch.users.emplace_back();
    event.body = Interaction{StrCat("user-", i % kUsers), change.update.item_id, "view", 1, i + 1};
    event.position = {0, i};
    event.progress_index = 1;
  }
  return batch;
}

// Everything that an answer could show, and where reading goes on.
using Content = std::map<std::string, std::string>;

Result<Content> ContentOf(Store* store) {
  const StoreOptions& options = store->options();
  SystemClock clock;
  Metrics metrics;
  Applier applier(ApplierOptions{}, options, store, &clock, &metrics);
  FRESHET_TRY(applier.Rebuild([&] {
    return IndexFiles(store).Open([&](const std::string& path) { return OpenHnswIndex(path, IndexOptions()); },
                                  [&] { return MakeHnswIndex(IndexOptions()); });
  }));
  FRESHET_TRY(applier.Audit());
  Content content;
  for (const std::string& id : applier.catalog().LiveIds()) {
    FRESHET_ASSIGN(const auto vector, applier.GetVector(id));
    FRESHET_ASSIGN(const auto attributes, applier.GetAttributes(id));
    if (!vector || !attributes) return Corruption(id + ": no vector or no attributes");
    content[id] = StrCat((*vector)[1], " ", std::get<std::string>((*attributes)[0].second));
  }
  FRESHET_TRY(store->ForEachUser([&](std::string_view id, const UserState& user) {
    std::string& shown = content[std::string(id)];
    for (const HistoryEntry& event : user.history) shown += StrCat(event.item_id, "@", event.timestamp_ms, " ");
    return Status::Ok();
  }));
  FRESHET_ASSIGN(const auto progress, store->Progress());
  for (const auto& [partition, row] : progress) {
    content[StrCat(partition.topic, "[", partition.partition, "]")] = StrCat(row.next_offset);
  }
  return content;
}

// As an engine starts: what is found damaged, at opening or while its rows are read, is restored.
Result<Content> ContentAfterStart(const std::string& data, SnapshotRepository* repository, bool* restored) {
  for (bool damaged = false;; damaged = true) {
    FRESHET_ASSIGN(OpenedStore opened, OpenOrRestore(OptionsAt(data), repository, false, damaged, {}, {}));
    *restored = opened.restored.has_value();
    auto content = ContentOf(opened.store.get());
    if (content.ok() || damaged || content.status().code() != Code::kCorruption) return content;
  }
}

// The same without repairing: the error that an engine would restore for.
Result<Content> ContentAsFound(const std::string& data, std::uint64_t newest_sequence) {
  FRESHET_ASSIGN(const std::unique_ptr<Store> store, Store::Open(OptionsAt(data)));
  if (store->sequence() < newest_sequence) return Corruption(data + ": is behind its newest snapshot");
  return ContentOf(store.get());
}

std::vector<std::string> FilesOf(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (entry.is_regular_file() && entry.file_size() > 0 && name != "freshet.lock" && name != "LOCK") {
      files.push_back(std::filesystem::relative(entry.path(), directory));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// "000012.sst" and "MANIFEST-000005" are kinds, not names.
std::string KindOf(const std::string& file) {
  const std::string name = std::filesystem::path(file).filename();
  if (file.starts_with("index")) return "index";
  if (file.starts_with("model/")) return "model";
  if (name.ends_with(".sst")) return "table";
  if (name.ends_with(".log")) return "log";
  return name.substr(0, name.find('-'));
}

// Never through a hard link.
void Replace(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

// A flipped bit, or a cut.
std::string Damaged(std::string bytes, std::mt19937_64* random) {
  if ((*random)() % 4 == 0) {
    bytes.resize((*random)() % bytes.size());
  } else {
    char& byte = bytes[(*random)() % bytes.size()];
    byte = static_cast<char>(byte ^ (1 << ((*random)() % 8)));
  }
  return bytes;
}

// Tables and the index file are never written again: links will do.
void CopyStore(const std::string& from, const std::string& to) {
  std::filesystem::remove_all(to);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(from)) {
    const std::filesystem::path target = std::filesystem::path(to) / std::filesystem::relative(entry.path(), from);
    std::filesystem::create_directories(target.parent_path());
    if (!entry.is_regular_file()) continue;
    if (target.extension() == ".sst" || target.parent_path().filename() == "index") {
      std::filesystem::create_hard_link(entry.path(), target);
    } else {
      std::filesystem::copy_file(entry.path(), target);
    }
  }
}

class DamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* tries = std::getenv("FRESHET_DAMAGES");
    tries_ = tries == nullptr ? 2'000 : std::atoi(tries);
    ASSERT_OK(CreateDirectories(dir_ / "model"));
    context_.model_directory = dir_ / "model";
    for (const std::string name : {"item_tower.pt", "model.yaml", "user_tower.pt"}) {
      const std::string bytes = StrCat(name, std::string(500, 'm'));
      std::ofstream(dir_ / "model/" + name, std::ios::binary) << bytes;
      context_.model_files[name] = Sha256Hex(bytes);
    }
    Run([&](Applier* applier, Snapshotter* snapshotter) {
      for (int i = 0; i < 2; ++i) {
        ASSERT_OK(applier->Apply(BatchOf(i * 30, (i + 1) * 30)));
        const auto manifest = snapshotter->Create(true);
        ASSERT_OK(manifest);
        ids_[i] = manifest->id;
      }
      // In the log only, as a kill leaves it: what a damaged log may not lose silently.
      ASSERT_OK(applier->Apply(BatchOf(60, 70)));
    });
    std::filesystem::copy(dir_ / "data", dir_ / "killed", std::filesystem::copy_options::recursive);
    // A third snapshot holds the guard over the log's end.
    Run([&](Applier*, Snapshotter* snapshotter) {
      const auto last = snapshotter->Create(true);
      ASSERT_OK(last);
      ids_[2] = last->id;
      newest_sequence_ = last->sequence;
    });
  }
  // One life of the process; closing it leaves the log as it is.
  void Run(const std::function<void(Applier*, Snapshotter*)>& work) {
    const StoreOptions options = OptionsAt(dir_ / "data");
    auto store = Store::Open(options);
    ASSERT_OK(store);
    SystemClock clock;
    Metrics metrics;
    Applier applier(ApplierOptions{}, options, store->get(), &clock, &metrics);
    ASSERT_OK(applier.Rebuild([&] { return MakeHnswIndex(IndexOptions()); }));
    SnapshotOptions snapshots;
    snapshots.directory = dir_ / "snapshots";
    Snapshotter snapshotter(snapshots, context_, repository_.get(), store->get(), &applier, &clock, &metrics);
    work(&applier, &snapshotter);
  }
  // Each file once, then any. Ends with the test when one has failed.
  void ForEachDamage(const std::vector<std::string>& files, int tries,
                     const std::function<void(const std::string& file, int i)>& damage) {
    std::set<std::string> kinds;
    for (int i = 0; i < std::max(tries, static_cast<int>(files.size())); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const std::string& file = at < files.size() ? files[at] : files[random_() % files.size()];
      SCOPED_TRACE(StrCat("damage ", i, ", of ", file));
      kinds.insert(KindOf(file));
      ASSERT_NO_FATAL_FAILURE(damage(file, i));
    }
    for (const auto& [what, count] : table_) std::cout << "  " << what << ", " << count << "\n";
    kinds_ = kinds;
  }
  void Count(const std::string& file, const std::string& outcome) { ++table_[KindOf(file) + ": " + outcome]; }

  std::mt19937_64 random_{TestSeed()};
  TempDir dir_;
  std::unique_ptr<SnapshotRepository> repository_ = OpenLocalRepository(dir_ / "snapshots");
  SnapshotContext context_;
  std::string ids_[3];
  std::uint64_t newest_sequence_ = 0;
  int tries_ = 0;
  std::map<std::string, int> table_;
  std::set<std::string> kinds_;
};

// In a snapshot: every damage is refused by file, and never restored.
TEST_F(DamageTest, OfASnapshotIsRefusedByName) {
  const std::string snapshot = dir_ / "snapshots/" + ids_[2];
  ForEachDamage(FilesOf(snapshot), tries_ - tries_ / 4, [&](const std::string& file, int i) {
    const std::string path = snapshot + "/" + file;
    const std::string whole = *ReadFile(path);
    Replace(path, Damaged(whole, &random_));
    const auto manifest = repository_->Read(ids_[2]);
    const Status status = manifest.ok() ? repository_->Verify(*manifest, {}) : manifest.status();
    ASSERT_EQ(status.code(), Code::kCorruption);
    ASSERT_NE(status.message().find(file), std::string::npos) << status.ToString();
    if (manifest.ok() && std::filesystem::file_size(path) != whole.size()) {
      ASSERT_EQ(repository_->CheckFiles(*manifest).code(), Code::kCorruption);
    }
    // A damaged model is no reason: it is not part of a data directory.
    if (i % kRestoreEvery == 0 && KindOf(file) != "model") {
      RestoreOptions options;
      options.data_dir = dir_ / "restored";
      std::filesystem::remove_all(options.data_dir);
      const auto restored = RestoreSnapshot(*repository_, options);
      ASSERT_OK(restored);
      ASSERT_EQ(restored->manifest.id, ids_[1]);
      // One whose manifest does not read is behind all others: not even tried.
      ASSERT_EQ(restored->refused.size(), manifest.ok() ? 1U : 0U);
      if (manifest.ok()) {
        ASSERT_NE(restored->refused[0].find(file), std::string::npos) << restored->refused[0];
      }
      Count(file, "refused, and the next one was restored");
    }
    Count(file, "refused by name");
    Replace(path, whole);
  });
  kinds_.erase("log");  // there is one only where something was written while the snapshot was cut
  EXPECT_EQ(kinds_,
            (std::set<std::string>{"CURRENT", "MANIFEST", "OPTIONS", "index", "manifest.json", "model", "table"}));
}

// In a store: it is as it was, or it is told, and then restored to what the snapshot says.
TEST_F(DamageTest, OfAStoreIsRepairedOrHarmless) {
  bool restored = false;
  const auto expected = ContentAfterStart(dir_ / "data", repository_.get(), &restored);
  ASSERT_OK(expected);
  ASSERT_FALSE(restored);
  ASSERT_EQ(expected->size(), std::size_t{kItems + kUsers + 2});
  int found = 0;
  const std::string copy = dir_ / "copy";
  ForEachDamage(FilesOf(dir_ / "killed"), tries_ / 4, [&](const std::string& file, int i) {
    const std::string bytes = Damaged(*ReadFile(dir_ / "killed/" + file), &random_);
    const auto make = [&] {
      CopyStore(dir_ / "killed", copy);
      Replace(copy + "/" + file, bytes);
    };
    make();
    const bool repair = found % kRepairEvery == 0;
    const auto content = ContentAsFound(copy, newest_sequence_);
    if (content.ok()) {
      ASSERT_EQ(*content, *expected);
      Count(file, "harmless");
      return;
    }
    ASSERT_EQ(content.status().code(), Code::kCorruption) << content.status().ToString();
    // By the directory or a file in it, or by the family and its row.
    const std::vector<std::string> names = {copy,       "meta",       "items", "vectors", "labels",
                                            "features", "attributes", "users", "offsets", "outbox"};
    ASSERT_TRUE(std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return content.status().message().find(name) != std::string::npos;
    })) << content.status().ToString();
    Count(file, "found by name");
    ++found;
    if (!repair) return;
    make();
    const auto after = ContentAfterStart(copy, repository_.get(), &restored);
    ASSERT_OK(after);
    ASSERT_TRUE(restored) << "damage " << i << " was found once, and then it was not";
    ASSERT_EQ(*after, *expected);
    Count(file, "found and restored");
  });
  EXPECT_EQ(kinds_, (std::set<std::string>{"CURRENT", "IDENTITY", "MANIFEST", "OPTIONS", "index", "log", "table"}));
}

}  // namespace
}  // namespace freshet::test
