// Recall after whole neighbourhoods have come and gone, beside a fresh build of the same rows.
#include <deque>
#include <random>
#include <set>

#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"

namespace freshet {
namespace {

constexpr int kDim = 24;
constexpr std::size_t kClusters = 60;

std::unique_ptr<Index> Hnsw(std::size_t m) {
  HnswOptions options;
  options.dim = kDim;
  options.metric = Metric::kL2;
  options.capacity = 100'000;
  options.m = m;
  options.ef_construction = 60;
  auto index = MakeHnswIndex(options);
  EXPECT_OK(index);
  return std::move(*index);
}

std::set<Label> Nearest(const Index& index, std::span<const float> query, std::size_t k, std::size_t ef) {
  SearchOptions options;
  options.k = k;
  options.ef = ef;
  const auto hits = index.Search(query, options);
  EXPECT_OK(hits);
  std::set<Label> labels;
  for (const Hit& hit : *hits) labels.insert(hit.label);
  return labels;
}

double Recall(const Index& index, const Index& flat, const test::VectorSet& queries) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < queries.size; ++i) {
    const std::span<const float> query(queries.Row(i), kDim);
    const std::set<Label> truth = Nearest(flat, query, 10, 0);
    for (const Label label : Nearest(index, query, 10, 14)) found += truth.contains(label) ? 1 : 0;
  }
  return static_cast<double>(found) / static_cast<double>(10 * queries.size);
}

TEST(Churn, ClustersThatComeAndGoLeaveRecallAsAFreshBuildHasIt) {
  // One seed: one linking thread makes the graph, and so this, the same each time.
  const test::VectorSet base = test::ClusteredVectors(5, 0, 8000, kDim, kClusters, 0.7F);
  const test::VectorSet queries = test::ClusteredVectors(5, 1, 1000, kDim, kClusters, 0.7F);
  const auto row = [&](std::size_t i) { return std::span<const float>(base.Row(i), kDim); };

  // Rows by the nearest of the first ones.
  const std::unique_ptr<Index> centres = MakeFlatIndex(kDim, Metric::kL2);
  for (Label i = 0; i < kClusters; ++i) ASSERT_OK(centres->Insert({&i, 1}, row(i)));
  std::vector<std::vector<std::size_t>> clusters(kClusters);
  for (std::size_t i = 0; i < base.size; ++i) clusters[*Nearest(*centres, row(i), 1, 0).begin()].push_back(i);

  const std::unique_ptr<Index> turned = Hnsw(8);
  const std::unique_ptr<Index> flat = MakeFlatIndex(kDim, Metric::kL2);
  std::deque<std::size_t> waiting;
  for (std::size_t i = 0; i < kClusters; ++i) waiting.push_back(i);
  std::deque<std::pair<std::size_t, std::vector<Label>>> live;
  std::vector<std::size_t> row_of;
  const auto add = [&] {
    const std::size_t cluster = waiting.front();
    waiting.pop_front();
    live.push_back({cluster, {}});
    for (const std::size_t i : clusters[cluster]) {
      const Label label = row_of.size();
      row_of.push_back(i);
      live.back().second.push_back(label);
      ASSERT_OK(turned->Insert({&label, 1}, row(i)));
      ASSERT_OK(flat->Insert({&label, 1}, row(i)));
    }
    ASSERT_OK(turned->Maintain());
    ASSERT_OK(turned->Settle());
  };
  for (std::size_t i = 0; i < kClusters / 2; ++i) add();
  std::mt19937_64 random(3);
  for (std::size_t i = 0; i < 4 * kClusters; ++i) {
    const auto at = live.begin() + static_cast<std::ptrdiff_t>(random() % live.size());
    turned->Tombstone(at->second);
    flat->Tombstone(at->second);
    waiting.push_back(at->first);
    live.erase(at);
    add();
  }
  ASSERT_GT(turned->Stats().consolidations, 10U);

  const std::unique_ptr<Index> fresh = Hnsw(8);
  for (const Label label : flat->LiveLabels()) ASSERT_OK(fresh->Insert({&label, 1}, row(row_of[label])));
  ASSERT_OK(fresh->Settle());
  const double expected = Recall(*fresh, *flat, queries);
  EXPECT_LT(expected, 0.995) << "or it shows nothing";
  EXPECT_GE(Recall(*turned, *flat, queries), expected - 0.005);
}

}  // namespace
}  // namespace freshet
