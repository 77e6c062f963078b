// The least and the most dimensions there may be, by every metric: built, searched, written, opened both ways.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <tuple>

#include "freshet/indexer/index_builder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr std::size_t kRows = 600;
constexpr std::size_t kQueries = 20;
constexpr std::size_t kFound = 10;

class IndexDimensions : public ::testing::TestWithParam<std::tuple<int, Metric>> {
 protected:
  [[nodiscard]] std::vector<float> Vectors(std::size_t count) {
    std::vector<float> vectors(count * width_);
    for (float& x : vectors) x = normal_(random_);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_OK(PrepareVector(metric_, dim_, std::span(vectors).subspan(i * width_, width_)));
    }
    return vectors;
  }
  // What is found is as good as what an exact index finds. By score: of one dimension many rows are equal.
  void ExpectFinds(const Index& index, const Index& flat, std::span<const float> queries) const {
    for (const bool exact : {true, false}) {
      std::size_t good = 0;
      for (std::size_t i = 0; i < kQueries; ++i) {
        SearchOptions options;
        options.k = kFound;
        options.exact = exact;
        const auto found = index.Search(queries.subspan(i * width_, width_), options);
        const auto best = flat.Search(queries.subspan(i * width_, width_), options);
        ASSERT_OK(found);
        ASSERT_OK(best);
        ASSERT_EQ(found->size(), kFound);
        const float worst = best->back().score;
        const float slack = 1e-3F * std::max(1.0F, std::abs(worst));
        for (const Hit& hit : *found) good += hit.score >= worst - slack ? 1 : 0;
        EXPECT_NEAR(found->front().score, best->front().score, exact ? slack : 1e9);
      }
      EXPECT_GE(good, kQueries * kFound * (exact ? 100 : 90) / 100) << "exact: " << exact;
    }
  }

  const int dim_ = std::get<0>(GetParam());
  const Metric metric_ = std::get<1>(GetParam());
  const std::size_t width_ = static_cast<std::size_t>(dim_);
  const test::TempDir dir_;
  std::mt19937_64 random_{test::TestSeed()};
  std::normal_distribution<float> normal_;
};

TEST_P(IndexDimensions, AreBuiltSearchedWrittenAndOpened) {
  HnswOptions options;
  options.dim = dim_;
  options.metric = metric_;
  options.m = 8;
  options.ef_construction = 60;
  options.capacity = 1000;
  const auto made = MakeHnswIndex(options);
  ASSERT_OK(made);
  const auto flat = MakeFlatIndex(dim_, metric_);
  const std::vector<float> vectors = Vectors(kRows);
  const std::vector<float> queries = Vectors(kQueries);
  std::vector<Label> labels(kRows);
  std::iota(labels.begin(), labels.end(), Label{1});
  for (Index* index : {made->get(), flat.get()}) {
    ASSERT_OK(index->Insert(labels, vectors));
    index->Tombstone(std::span(labels).first(50));
    ASSERT_OK(index->Settle());
  }
  ExpectFinds(**made, *flat, queries);
  for (Index* index : {made->get(), flat.get()}) {
    const std::string path = dir_ / (index == flat.get() ? "flat" : "hnsw");
    {
      const auto cut = index->Cut();
      ASSERT_OK(cut);
      ASSERT_OK((*cut)->Write(path));
    }
    for (const OpenAs as : {OpenAs::kMapped, OpenAs::kMemory}) {
      const auto opened = OpenIndexFile(path, as, true);
      ASSERT_OK(opened);
      EXPECT_EQ((*opened)->dim(), dim_);
      EXPECT_EQ((*opened)->metric(), metric_);
      EXPECT_EQ((*opened)->LiveLabels(), flat->LiveLabels());
      ExpectFinds(**opened, *flat, queries);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(LeastAndMost, IndexDimensions,
                         ::testing::Combine(::testing::Values(1, 4096),
                                            ::testing::Values(Metric::kCosine, Metric::kInnerProduct, Metric::kL2)));

}  // namespace
}  // namespace freshet
