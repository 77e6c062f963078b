// What tests of snapshots share: a store beside a repository, and snapshots of it.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/store/restore.h"
#include "freshet/store/snapshotter.h"
#include "store_fixture.h"

namespace freshet::test {

using Ids = std::vector<std::string>;

inline std::string Slurp(const std::string& path) { return *ReadFile(path); }
inline void Spill(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);  // never through a hard link
  std::ofstream(path, std::ios::binary) << bytes;
}

// A repository some of whose operations fail as told; the rest goes to the one beneath it.
class FailingRepository final : public SnapshotRepository {
 public:
  explicit FailingRepository(SnapshotRepository* beneath) : beneath_(beneath) {}

  std::map<std::string, Status> reading;            // of manifests, by id
  std::function<void(SnapshotManifest*)> altering;  // what is listed
  std::map<std::string, Status> fetching;           // Fetch(), by "ID/NAME" or NAME
  std::map<std::string, Status> removing;           // by id
  Status noting;
  std::optional<std::uint64_t> free;
  std::optional<bool> shares;

  [[nodiscard]] Result<std::vector<SnapshotEntry>> List() const override {
    auto entries = beneath_->List();
    if (!entries.ok()) return entries;
    for (SnapshotEntry& entry : *entries) {
      if (const auto it = reading.find(entry.id); it != reading.end()) entry.status = it->second;
      if (altering) altering(&entry.manifest);
    }
    return entries;
  }
  [[nodiscard]] Result<SnapshotManifest> Read(const std::string& id) const override { return beneath_->Read(id); }
  Status Put(SnapshotManifest* manifest, const std::vector<SnapshotSource>& sources,
             const std::function<Status(const SnapshotSource&)>& check, const Throttle& throttle) override {
    return beneath_->Put(manifest, sources, check, throttle);
  }
  Status Fetch(const SnapshotManifest& manifest, const SnapshotFile& file, const std::string& path, bool stable,
               const Throttle& throttle) const override {
    for (const std::string& name : {manifest.id + "/" + file.name, file.name}) {
      if (const auto it = fetching.find(name); it != fetching.end()) return it->second;
    }
    return beneath_->Fetch(manifest, file, path, stable, throttle);
  }
  [[nodiscard]] Status CheckFiles(const SnapshotManifest& manifest) const override {
    return beneath_->CheckFiles(manifest);
  }
  [[nodiscard]] Status Verify(const SnapshotManifest& manifest, const Throttle& throttle) const override {
    return beneath_->Verify(manifest, throttle);
  }
  Status Remove(const std::string& id) override {
    const auto it = removing.find(id);
    return it == removing.end() ? beneath_->Remove(id) : it->second;
  }
  [[nodiscard]] Result<std::uint64_t> NotedSequence(std::uint64_t epoch) const override {
    return beneath_->NotedSequence(epoch);
  }
  Status NoteSequence(std::uint64_t epoch, std::uint64_t sequence) override {
    return noting.ok() ? beneath_->NoteSequence(epoch, sequence) : noting;
  }
  Result<std::size_t> CollectGarbage() override { return beneath_->CollectGarbage(); }
  [[nodiscard]] std::uint64_t free_bytes() const override { return free ? *free : beneath_->free_bytes(); }
  [[nodiscard]] bool SharesWith(const std::string& path) const override {
    return shares ? *shares : beneath_->SharesWith(path);
  }
  [[nodiscard]] std::string name() const override { return beneath_->name(); }

 private:
  SnapshotRepository* const beneath_;
};

class SnapshotTest : public ::testing::Test {
 protected:
  ~SnapshotTest() override { EXPECT_OK(ArmFaults("")); }
  [[nodiscard]] std::string data() const { return dir_ / "data"; }
  [[nodiscard]] std::string snapshots() const { return dir_ / "snapshots"; }
  SnapshotContext Context() {
    SnapshotContext context;
    context.vectors_topic = "vectors";
    context.user_events_topic = "user-events";
    context.changelog_ends = []() -> Result<std::vector<PartitionProgress>> {
      return std::vector<PartitionProgress>{{{"vectors", 0}, 5, 0, 0, 0, 0}, {{"user-events", 0}, 6, 0, 0, 0, 0}};
    };
    return context;
  }
  Result<SnapshotManifest> Take(OpenNode* node, std::size_t keep = 8) {
    SnapshotOptions options;
    options.directory = snapshots();
    options.keep.max_count = keep;
    Snapshotter snapshotter(options, Context(), repository_.get(), node->store.get(), node->applier.get(), &node->clock,
                            &node->metrics);
    node->clock.AdvanceMs(1000);
    return snapshotter.Create(/*hurry=*/true);
  }
  // Two snapshots: with a and b, and with a, c and d.
  void TakeTwo() {
    OpenNode node(data());
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Put("b").Take()));
    first_ = *Take(&node);
    ASSERT_OK(node.applier->Apply(Changes(2).Put("c").Delete("b").Put("d", -1).Take()));
    ASSERT_OK(node.applier->Apply(Changes(0, "interactions").Buy("u", "a").Take()));
    second_ = *Take(&node);
    newest_sequence_ = node.store->sequence();
  }
  [[nodiscard]] RestoreOptions RestoreTo(const std::string& name) const {
    RestoreOptions options;
    options.data_dir = dir_ / name;
    return options;
  }
  void RestoreAndCompare(const Ids& expected) {
    const RestoreOptions options = RestoreTo("restored");
    const auto restored = RestoreSnapshot(*repository_, options);
    ASSERT_OK(restored);
    OpenNode node(dir_ / "restored");
    EXPECT_EQ(node.Ids(), expected);
    EXPECT_EQ(node.applier->rebuilt_items(), 0U);
    EXPECT_OK(node.applier->Audit());
    EXPECT_EQ(node.store->Check({})->differences, 0U);
    EXPECT_GT(node.store->sequence(), newest_sequence_);
  }

  TempDir dir_;
  std::unique_ptr<SnapshotRepository> repository_ = OpenLocalRepository(dir_ / "snapshots");
  SnapshotManifest first_;
  SnapshotManifest second_;
  std::uint64_t newest_sequence_ = 0;
};

}  // namespace freshet::test
