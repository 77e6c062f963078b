// What an index does when it passes one of its bounds: of memory, and of what cannot be reached.
#include <cmath>

#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "label_range.h"

namespace freshet {
namespace {

constexpr int kDim = 16;
constexpr std::size_t kRows = 6000;

HnswOptions Options() {
  HnswOptions options;
  options.dim = kDim;
  options.m = 8;
  options.ef_construction = 40;
  options.capacity = 20'000;
  options.min_live_fraction = 0.1;  // so that it is not what repairs
  return options;
}

class RepairBounds : public ::testing::Test {
 protected:
  [[nodiscard]] std::unique_ptr<Index> Made(const HnswOptions& options) const {
    auto index = MakeHnswIndex(options);
    EXPECT_OK(index);
    EXPECT_OK((*index)->Insert(Range(0, kRows), set_.values));
    EXPECT_OK((*index)->Settle());
    return std::move(*index);
  }
  // Maintained until nothing more is begun.
  static void Maintain(Index* index) {
    for (int i = 0; i < 4; ++i) {
      ASSERT_OK(index->Maintain());
      ASSERT_OK(index->Settle());
    }
  }

  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, kRows, kDim, 40);
};

TEST_F(RepairBounds, WhatIsFreeIsGivenBackWhenMemoryIsOverItsBound) {
  const std::size_t full = Made(Options())->Stats().memory_bytes;
  for (const bool bounded : {false, true}) {
    HnswOptions options = Options();
    options.max_memory_bytes = bounded ? full * 95 / 100 : 0;
    const auto index = Made(options);
    index->Tombstone(Range(0, kRows / 5));
    Maintain(index.get());
    const IndexStats stats = index->Stats();
    EXPECT_EQ(stats.consolidations, bounded ? 1U : 0U);
    EXPECT_EQ(stats.rebuilds, bounded ? 1U : 0U);
    EXPECT_EQ(stats.memory_bytes < full * 95 / 100, bounded);
    EXPECT_EQ(stats.slots, bounded ? kRows * 4 / 5 : kRows);
    EXPECT_FALSE(stats.over_memory);
    EXPECT_FALSE(stats.live_over_memory);
    EXPECT_EQ(index->LiveLabels(), Range(kRows / 5, kRows));
    if (bounded) {
      EXPECT_NE(stats.rebuild_reason.find("index.max_memory_bytes"), std::string::npos) << stats.rebuild_reason;
    }
  }
}

// No repair would help: it says so, and takes rows all the same.
TEST_F(RepairBounds, LiveRowsThatNeedMoreMemoryAreTakenAndToldOf) {
  HnswOptions options = Options();
  options.max_memory_bytes = 1000;
  const auto index = Made(options);
  index->Tombstone(Range(0, kRows / 5));
  Maintain(index.get());
  ASSERT_OK(index->Insert(Range(kRows, 2 * kRows), set_.values));
  Maintain(index.get());
  const IndexStats stats = index->Stats();
  EXPECT_TRUE(stats.over_memory);
  EXPECT_TRUE(stats.live_over_memory);
  EXPECT_EQ(stats.rebuilds_begun, 0U);
  EXPECT_EQ(stats.live, kRows * 2 - kRows / 5);
}

TEST_F(RepairBounds, OfABoundThatThereIsNoneOfIsRefused) {
  HnswOptions options = Options();
  for (const double share : {-0.1, 1.1, std::nan("")}) {
    options.max_unreachable = share;
    EXPECT_EQ(options.Validate().code(), Code::kConfig);
  }
}

// So thin a graph leaves nodes out of reach however they are linked: a rebuild is tried, and, as it has as many, once.
TEST_F(RepairBounds, WhatStaysOutOfReachIsRebuiltFor) {
  HnswOptions options = Options();
  options.m = 2;
  options.ef_construction = 2;
  options.min_recall = 0;
  options.max_unreachable = 0;
  const auto index = Made(options);
  IndexHealth health;
  for (int i = 0; i < 10 && !health.rebuilding; ++i) {
    const auto audit = index->Audit({});
    ASSERT_OK(audit);
    EXPECT_GT(audit->unreachable, 0U);
    EXPECT_EQ(index->Stats().unreachable, static_cast<double>(audit->unreachable) / static_cast<double>(audit->nodes));
    ASSERT_OK(index->Settle());
    health = *audit;
  }
  EXPECT_TRUE(health.rebuilding);
  EXPECT_NE(health.because.find("reached"), std::string::npos) << health.because;
  EXPECT_EQ(index->Stats().rebuild_reason, health.because);
  EXPECT_EQ(index->Stats().rebuilds, 1U);
  EXPECT_EQ(index->LiveLabels(), Range(0, kRows));
  // Nor within the time that lies between two.
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK(index->Audit({}));
    ASSERT_OK(index->Settle());
  }
  EXPECT_EQ(index->Stats().rebuilds_begun, 1U);
}

}  // namespace
}  // namespace freshet
