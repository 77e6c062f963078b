// A rebuild rests between its slices, and nothing ever waits on that.
#include "throttle.h"

#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "hnsw_index.h"
#include "label_range.h"

namespace freshet {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Throttle::Time kStart = Throttle::Time{} + hours(1000);

TEST(Throttle, RestsAreWhatIsLeftOfTheShare) {
  EXPECT_EQ(Throttle::OfShare(1)(milliseconds(8)), Throttle::Duration::zero());
  EXPECT_EQ(Throttle::OfShare(.5)(milliseconds(8)), milliseconds(8));
  EXPECT_EQ(Throttle::OfShare(.25)(milliseconds(8)), milliseconds(24));
  EXPECT_EQ(Throttle::OfShare(.05)(hours(1)), Throttle::kLongestRest);
}

TEST(Throttle, NothingUrgentRests) {
  Throttle throttle(Throttle::OfShare(.5));
  EXPECT_LE(throttle.until(), kStart);
  EXPECT_TRUE(throttle.Worked(kStart, kStart + seconds(1), false));
  EXPECT_EQ(throttle.until(), kStart + seconds(2));
  EXPECT_FALSE(throttle.Worked(kStart + seconds(2), kStart + seconds(3), true));
  EXPECT_EQ(throttle.until(), kStart + seconds(3));
}

constexpr int kDim = 16;
constexpr std::size_t kRows = 6000;
constexpr std::size_t kLeft = 2000;

class ThrottledRebuild : public ::testing::Test {
 protected:
  HnswOptions Options() const {
    HnswOptions options;
    options.dim = kDim;
    options.m = 8;
    options.ef_construction = 20;
    options.capacity = kRows;
    options.max_fresh = 256;
    return options;
  }
  // Most of its slots are free, and the rebuild that is due for it has begun.
  void BeginRebuild(Index* index) const {
    ASSERT_OK(index->Insert(Range(0, kRows), set_.values));
    ASSERT_OK(index->Settle());
    index->Tombstone(Range(kLeft, kRows));
    ASSERT_OK(index->Maintain());
    ASSERT_OK(index->Settle());
    ASSERT_OK(index->Maintain());
    ASSERT_TRUE(test::WaitFor([&] { return index->Stats().rebuilds_begun == 1; }));
  }
  // Rests an hour after each slice, which no test would see the end of.
  std::unique_ptr<Index> Resting(const HnswOptions& options) const {
    std::unique_ptr<Index> index = std::make_unique<HnswIndex>(options, [](Throttle::Duration) { return hours(1); });
    BeginRebuild(index.get());
    EXPECT_TRUE(test::WaitFor([&] { return index->Stats().rebuild_rests == 1; }));
    return index;
  }
  std::span<const float> Rows(std::size_t begin, std::size_t end) const {
    return {set_.Row(begin), (end - begin) * kDim};
  }

  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, kRows, kDim, 40);
};

TEST_F(ThrottledRebuild, RestsByItsShare) {
  for (const double share : {1.0, 0.3}) {
    HnswOptions options = Options();
    options.rebuild_cpu_share = share;
    const auto index = MakeHnswIndex(options);
    ASSERT_OK(index);
    BeginRebuild(index->get());
    ASSERT_OK((*index)->Settle());
    EXPECT_EQ((*index)->Stats().rebuilds, 1U);
    EXPECT_EQ((*index)->Stats().rebuild_rests > 5, share < 1);
  }
}

TEST_F(ThrottledRebuild, AddsAndDeletesGoOnMeanwhileAndMuchOfThemEndsTheRest) {
  const auto index = Resting(Options());
  ASSERT_OK(index->Insert(Range(kRows, kRows + 100), Rows(0, 100)));
  index->Tombstone(Range(0, 100));
  EXPECT_TRUE(test::WaitFor([&] { return index->Stats().fresh == 0; })) << "rows are not linked";
  EXPECT_EQ(index->Stats().rebuild_rests, 1U);
  EXPECT_TRUE(index->Stats().rebuilding);
  // Many times the fresh segment.
  ASSERT_OK(index->Insert(Range(kRows + 100, kRows + 2000), Rows(100, 2000)));
  std::vector<Label> live = Range(100, kLeft);
  for (Label label = kRows; label < kRows + 2000; ++label) live.push_back(label);
  EXPECT_EQ(index->LiveLabels(), live);
}

TEST_F(ThrottledRebuild, AnInsertThatWaitsForASlotEndsTheRest) {
  HnswOptions options = Options();
  options.max_fresh = 100'000;
  const auto index = Resting(options);
  ASSERT_OK(index->Insert(Range(kRows, 2 * kRows - kLeft), Rows(kLeft, kRows)));  // into every free slot
  index->Tombstone(Range(0, 10));
  EXPECT_EQ(index->Stats().rebuilds, 0U);
  ASSERT_OK(index->Insert(Range(3 * kRows, 3 * kRows + 10), Rows(0, 10)));
  EXPECT_EQ(index->Stats().rebuilds, 1U);
}

TEST_F(ThrottledRebuild, StopsInTheMiddleOfARest) {
  auto index = Resting(Options());
  index.reset();
}

}  // namespace
}  // namespace freshet
