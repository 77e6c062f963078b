// What an audit finds and has repaired: nodes that nothing leads to, recall that a rebuild raises, or does not.
#include <algorithm>
#include <numeric>
#include <set>

#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "index_file_rewrite.h"

namespace freshet {
namespace {

constexpr int kDim = 24;
constexpr std::size_t kRows = 4000;

HnswOptions Options() {
  HnswOptions options;
  options.dim = kDim;
  options.m = 8;
  options.ef_construction = 60;
  options.capacity = 20'000;
  return options;
}

std::vector<Label> AllLabels() {
  std::vector<Label> labels(kRows);
  std::iota(labels.begin(), labels.end(), Label{0});
  return labels;
}

class HnswAudit : public ::testing::Test {
 protected:
  // A file of all rows, in which nothing leads to some nodes of level 0 any more: the first so many that are, or are
  // not, on a level above as well. Their labels.
  std::vector<Label> CutOff(std::size_t count, bool above) {
    auto index = MakeHnswIndex(Options());
    EXPECT_OK(index);
    EXPECT_OK((*index)->Insert(AllLabels(), set_.values));
    EXPECT_OK((*index)->Settle());
    {
      const auto cut = (*index)->Cut();
      EXPECT_OK(cut);
      EXPECT_OK((*cut)->Write(path_));
    }
    std::vector<Label> labels;
    EXPECT_OK(test::RewriteIndexFile(path_, [&](test::IndexFileParts* parts) {
      const auto* uppers = parts->Items<std::uint32_t>(IndexSection::kUppers);
      std::set<std::uint32_t> are_above;
      for (std::uint64_t id = 0; id < parts->header.uppers; ++id) are_above.insert(uppers[2 * id]);
      for (std::uint32_t slot = 0; slot < parts->header.rows && labels.size() < count; ++slot) {
        if (!parts->IsNode(slot) || are_above.contains(slot) != above) continue;
        parts->LeadNothingTo(slot);
        labels.push_back(parts->Items<Label>(IndexSection::kLabels)[slot]);
      }
    }));
    EXPECT_EQ(labels.size(), count);
    return labels;
  }
  std::unique_ptr<Index> Open() {
    auto index = OpenHnswIndex(path_, Options());
    EXPECT_OK(index);
    return std::move(*index);
  }
  // A search for the vector itself, by the graph.
  [[nodiscard]] bool IsFound(const Index& index, Label label) const {
    SearchOptions options;
    options.k = 1;
    options.ef = 40;
    const auto hits = index.Search({set_.Row(label), kDim}, options);
    EXPECT_OK(hits);
    return hits->size() == 1 && hits->front().label == label;
  }

  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, kRows, kDim, 40);
  const test::TempDir dir_;
  const std::string path_ = dir_ / "index";
};

TEST_F(HnswAudit, WhatNothingLeadsToIsFoundAndLinkedAgain) {
  const std::vector<Label> lost = CutOff(10, false);
  const auto index = Open();
  const auto before = index->Audit({});
  ASSERT_OK(before);
  EXPECT_GE(before->unreachable, lost.size());
  EXPECT_LE(before->unreachable, lost.size() + 10);  // those that nothing but the lost ones led to
  EXPECT_FALSE(before->rebuilding);
  ASSERT_OK(index->Settle());
  const auto after = index->Audit({});
  ASSERT_OK(after);
  EXPECT_EQ(after->unreachable, 0U);
  for (const Label label : lost) EXPECT_TRUE(IsFound(*index, label)) << label;
}

// A node that is above as well is entered by a search for just it; every other one passes it by.
TEST_F(HnswAudit, WhatIsOnlyEnteredFromAboveIsNotReached) {
  const std::vector<Label> lost = CutOff(10, true);
  const auto index = Open();
  const auto before = index->Audit({});
  ASSERT_OK(before);
  EXPECT_GE(before->unreachable, lost.size());
  ASSERT_OK(index->Settle());
  const auto after = index->Audit({});
  ASSERT_OK(after);
  EXPECT_EQ(after->unreachable, 0U);
}

TEST_F(HnswAudit, NothingIsAmissWithOneNodeOrNone) {
  auto index = MakeHnswIndex(Options());
  ASSERT_OK(index);
  for (Label label = 0; label < 3; ++label) {
    const auto health = (*index)->Audit({});
    ASSERT_OK(health);
    EXPECT_EQ(health->nodes, label);
    EXPECT_EQ(health->unreachable, 0U);
    ASSERT_OK((*index)->Insert({&label, 1}, {set_.Row(label), kDim}));
    ASSERT_OK((*index)->Settle());
  }
}

// Nothing is held between pieces that the worker waits for: rows come, go and are linked there.
TEST_F(HnswAudit, RowsAreLinkedBetweenItsPieces) {
  auto made = MakeHnswIndex(Options());
  ASSERT_OK(made);
  Index& index = **made;
  ASSERT_OK(index.Insert(AllLabels(), set_.values));
  ASSERT_OK(index.Settle());
  Label next = kRows;
  AuditOptions options;
  options.between = [&] {
    // One that is linked, and one that dies before it is, whose slot is to be freed.
    for (int i = 0; i < 2; ++i, ++next) {
      EXPECT_OK(index.Insert({&next, 1}, {set_.Row(next % kRows), kDim}));
      if (i == 1) index.Tombstone({&next, 1});
    }
    EXPECT_TRUE(test::WaitFor([&] { return index.Stats().fresh == 0; }));
    return true;
  };
  const auto health = index.Audit(options);
  ASSERT_OK(health);
  EXPECT_GE(next, kRows + 6);
  EXPECT_EQ(health->unreachable, 0U);
  EXPECT_GE(health->recall, 0.9);
}

TEST_F(HnswAudit, EndsBetweenAnyTwoPieces) {
  auto made = MakeHnswIndex(Options());
  ASSERT_OK(made);
  Index& index = **made;
  ASSERT_OK(index.Insert(AllLabels(), set_.values));
  ASSERT_OK(index.Settle());
  std::size_t pieces = 0;
  for (Status status = Cancelled(""); !status.ok(); ++pieces) {
    std::size_t left = pieces;
    AuditOptions options;
    options.between = [&] { return left-- > 0; };
    status = index.Audit(options).status();
    EXPECT_TRUE(status.ok() || status.code() == Code::kCancelled) << status.ToString();
    ASSERT_LT(pieces, 10'000U);
  }
  EXPECT_GE(pieces, 4U);
  // What they held of it is given back: slots are freed.
  const std::vector<Label> labels = AllLabels();
  index.Tombstone(std::span(labels).first(kRows / 2));
  ASSERT_OK(index.Maintain());
  ASSERT_OK(index.Settle());
  EXPECT_EQ(index.Stats().consolidations, 1U);
}

// A graph that is built too thin for its rows, which a rebuild cannot change: it is tried once.
TEST_F(HnswAudit, LowRecallIsRebuiltForOnceWhereThatDoesNotHelp) {
  HnswOptions options = Options();
  options.m = 8;
  options.ef_construction = 8;
  options.min_recall = 0.99;
  auto made = MakeHnswIndex(options);
  ASSERT_OK(made);
  Index& index = **made;
  const test::VectorSet even = test::ClusteredVectors(test::TestSeed(), 0, kRows, kDim, 1);
  ASSERT_OK(index.Insert(AllLabels(), even.values));
  ASSERT_OK(index.Settle());
  // What cannot be reached is linked first.
  IndexHealth health;
  ASSERT_TRUE(test::WaitFor([&] {
    const auto audit = index.Audit({});
    EXPECT_OK(audit);
    EXPECT_OK(index.Settle());
    health = *audit;
    return health.rebuilding;
  }));
  EXPECT_LT(health.recall, options.min_recall);
  EXPECT_TRUE(test::WaitFor([&] { return index.Stats().rebuilds == 1; }));
  EXPECT_NE(index.Stats().rebuild_reason.find("recall"), std::string::npos) << index.Stats().rebuild_reason;
  EXPECT_EQ(index.LiveLabels(), AllLabels());
  for (std::uint64_t seed = 2; seed < 8; ++seed) {
    AuditOptions audit;
    audit.seed = seed;
    const auto again = index.Audit(audit);
    ASSERT_OK(again);
    EXPECT_FALSE(again->rebuilding) << "recall " << again->recall << " after " << health.recall;
    ASSERT_OK(index.Settle());
  }
  EXPECT_EQ(index.Stats().rebuilds_begun, 1U);
  EXPECT_FALSE(index.Stats().rebuilding);
}

}  // namespace
}  // namespace freshet
