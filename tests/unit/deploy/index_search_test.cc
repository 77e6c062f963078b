#include "index_search.h"

#include <algorithm>
#include <random>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr int kDim = 8;
constexpr std::size_t kItems = 400;

std::vector<float> Rows(std::size_t rows, std::mt19937_64* random) {
  std::normal_distribution<float> normal;
  std::vector<float> out(rows * kDim);
  for (float& x : out) x = normal(*random);
  for (std::size_t row = 0; row < rows; ++row) {
    EXPECT_OK(PrepareVector(Metric::kCosine, kDim, std::span(out).subspan(row * kDim, kDim)));
  }
  return out;
}

// Of unit vectors every metric has the same order: that of the inner product.
std::int32_t Best(const std::vector<float>& items, std::span<const float> query) {
  std::int32_t best = 0;
  float highest = -2;
  for (std::size_t item = 0; item < items.size() / kDim; ++item) {
    float product = 0;
    for (std::size_t i = 0; i < kDim; ++i) product += items[item * kDim + i] * query[i];
    if (product > highest) {
      highest = product;
      best = static_cast<std::int32_t>(item);
    }
  }
  return best;
}

TEST(SearchByIndexTest, FindsByEveryMetricAndForgetsOtherItems) {
  std::mt19937_64 random(test::TestSeed());
  const std::vector<float> queries = Rows(20, &random);
  const SearchIndex search = SearchByIndex(0);
  for (const Metric metric : {Metric::kCosine, Metric::kInnerProduct, Metric::kL2}) {
    for (int round = 0; round < 2; ++round) {
      const std::vector<float> items = Rows(kItems, &random);
      for (int again = 0; again < 2; ++again) {
        const auto found = search(items, queries, kDim, metric, 10);
        ASSERT_OK(found);
        ASSERT_EQ(found->size(), 20U);
        int right = 0;
        for (std::size_t i = 0; i < 20; ++i) {
          ASSERT_EQ((*found)[i].size(), 10U);
          right += (*found)[i][0] == Best(items, std::span(queries).subspan(i * kDim, kDim)) ? 1 : 0;
        }
        EXPECT_GE(right, 19) << MetricName(metric);
      }
    }
  }
  const std::vector<float> few(queries.begin(), queries.begin() + 3 * kDim);
  const auto found = search(few, queries, kDim, Metric::kCosine, 10);
  ASSERT_OK(found);
  EXPECT_EQ((*found)[0].size(), 3U) << "all there are";
}

}  // namespace
}  // namespace freshet
