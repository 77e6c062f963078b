#include "freshet/store/popularity.h"

#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr std::int64_t kWeekMs = 7LL * 24 * 3600 * 1000;

TEST(Popularity, AnOlderInteractionCountsHalfAfterAHalfLife) {
  Popularity popularity;
  popularity.Add("old", 0);
  popularity.Add("old", 0);
  popularity.Add("old", 0);
  popularity.Add("new", kWeekMs);
  popularity.Add("new", kWeekMs);
  const auto top = popularity.Top(0);
  ASSERT_EQ(top->size(), 2U);
  EXPECT_EQ((*top)[0].first, "new");
  EXPECT_DOUBLE_EQ((*top)[0].second, 2.0);
  EXPECT_DOUBLE_EQ((*top)[1].second, 1.5);
  EXPECT_EQ(popularity.CountsOf({"nobody's", "old", "new"}), (std::vector<double>{0.0, 1.5, 2.0}));
}

TEST(Popularity, ALateInteractionCountsAsOfItsTime) {
  Popularity popularity;
  popularity.Add("a", 10 * kWeekMs);
  popularity.Add("b", 9 * kWeekMs);
  EXPECT_DOUBLE_EQ((*popularity.Top(0))[1].second, 0.5);
}

TEST(Popularity, CenturiesDoNotOverflow) {
  Popularity popularity;
  popularity.Add("a", 0);
  for (int i = 1; i <= 50; ++i) popularity.Add("b", i * 150 * kWeekMs);
  const auto top = popularity.Top(0);
  EXPECT_EQ((*top)[0].first, "b");
  EXPECT_DOUBLE_EQ((*top)[0].second, 1.0);
  EXPECT_GE((*top)[1].second, 0.0);
}

TEST(Popularity, KeepsTheMostPopular) {
  PopularityOptions options;
  options.max_items = 100;
  Popularity popularity(options);
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 50; ++i) popularity.Add(StrCat("often", i), 0);
  }
  for (int i = 0; i < 5'000; ++i) popularity.Add(StrCat("once", i), 0);
  EXPECT_LE(popularity.size(), 125U);
  const auto top = popularity.Top(0);
  for (std::size_t i = 0; i < 50; ++i) EXPECT_DOUBLE_EQ((*top)[i].second, 5.0);
}

TEST(Popularity, SortsAtMostSoOften) {
  Popularity popularity;
  popularity.Add("a", 0);
  EXPECT_EQ(popularity.Top(0)->size(), 1U);
  popularity.Add("b", 0);
  EXPECT_EQ(popularity.Top(999)->size(), 1U);
  EXPECT_EQ(popularity.Top(1'000)->size(), 2U);
}

}  // namespace
}  // namespace freshet
