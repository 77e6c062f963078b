// What tests of snapshots share: a store beside a repository, and snapshots of it.
#pragma once

#include <filesystem>
#include <fstream>

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
  void RestoreAndCompare(const Ids& expected) {
    RestoreOptions options;
    options.data_dir = dir_ / "restored";
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
