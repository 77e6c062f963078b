// What an opened index holds in memory, with its re-rank rows there or in a file, and that recall does not depend on
// it.
#include <memory>
#include <unordered_set>

#include "freshet/core/strings.h"
#include "index_parts.h"

namespace freshet::bench {
namespace {

constexpr double kRows = 1'000'000;  // of 128 dimensions: what the goals are of
constexpr double kDim = 128;
constexpr double kGoalMb = 450;
constexpr double kGoalInFileMb = 300;

double Recall(const Index& index, const test::VectorSet& queries, const std::vector<std::vector<Label>>& truth,
              std::size_t k) {
  SearchOptions search;
  search.k = k;
  std::size_t found = 0;
  for (std::size_t i = 0; i < queries.size; ++i) {
    const auto hits = index.Search({queries.Row(i), static_cast<std::size_t>(queries.dim)}, search);
    if (!hits.ok()) continue;
    const std::unordered_set<Label> right(truth[i].begin(), truth[i].begin() + static_cast<std::ptrdiff_t>(k));
    for (const Hit& hit : *hits) found += right.contains(hit.label) ? 1 : 0;
  }
  return static_cast<double>(found) / static_cast<double>(queries.size * k);
}

}  // namespace

Status MeasureResident(const std::string& file, const std::string& directory, HnswOptions hnsw,
                       const test::VectorSet& queries, const std::vector<std::vector<Label>>& truth,
                       const IndexPartOptions& options, Report* report) {
  const std::size_t k = options.ks.front();
  double recalls[2] = {};
  for (const bool in_file : {false, true}) {
    hnsw.rerank_directory = in_file ? directory : "";
    GiveBackFreed();
    const double before = ResidentMb("VmRSS");
    const double anonymous_before = ResidentMb("RssAnon");
    FRESHET_ASSIGN(const std::unique_ptr<Index> index, OpenHnswIndex(file, hnsw));
    FRESHET_TRY(index->Settle());
    GiveBackFreed();
    const double resident = ResidentMb("VmRSS") - before;
    const double anonymous = ResidentMb("RssAnon") - anonymous_before;
    recalls[in_file ? 1 : 0] = Recall(*index, queries, truth, k);
    const double share = static_cast<double>(index->Stats().live) * index->dim() / (kRows * kDim);
    report->rows.push_back({"freshet hnsw",
                            false,
                            {{"data", options.set},
                             {"part", "resident"},
                             {"rerank_rows", in_file ? "in a file" : "in memory"},
                             {"k", StrCat(k)}},
                            {{"resident_mb", resident},
                             {"resident_anonymous_mb", anonymous},
                             {StrCat("recall_at_", k), recalls[in_file ? 1 : 0]}}});
    // Pages of the file are the system's to drop; what is anonymous is not.
    if (in_file) {
      report->goals.push_back({StrCat("resident, re-rank rows in a file, MB (", kGoalInFileMb, " for 1,000,000 x 128)"),
                               kGoalInFileMb * share, anonymous, true});
    } else {
      report->goals.push_back(
          {StrCat("resident, MB (", kGoalMb, " for 1,000,000 x 128)"), kGoalMb * share, resident, true});
    }
  }
  report->goals.push_back(
      {StrCat("re-rank rows in a file: recall@", k, " below that in memory"), 0, recalls[0] - recalls[1], true});
  return Status::Ok();
}

}  // namespace freshet::bench
