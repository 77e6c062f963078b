// Rows that come while others are searched: what an add costs beside hnswlib's, how many a second are linked, and how
// long Insert takes.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "freshet/core/strings.h"
#include "index_parts.h"
#include "peer_hnswlib.h"

namespace freshet::bench {
namespace {

constexpr std::size_t kMostRows = 100'000;   // that are added in each part
constexpr double kPacedPerSecond = 5'000;    // the goal, and the pace at which Insert is timed
constexpr std::size_t kSearchesAtOnce = 10;  // before a searcher at half load rests
constexpr double kMostPacedSeconds = 10;

std::span<const float> RowOf(const test::VectorSet& set, std::size_t i) {
  return {set.Row(i), static_cast<std::size_t>(set.dim)};
}

// One thread that searches half of the time, until it is told to stop.
class HalfLoad {
 public:
  HalfLoad(const Index& index, const test::VectorSet& queries, std::size_t k)
      : index_(index), queries_(queries), k_(k), thread_([this] { Run(); }) {}
  ~HalfLoad() { (void)Stop(); }
  // Searches a second, by the clock.
  double Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return per_second_;
  }

 private:
  void Run() {
    SearchOptions search;
    search.k = k_;
    const double begin = Seconds();
    std::size_t count = 0;
    while (!stop_) {
      const double before = Seconds();
      for (std::size_t i = 0; i < kSearchesAtOnce; ++i, ++count) {
        (void)index_.Search(RowOf(queries_, count % queries_.size), search);
      }
      Pause(Seconds() - before);
    }
    per_second_ = static_cast<double>(count) / (Seconds() - begin);
  }

  const Index& index_;
  const test::VectorSet& queries_;
  const std::size_t k_;
  std::atomic<bool> stop_{false};
  double per_second_ = 0;
  std::thread thread_;
};

struct Rows {
  std::size_t begin = 0;
  std::size_t end = 0;
  [[nodiscard]] double count() const { return static_cast<double>(end - begin); }
};

Status AddRows(const test::VectorSet& base, Rows rows, Index* index) {
  for (std::size_t row = rows.begin; row < rows.end; ++row) {
    const Label label = row;
    FRESHET_TRY(index->Insert({&label, 1}, RowOf(base, row)));
  }
  return Status::Ok();
}

double P99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() * 99 / 100];
}

// As many rows a second as the goal says, each timed; searches go on.
Status MeasureInserts(const test::VectorSet& base, Rows rows, const test::VectorSet& queries,
                      const IndexPartOptions& options, Index* index, Report* report) {
  std::vector<double> wall_us;
  std::vector<double> cpu_us;
  HalfLoad searcher(*index, queries, 100);
  const double begin = Seconds();
  for (std::size_t row = rows.begin; row < rows.end && Seconds() - begin < kMostPacedSeconds; ++row) {
    const double due = begin + static_cast<double>(row - rows.begin) / kPacedPerSecond;
    if (const double early = due - Seconds(); early > 0) Pause(early);
    const Label label = row;
    const double wall = Seconds();
    const double cpu = CpuSeconds();
    FRESHET_TRY(index->Insert({&label, 1}, RowOf(base, row)));
    cpu_us.push_back((CpuSeconds() - cpu) * 1e6);
    wall_us.push_back((Seconds() - wall) * 1e6);
  }
  const double searches = searcher.Stop();
  FRESHET_TRY(index->Settle());
  report->rows.push_back(
      {"freshet hnsw",
       false,
       {{"data", options.set}, {"part", StrCat("insert, ", kPacedPerSecond, " a second")}, {"k", "100"}},
       {{"inserts", static_cast<double>(wall_us.size())},
        {"p50_us", Median(wall_us)},
        {"p99_us", P99(wall_us)},
        {"p99_cpu_us", P99(cpu_us)},
        {"searches_per_second", searches}}});
  report->goals.push_back({"insert: p99, us", 100, P99(wall_us), true});
  return Status::Ok();
}

}  // namespace

Status MeasureLiveAdds(const test::VectorSet& base, const test::VectorSet& queries, const HnswOptions& hnsw, bool peer,
                       const IndexPartOptions& options, Report* report) {
  // Half is there; then a quarter each for adds alone, adds beside searches, and inserts that are timed.
  const std::size_t part = std::min(kMostRows, base.size / 6);
  const std::size_t first = base.size - 3 * part;
  FRESHET_ASSIGN(const std::unique_ptr<Index> index, MakeHnswIndex(hnsw));
  FRESHET_TRY(AddRows(base, {0, first}, index.get()));
  FRESHET_TRY(index->Settle());

  const Rows alone{first, first + part};
  double begin = Seconds();
  double cpu_begin = ProcessCpuSeconds();
  FRESHET_TRY(AddRows(base, alone, index.get()));
  FRESHET_TRY(index->Settle());
  const double ours_per_cpu_second = alone.count() / (ProcessCpuSeconds() - cpu_begin);
  report->rows.push_back(
      {"freshet hnsw",
       false,
       {{"data", options.set}, {"part", "live add"}, {"after", StrCat(first)}},
       {{"adds_per_second", alone.count() / (Seconds() - begin)}, {"adds_per_cpu_second", ours_per_cpu_second}}});

  const Rows beside{alone.end, alone.end + part};
  begin = Seconds();
  HalfLoad searcher(*index, queries, 100);
  FRESHET_TRY(AddRows(base, beside, index.get()));
  FRESHET_TRY(index->Settle());
  const double sustained = beside.count() / (Seconds() - begin);
  report->rows.push_back({"freshet hnsw",
                          false,
                          {{"data", options.set}, {"part", "live add, searching half of the time"}, {"k", "100"}},
                          {{"adds_per_second", sustained}, {"searches_per_second", searcher.Stop()}}});
  report->goals.push_back(
      {"live add: to the graph while searching at half load, a second", kPacedPerSecond, sustained});
  FRESHET_TRY(MeasureInserts(base, {beside.end, beside.end + part}, queries, options, index.get(), report));

  if (!peer) return Status::Ok();
  PeerHnswlib theirs(hnsw.metric == Metric::kL2, base.dim, base.size, hnsw.m, hnsw.ef_construction);
  for (std::size_t row = 0; row < first; ++row) theirs.Add(row, base.Row(row));
  begin = Seconds();
  cpu_begin = ProcessCpuSeconds();
  for (std::size_t row = alone.begin; row < alone.end; ++row) theirs.Add(row, base.Row(row));
  const double theirs_per_cpu_second = alone.count() / (ProcessCpuSeconds() - cpu_begin);
  report->rows.push_back(
      {"hnswlib 0.8.0 fp32",
       true,
       {{"data", options.set}, {"part", "live add"}, {"after", StrCat(first)}},
       {{"adds_per_second", alone.count() / (Seconds() - begin)}, {"adds_per_cpu_second", theirs_per_cpu_second}}});
  report->goals.push_back(
      {"live add, ratio to hnswlib by processor time", 2.5, ours_per_cpu_second / theirs_per_cpu_second});
  return Status::Ok();
}

}  // namespace freshet::bench
