// What a query costs as the index grows, at equal recall, beside log n.
#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "freshet/core/strings.h"
#include "index_parts.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kK = 10;
constexpr std::size_t kRowsPerCluster = 500;
constexpr double kRecall = 0.98;

struct Point {
  double recall = 0;
  double cpu_us = 0;
};

Result<Point> MeasureEf(const Index& index, const test::VectorSet& queries, std::size_t ef, std::size_t rounds,
                        const std::vector<std::unordered_set<Label>>& truth) {
  const auto width = static_cast<std::size_t>(queries.dim);
  SearchOptions search;
  search.k = kK;
  search.ef = ef;
  std::vector<double> cpu_us;
  std::size_t found = 0;
  for (std::size_t round = 0; round <= rounds; ++round) {
    const double begin = CpuSeconds();
    for (std::size_t i = 0; i < queries.size; ++i) {
      FRESHET_ASSIGN(const std::vector<Hit> hits, index.Search({queries.Row(i), width}, search));
      for (const Hit& hit : hits) found += round == 0 && truth[i].contains(hit.label) ? 1 : 0;
    }
    if (round > 0) cpu_us.push_back((CpuSeconds() - begin) * 1e6 / static_cast<double>(queries.size));
  }
  return Point{static_cast<double>(found) / static_cast<double>(queries.size * kK), Median(cpu_us)};
}

}  // namespace

Status MeasureGrowth(const std::vector<std::size_t>& sizes, int dim, std::size_t query_count, HnswOptions hnsw,
                     const IndexPartOptions& options, Report* report) {
  hnsw.dim = dim;
  hnsw.metric = Metric::kCosine;
  hnsw.link_threads = 2;
  std::vector<double> logs;
  std::vector<double> costs;
  for (const std::size_t size : sizes) {
    // Clusters of one size, so that only the number of rows grows.
    const std::size_t clusters = size / kRowsPerCluster + 1;
    const test::VectorSet base = test::ClusteredVectors(options.seed, 0, size, dim, clusters);
    const test::VectorSet queries = test::ClusteredVectors(options.seed, 1, query_count, dim, clusters);
    FRESHET_ASSIGN(const std::unique_ptr<Index> index, MakeHnswIndex(hnsw));
    std::vector<Label> labels(size);
    for (std::size_t i = 0; i < size; ++i) labels[i] = i;
    FRESHET_TRY(index->Insert(labels, base.values));
    FRESHET_TRY(index->Settle());
    std::vector<std::unordered_set<Label>> truth(queries.size);
    SearchOptions exact;
    exact.k = kK;
    exact.exact = true;
    for (std::size_t i = 0; i < queries.size; ++i) {
      FRESHET_ASSIGN(const std::vector<Hit> hits,
                     index->Search({queries.Row(i), static_cast<std::size_t>(dim)}, exact));
      for (const Hit& hit : hits) truth[i].insert(hit.label);
    }
    Point before;
    for (const std::size_t ef : {16U, 24U, 32U, 40U, 50U, 60U, 80U, 120U, 200U}) {
      FRESHET_ASSIGN(const Point point, MeasureEf(*index, queries, ef, options.rounds, truth));
      if (point.recall < kRecall) {
        before = point;
        continue;
      }
      const double share = before.cpu_us == 0 ? 1 : (kRecall - before.recall) / (point.recall - before.recall);
      const double cost = before.cpu_us == 0 ? point.cpu_us : before.cpu_us + share * (point.cpu_us - before.cpu_us);
      logs.push_back(std::log10(static_cast<double>(size)));
      costs.push_back(cost);
      report->rows.push_back(
          {"freshet hnsw",
           false,
           {{"data", StrCat("synthetic-", size)}, {"part", "growth"}, {"k", StrCat(kK)}, {"ef", StrCat("up to ", ef)}},
           {{"recall", kRecall}, {"cpu_us", cost}}});
      break;
    }
  }
  if (costs.size() < 2) return Status::Ok();
  const auto count = static_cast<double>(costs.size());
  double mean_log = 0;
  double mean_cost = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    mean_log += logs[i] / count;
    mean_cost += costs[i] / count;
  }
  double both = 0;
  double log_square = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    both += (logs[i] - mean_log) * (costs[i] - mean_cost);
    log_square += (logs[i] - mean_log) * (logs[i] - mean_log);
  }
  const double slope = both / log_square;
  double rest = 0;
  double all = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const double off = costs[i] - mean_cost - slope * (logs[i] - mean_log);
    rest += off * off;
    all += (costs[i] - mean_cost) * (costs[i] - mean_cost);
  }
  report->rows.push_back(
      {"freshet hnsw",
       false,
       {{"part", "growth, cost = a + b log10 rows"}, {"k", StrCat(kK)}},
       {{"a_us", mean_cost - slope * mean_log},
        {"b_us_per_decade", slope},
        {"r_squared", all == 0 ? 1 : 1 - rest / all},
        {"power", std::log(costs.back() / costs.front()) / ((logs.back() - logs.front()) * std::log(10.0))}}});
  return Status::Ok();
}

}  // namespace freshet::bench
