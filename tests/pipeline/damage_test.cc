// Bits flipped and files cut short at random places of every kind of file in a snapshot and in a store: refused by name
// or harmless, never a crash, never a wrong answer.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>

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

StoreOptions OptionsAt(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.space_id = "s";
  options.dim = kDim;
  options.write_buffer_bytes = std::size_t{1} << 20;
  options.cache_bytes = std::size_t{8} << 20;
  return options;
}

EncodedBatch BatchOf(int from, int to) {
  EncodedBatch batch;
  batch.space_id = "s";
  batch.progress.push_back(PartitionProgress{{"items", 0}, to, 0, 0, 0, 0});
  for (int i = from; i < to; ++i) {
    ItemChange& change = batch.items.emplace_back();
    change.update.item_id = StrCat("item-", i % kItems);
    change.update.attributes = {{"title", StrCat("title ", i)}};
    change.update.vector = {1, static_cast<float>(i), 0, 1};
    change.position = {0, i};
  }
  return batch;
}

// Everything that an answer could show.
Result<std::map<std::string, std::string>> ContentOf(const std::string& data, const SnapshotRepository* repository,
                                                     bool* restored) {
  const StoreOptions options = OptionsAt(data);
  std::map<std::string, std::string> content;
  for (bool damaged = false;; damaged = true) {
    FRESHET_ASSIGN(OpenedStore opened, OpenOrRestore(options, repository, false, damaged, {}, {}));
    *restored = opened.restored.has_value();
    HnswOptions index;
    index.dim = kDim;
    SystemClock clock;
    Metrics metrics;
    Applier applier(ApplierOptions{}, options, opened.store.get(), &clock, &metrics);
    Status read = applier.Rebuild([&] {
      return IndexFiles(opened.store.get())
          .Open([&](const std::string& path) { return OpenHnswIndex(path, index); },
                [&] { return MakeHnswIndex(index); });
    });
    if (read.ok()) read = applier.Audit();
    content.clear();
    for (const std::string& id : applier.catalog().LiveIds()) {
      if (!read.ok()) break;
      const auto vector = applier.GetVector(id);
      const auto attributes = applier.GetAttributes(id);
      if (!vector.ok() || !attributes.ok()) {
        read = vector.ok() ? attributes.status() : vector.status();
      } else if (!*vector || !*attributes) {
        read = Corruption(id + ": no vector or no attributes");
      } else {
        content[id] = StrCat((**vector)[1], " ", std::get<std::string>((**attributes)[0].second));
      }
    }
    if (read.ok() || damaged || read.code() != Code::kCorruption) {
      if (!read.ok()) return read;
      return content;
    }
  }
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
  if (name.ends_with(".sst")) return "table";
  if (name.ends_with(".log")) return "log";
  return name.substr(0, name.find('-'));
}

// A flipped bit, or a cut. Never through a hard link.
void Damage(const std::string& path, std::mt19937_64* random) {
  std::string bytes = *ReadFile(path);
  if ((*random)() % 4 == 0) {
    bytes.resize((*random)() % bytes.size());
  } else {
    char& byte = bytes[(*random)() % bytes.size()];
    byte = static_cast<char>(byte ^ (1 << ((*random)() % 8)));
  }
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

class DamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* tries = std::getenv("FRESHET_DAMAGES");
    tries_ = tries == nullptr ? 2'000 : std::atoi(tries);
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
    });
  }
  // One life of the process; closing it leaves the log as it is.
  void Run(const std::function<void(Applier*, Snapshotter*)>& work) {
    const StoreOptions options = OptionsAt(dir_ / "data");
    auto store = Store::Open(options);
    ASSERT_OK(store);
    SystemClock clock;
    Metrics metrics;
    HnswOptions index;
    index.dim = kDim;
    Applier applier(ApplierOptions{}, options, store->get(), &clock, &metrics);
    ASSERT_OK(applier.Rebuild([&] { return MakeHnswIndex(index); }));
    SnapshotOptions snapshots;
    snapshots.directory = dir_ / "snapshots";
    Snapshotter snapshotter(snapshots, {}, repository_.get(), store->get(), &applier, &clock, &metrics);
    work(&applier, &snapshotter);
  }
  void Count(const std::string& kind, const std::string& outcome) { ++table_[kind + ": " + outcome]; }
  void Print() const {
    for (const auto& [what, count] : table_) std::cout << "  " << what << ", " << count << "\n";
  }

  TempDir dir_;
  std::unique_ptr<SnapshotRepository> repository_ = OpenLocalRepository(dir_ / "snapshots");
  std::string ids_[3];
  int tries_ = 0;
  std::map<std::string, int> table_;
};

// In a snapshot: every damage is refused by file, and never restored.
TEST_F(DamageTest, OfASnapshotIsRefusedByName) {
  std::mt19937_64 random(TestSeed());
  const std::string snapshot = dir_ / "snapshots/" + ids_[2];
  const std::vector<std::string> files = FilesOf(snapshot);
  for (int i = 0; i < tries_ - tries_ / 4; ++i) {
    const std::string& file = files[random() % files.size()];
    const std::string whole = *ReadFile(snapshot + "/" + file);
    Damage(snapshot + "/" + file, &random);
    const auto manifest = repository_->Read(ids_[2]);
    const Status status = manifest.ok() ? repository_->Verify(*manifest, {}) : manifest.status();
    ASSERT_EQ(status.code(), Code::kCorruption) << file;
    ASSERT_NE(status.message().find(file), std::string::npos) << status.ToString();
    Count(KindOf(file), "refused by name");
    std::filesystem::remove(snapshot + "/" + file);
    std::ofstream(snapshot + "/" + file, std::ios::binary) << whole;
  }
  Print();
}

// In a store: it is as it was, or it is restored; with what the snapshot says either way.
TEST_F(DamageTest, OfAStoreIsRepairedOrHarmless) {
  std::mt19937_64 random(TestSeed());
  bool restored = false;
  const auto expected = ContentOf(dir_ / "data", repository_.get(), &restored);
  ASSERT_OK(expected);
  ASSERT_FALSE(restored);
  const std::vector<std::string> files = FilesOf(dir_ / "killed");
  ASSERT_TRUE(std::any_of(files.begin(), files.end(), [](const std::string& file) { return KindOf(file) == "log"; }));
  for (int i = 0; i < tries_ / 4; ++i) {
    const std::string copy = dir_ / "copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(dir_ / "killed", copy, std::filesystem::copy_options::recursive);
    const std::string& file = files[random() % files.size()];
    Damage(copy + "/" + file, &random);
    const auto content = ContentOf(copy, repository_.get(), &restored);
    SCOPED_TRACE(file);
    ASSERT_OK(content);
    ASSERT_EQ(*content, *expected) << file;
    Count(KindOf(file), restored ? "restored" : "harmless");
  }
  Print();
}

}  // namespace
}  // namespace freshet::test
