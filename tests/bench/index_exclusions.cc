#include <algorithm>
#include <functional>
#include <random>
#include <unordered_set>

#include "freshet/core/strings.h"
#include "freshet/indexer/label_filters.h"
#include "index_parts.h"

namespace freshet::bench {
namespace {

struct Case {
  std::string name;
  std::vector<std::vector<Label>> lists;  // one a query; none: nothing is excluded
  SearchOptions options;
  std::vector<double> cpu_us;   // a query, by round
  std::vector<double> fill_us;  // making the filter of the list, by round
  double recall = 1;
};

class Exclusions {
 public:
  Exclusions(const Index& index, const test::VectorSet& queries) : index_(index), queries_(queries) {}

  Status Run(Case* tried) const {
    double fill = 0;
    double search = 0;
    for (std::size_t i = 0; i < queries_.size; ++i) {
      const double begin = CpuSeconds();
      const ExcludedLabels excluded = ListOf(*tried, i);
      const double filled = CpuSeconds();
      FRESHET_TRY(Ask(*tried, i, excluded, false).status());
      search += CpuSeconds() - filled;
      fill += filled - begin;
    }
    tried->cpu_us.push_back(search * 1e6 / static_cast<double>(queries_.size));
    tried->fill_us.push_back(fill * 1e6 / static_cast<double>(queries_.size));
    return Status::Ok();
  }
  Status MeasureRecall(Case* tried) const {
    std::size_t found = 0;
    std::size_t wanted = 0;
    for (std::size_t i = 0; i < std::min<std::size_t>(queries_.size, 100); ++i) {
      const ExcludedLabels excluded = ListOf(*tried, i);
      FRESHET_ASSIGN(const std::vector<Hit> hits, Ask(*tried, i, excluded, false));
      FRESHET_ASSIGN(const std::vector<Hit> exact, Ask(*tried, i, excluded, true));
      std::unordered_set<Label> truth;
      for (const Hit& hit : exact) truth.insert(hit.label);
      for (const Hit& hit : hits) found += truth.contains(hit.label) ? 1 : 0;
      wanted += exact.size();
    }
    tried->recall = static_cast<double>(found) / static_cast<double>(wanted);
    return Status::Ok();
  }
  // The best `count` of each query. Exactly: what an approximate search missed of them would be the best that is left.
  Result<std::vector<std::vector<Label>>> Best(std::size_t count) const {
    std::vector<std::vector<Label>> lists;
    SearchOptions options;
    options.k = count;
    options.exact = true;
    for (std::size_t i = 0; i < queries_.size; ++i) {
      FRESHET_ASSIGN(const std::vector<Hit> hits, index_.Search(Query(i), options));
      std::vector<Label>& list = lists.emplace_back();
      for (const Hit& hit : hits) list.push_back(hit.label);
    }
    return lists;
  }

 private:
  [[nodiscard]] std::span<const float> Query(std::size_t i) const {
    return {queries_.Row(i), static_cast<std::size_t>(queries_.dim)};
  }
  [[nodiscard]] static ExcludedLabels ListOf(const Case& tried, std::size_t i) {
    return tried.lists.empty() ? ExcludedLabels() : ExcludedLabels(tried.lists[i]);
  }
  [[nodiscard]] Result<std::vector<Hit>> Ask(const Case& tried, std::size_t i, const ExcludedLabels& excluded,
                                             bool exact) const {
    SearchOptions options = tried.options;
    options.exact = exact;
    if (!excluded.empty()) options.filter = &excluded;
    return index_.Search(Query(i), options);
  }

  const Index& index_;
  const test::VectorSet& queries_;
};

}  // namespace

Status MeasureExclusions(const Index& index, const test::VectorSet& queries, const IndexPartOptions& options,
                         Report* report) {
  const Exclusions exclusions(index, queries);
  const std::vector<Label> labels = index.LiveLabels();
  for (const std::size_t k : options.ks) {
    SearchOptions search;
    search.k = k;
    search.ef = k < 50 ? 4 * k : k * 3 / 2;
    std::vector<Case> cases = {{"nothing", {}, search, {}, {}, 1}};
    for (const std::size_t count : {1024U, 4096U}) {
      if (4 * count > labels.size()) continue;
      std::mt19937_64 random(options.seed);
      std::vector<std::vector<Label>> any(queries.size);
      for (std::vector<Label>& list : any) {
        while (list.size() < count) list.push_back(labels[random() % labels.size()]);
      }
      cases.push_back({StrCat(count, " at random"), std::move(any), search, {}, {}, 1});
      FRESHET_ASSIGN(std::vector<std::vector<Label>> best, exclusions.Best(count));
      cases.push_back({StrCat(count, " best"), std::move(best), search, {}, {}, 1});
      SearchOptions as_far = search;
      as_far.k = k + count;
      as_far.ef = search.ef + count;
      cases.push_back({StrCat("nothing, ", count, " more results"), {}, as_far, {}, {}, 1});
    }
    for (std::size_t round = 0; round < options.rounds; ++round) {
      for (Case& tried : cases) FRESHET_TRY(exclusions.Run(&tried));
    }
    double plain = 0;
    double hard = 0;
    for (Case& tried : cases) {
      FRESHET_TRY(exclusions.MeasureRecall(&tried));
      const double cost = Median(tried.cpu_us);
      if (plain == 0) plain = cost;
      report->rows.push_back(
          {"freshet hnsw",
           false,
           {{"data", options.set}, {"part", "exclusions"}, {"k", StrCat(k)}, {"excluded", tried.name}},
           {{"cpu_us", cost}, {"ratio", cost / plain}, {"fill_us", Median(tried.fill_us)}, {"recall", tried.recall}}});
      if (tried.name.ends_with("random")) {
        report->goals.push_back(
            {StrCat("top-", k, ", excluded ", tried.name, ", ratio to none"), 1.2, cost / plain, true});
      } else if (tried.name.ends_with("best")) {
        hard = cost;
      } else if (tried.name.ends_with("results")) {
        report->goals.push_back(
            {StrCat("top-", k, ", the best excluded, ratio to ", tried.name), 1.2, hard / cost, true});
      }
    }
  }
  return Status::Ok();
}

}  // namespace freshet::bench
