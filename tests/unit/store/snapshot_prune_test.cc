// What is removed, and what never is.
#include "snapshot_fixture.h"

namespace freshet::test {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;

class PruneTest : public SnapshotTest {
 protected:
  // Oldest first; an hour apart.
  void TakeSome(int count) {
    node_ = std::make_unique<OpenNode>(data());
    for (int i = 0; i < count; ++i) {
      ASSERT_OK(node_->applier->Apply(Changes(i).Put("item " + std::to_string(i)).Take()));
      const auto manifest = Take(node_.get(), 100);
      ASSERT_OK(manifest);
      taken_.push_back(manifest->id);
      node_->clock.AdvanceMs(kHourMs);
    }
  }
  [[nodiscard]] static Retention AtMost(std::size_t count) {
    Retention keep;
    keep.max_count = count;
    return keep;
  }
  Result<std::vector<std::string>> PruneTo(const Retention& keep) {
    return Prune(&failing_, keep, node_->clock.WallMs());
  }
  [[nodiscard]] Ids Left() const {
    Ids ids;
    const auto entries = repository_->List();
    for (const SnapshotEntry& entry : *entries) ids.push_back(entry.id);
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  void Lose(const std::string& id, const std::string& file) {
    ASSERT_TRUE(std::filesystem::remove(snapshots() + "/" + id + "/" + file));
  }

  std::unique_ptr<OpenNode> node_;
  Ids taken_;
  FailingRepository failing_{repository_.get()};
};

// Its manifest reads, and that is all.
TEST_F(PruneTest, TheLastWholeOneStaysThoughNewerOnesAreThere) {
  TakeSome(3);
  Lose(taken_[1], "store/CURRENT");
  Spill(snapshots() + "/" + taken_[2] + "/index", "short");
  EXPECT_EQ(repository_->CheckFiles(repository_->Read(taken_[2]).value()).code(), Code::kCorruption);
  const auto removed = PruneTo(AtMost(1));
  ASSERT_OK(removed);
  EXPECT_EQ(*removed, Ids{});
  Retention everything = AtMost(1);
  everything.max_age_ms = 1;
  everything.max_bytes = 1;
  ASSERT_OK(PruneTo(everything));
  EXPECT_EQ(Left(), taken_);
}

TEST_F(PruneTest, ADamagedOneGoesWhenGoodOnesHaveGonePastIt) {
  TakeSome(4);
  Lose(taken_[0], "manifest.json");
  Lose(taken_[2], "store/CURRENT");
  // Two good ones: the third damaged one lies between them.
  ASSERT_OK(PruneTo(AtMost(2)));
  EXPECT_EQ(Left(), (Ids{taken_[1], taken_[2], taken_[3]}));
  // It is past the age, and a good one is newer.
  Retention young = AtMost(2);
  young.max_age_ms = 3 * kHourMs / 2;
  ASSERT_OK(PruneTo(young));
  EXPECT_EQ(Left(), Ids{taken_[3]});
}

TEST_F(PruneTest, WhatCannotBeReadIsNotTakenForDamaged) {
  TakeSome(4);
  failing_.reading[taken_[0]] = IoError("injected");
  failing_.reading[taken_[1]] = FailedPrecondition("snapshot format 2");
  ASSERT_OK(PruneTo(AtMost(1)));
  EXPECT_EQ(Left(), (Ids{taken_[0], taken_[1], taken_[3]}));
}

TEST_F(PruneTest, OneThatCannotBeRemovedKeepsNoOther) {
  TakeSome(4);
  failing_.removing[taken_[1]] = IoError("injected");
  EXPECT_EQ(PruneTo(AtMost(1)).status().code(), Code::kIoError);
  EXPECT_EQ(Left(), (Ids{taken_[1], taken_[3]}));
}

}  // namespace
}  // namespace freshet::test
