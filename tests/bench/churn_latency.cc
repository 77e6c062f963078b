#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "churn_bench.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kAtLeast = 2000;  // searches a phase, or a p99 says little

struct Latencies {
  std::vector<double> wall_us;
  std::vector<double> cpu_us;  // of the searching thread: what other processes do is not in it
};

double P99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() * 99 / 100];
}

class LatencyRun {
 public:
  LatencyRun(Index* index, const test::VectorSet& queries) : index_(index), queries_(queries) {}

  // Searches, one after the other, for as long as it `lasts`.
  Latencies Search(const std::function<bool()>& lasts) {
    SearchOptions options;
    options.k = 100;
    Latencies latencies;
    while (lasts()) {
      const std::span<const float> query(queries_.Row(next_++ % queries_.size), static_cast<std::size_t>(queries_.dim));
      const double begin = Seconds();
      const double cpu_begin = CpuSeconds();
      (void)index_->Search(query, options);
      latencies.cpu_us.push_back((CpuSeconds() - cpu_begin) * 1e6);
      latencies.wall_us.push_back((Seconds() - begin) * 1e6);
    }
    return latencies;
  }

  void Add(const std::string& phase, const Latencies& latencies, Report* report) {
    const double wall = P99(latencies.wall_us);
    const double cpu = P99(latencies.cpu_us);
    if (steady_cpu_ == 0) {
      steady_cpu_ = cpu;
      steady_wall_ = wall;
    } else {
      report->goals.push_back(
          {StrCat("search p99 during ", phase, ", ratio to steady by processor time"), 1.5, cpu / steady_cpu_, true});
    }
    report->rows.push_back({"freshet hnsw",
                            false,
                            {{"part", "latency"}, {"phase", phase}, {"k", "100"}},
                            {{"searches", static_cast<double>(latencies.wall_us.size())},
                             {"p50_cpu_us", Median(latencies.cpu_us)},
                             {"p99_cpu_us", cpu},
                             {"p99_us", wall},
                             {"p99_ratio_to_steady", wall / steady_wall_}}});
  }

 private:
  Index* index_;
  const test::VectorSet& queries_;
  std::size_t next_ = 0;
  double steady_cpu_ = 0;
  double steady_wall_ = 0;
};

Status InsertRows(const test::VectorSet& base, std::size_t begin, std::size_t end, Index* index) {
  const auto width = static_cast<std::size_t>(base.dim);
  for (std::size_t row = begin; row < end; ++row) {
    const Label label = row;
    FRESHET_TRY(index->Insert({&label, 1}, {base.Row(row), width}));
  }
  return Status::Ok();
}

}  // namespace

Status MeasureLatency(const test::VectorSet& base, const test::VectorSet& queries, bool quick, Report* report) {
  HnswOptions options;
  options.dim = base.dim;
  options.metric = Metric::kL2;
  FRESHET_ASSIGN(const std::unique_ptr<Index> index, MakeHnswIndex(options));
  const std::size_t first = base.size * 4 / 5;
  FRESHET_TRY(InsertRows(base, 0, first, index.get()));
  FRESHET_TRY(index->Settle());
  LatencyRun run(index.get(), queries);
  const std::size_t at_least = quick ? kAtLeast / 10 : kAtLeast;
  const auto until = [&](const std::function<bool()>& done) {
    return [&, done, count = std::size_t{0}]() mutable { return !done() || count++ < at_least; };
  };
  (void)run.Search(until([] { return true; }));  // warms up
  run.Add("nothing", run.Search(until([] { return true; })), report);

  Status inserted;
  std::atomic<bool> all{false};
  std::thread writer([&] {
    inserted = InsertRows(base, first, base.size, index.get());
    if (inserted.ok()) inserted = index->Settle();
    all = true;
  });
  const Latencies linking = run.Search([&] { return !all; });
  writer.join();
  FRESHET_TRY(inserted);
  run.Add("linking at full speed", linking, report);

  std::vector<Label> order(base.size);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(7));
  const std::size_t few = base.size / 5;
  index->Tombstone({order.data(), few});
  FRESHET_TRY(index->Maintain());
  run.Add("consolidation", run.Search([&] { return index->Stats().consolidations == 0; }), report);
  FRESHET_TRY(index->Settle());

  index->Tombstone({order.data() + few, base.size * 11 / 20 - few});
  FRESHET_TRY(index->Maintain());
  FRESHET_TRY(index->Settle());
  FRESHET_TRY(index->Maintain());
  if (!quick) run.Add("rebuild", run.Search([&] { return index->Stats().rebuilds == 0; }), report);
  return index->Settle();
}

}  // namespace freshet::bench
