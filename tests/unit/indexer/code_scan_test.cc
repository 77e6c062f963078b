// Filtered searches and scans by codes, against the exact index: filters of every selectivity, wherever what matches
// lies, with rows that died, rows that are not in the graph yet, and copies.
#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "freshet/indexer/label_filters.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "hnsw_index.h"

namespace freshet {
namespace {

constexpr std::size_t kRows = 6'000;
constexpr double kShares[] = {1, 0.5, 0.3, 0.1, 0.01, 0.001};

class Pair {
 public:
  Pair(Metric metric, int dim, std::uint64_t seed)
      : rows(test::ClusteredVectors(seed, 0, kRows, dim, 40)), flat(MakeFlatIndex(dim, metric)) {
    HnswOptions options;
    options.dim = dim;
    options.metric = metric;
    options.m = 8;
    options.ef_construction = 60;
    options.capacity = 20'000;
    options.max_fresh = 4'000;
    hnsw = std::make_unique<HnswIndex>(options);
  }
  // Labels are those of the rows, and far apart, so that they are no slots.
  static Label LabelOf(std::size_t row) { return 1'000 + 3 * row; }
  void Insert(std::size_t begin, std::size_t end) {
    std::vector<Label> labels;
    for (std::size_t row = begin; row < end; ++row) labels.push_back(LabelOf(row));
    const auto dim = static_cast<std::size_t>(rows.dim);
    const std::span<const float> some(rows.values.data() + begin * dim, (end - begin) * dim);
    for (Index* index : {flat.get(), static_cast<Index*>(hnsw.get())}) ASSERT_OK(index->Insert(labels, some));
  }
  void Tombstone(std::span<const Label> labels) {
    flat->Tombstone(labels);
    hnsw->Tombstone(labels);
  }

  test::VectorSet rows;
  std::unique_ptr<Index> flat;
  std::unique_ptr<HnswIndex> hnsw;
};

// The share of the exact answer that is found. Every answer is full, sorted, of what is allowed and lives.
double Recall(const Pair& pair, std::span<const float> query, const SearchOptions& options) {
  SearchOptions exact = options;
  exact.exact = true;
  const auto truth = pair.flat->Search(query, exact);
  const auto hits = pair.hnsw->Search(query, options);
  EXPECT_OK(truth);
  EXPECT_OK(hits);
  EXPECT_EQ(hits->size(), truth->size());
  std::set<Label> best;
  for (const Hit& hit : *truth) best.insert(hit.label);
  const std::vector<Label> live = pair.flat->LiveLabels();
  std::size_t found = 0;
  for (std::size_t i = 0; i < hits->size(); ++i) {
    const Hit& hit = (*hits)[i];
    EXPECT_TRUE(options.filter->Allows(hit.label));
    EXPECT_TRUE(std::binary_search(live.begin(), live.end(), hit.label));
    EXPECT_TRUE(i == 0 || BetterHit()((*hits)[i - 1], hit));
    found += best.contains(hit.label) ? 1 : 0;
  }
  return best.empty() ? 1 : static_cast<double>(found) / static_cast<double>(best.size());
}

// What matches: any, the nearest to the query, or the furthest from it.
enum class Where { kAnywhere, kNear, kFar };

LabelBitmap FilterOf(const Pair& pair, std::span<const float> query, double share, Where where, std::uint64_t seed) {
  LabelBitmap bitmap(Pair::LabelOf(0), Pair::LabelOf(kRows));
  const auto wanted = static_cast<std::size_t>(share * static_cast<double>(kRows));
  if (where == Where::kAnywhere) {
    std::vector<std::size_t> order(kRows);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    for (std::size_t i = 0; i < wanted; ++i) bitmap.Allow(Pair::LabelOf(order[i]));
    return bitmap;
  }
  SearchOptions all;
  all.exact = true;
  all.k = kRows;
  auto order = pair.flat->Search(query, all);
  EXPECT_OK(order);
  if (where == Where::kFar) std::reverse(order->begin(), order->end());
  for (std::size_t i = 0; i < std::min(wanted, order->size()); ++i) bitmap.Allow((*order)[i].label);
  return bitmap;
}

struct Kind {
  Metric metric;
  int dim;
};

class CodeScanTest : public ::testing::TestWithParam<Kind> {};

TEST_P(CodeScanTest, FindsWhatAnExactSearchDoesWhereverItLies) {
  const std::uint64_t seed = test::TestSeed();
  Pair pair(GetParam().metric, GetParam().dim, seed);
  ASSERT_NO_FATAL_FAILURE(pair.Insert(0, kRows - 1'500));
  ASSERT_OK(pair.hnsw->Settle());
  // From here on rows stay out of the graph, and some of both kinds die.
  const HnswIndex::LinkingPaused paused(pair.hnsw.get());
  ASSERT_NO_FATAL_FAILURE(pair.Insert(kRows - 1'500, kRows));
  std::vector<Label> dead;
  for (std::size_t row = 0; row < kRows; row += 13) dead.push_back(Pair::LabelOf(row));
  pair.Tombstone(dead);

  const auto dim = static_cast<std::size_t>(GetParam().dim);
  const test::VectorSet queries = test::ClusteredVectors(seed, 1, 4, GetParam().dim, 40);
  for (const Where where : {Where::kAnywhere, Where::kNear, Where::kFar}) {
    for (const double share : kShares) {
      double walked = 0;
      double scanned = 0;
      for (std::size_t i = 0; i < queries.size; ++i) {
        const std::span<const float> query(queries.Row(i), dim);
        const LabelBitmap filter = FilterOf(pair, query, share, where, seed + i);
        SearchOptions options;
        options.k = 50;
        options.filter = &filter;
        walked += Recall(pair, query, options) / static_cast<double>(queries.size);
        options.scan = true;
        scanned += Recall(pair, query, options) / static_cast<double>(queries.size);
        options.k = kRows;  // more than match
        EXPECT_EQ(Recall(pair, query, options), 1);
      }
      EXPECT_GE(walked, 0.95) << "share " << share << ", where " << static_cast<int>(where);
      EXPECT_GE(scanned, 0.99) << "share " << share << ", where " << static_cast<int>(where);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CodeScanTest,
                         ::testing::Values(Kind{Metric::kCosine, 32}, Kind{Metric::kCosine, 17},
                                           Kind{Metric::kInnerProduct, 24}, Kind{Metric::kInnerProduct, 7},
                                           Kind{Metric::kL2, 33}, Kind{Metric::kL2, 64}));

// Without a filter, and with nothing in the graph at all.
TEST(CodeScan, OfAnIndexWithoutAGraph) {
  Pair pair(Metric::kCosine, 16, test::TestSeed());
  LabelBitmap none(0, 1);
  SearchOptions options;
  options.scan = true;
  options.filter = &none;
  EXPECT_EQ(Recall(pair, {pair.rows.Row(0), 16}, options), 1);
  const HnswIndex::LinkingPaused paused(pair.hnsw.get());
  ASSERT_NO_FATAL_FAILURE(pair.Insert(0, 130));
  EXPECT_EQ(Recall(pair, {pair.rows.Row(0), 16}, options), 1);
  LabelBitmap some(0, Pair::LabelOf(kRows));
  for (std::size_t row = 0; row < 130; row += 2) some.Allow(Pair::LabelOf(row));
  options.filter = &some;
  EXPECT_EQ(Recall(pair, {pair.rows.Row(0), 16}, options), 1);
  options.filter = nullptr;
  const auto hits = pair.hnsw->Search({pair.rows.Row(0), 16}, options);
  ASSERT_OK(hits);
  EXPECT_EQ(hits->size(), 100U);
}

}  // namespace
}  // namespace freshet
