#include "index_search.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "freshet/indexer/index.h"

namespace freshet {
namespace {

struct Built {
  std::unique_ptr<Index> index;
  std::vector<float> items;
  Metric metric = Metric::kInnerProduct;
};

Status Build(std::span<const float> items, int dim, Metric metric, Built* built) {
  if (built->index != nullptr && built->metric == metric &&
      std::equal(items.begin(), items.end(), built->items.begin(), built->items.end())) {
    return Status::Ok();
  }
  HnswOptions options;
  options.dim = dim;
  options.metric = metric;
  constexpr std::size_t kLeastCapacity = 64;
  std::vector<Label> labels(items.size() / static_cast<std::size_t>(dim));
  options.capacity = std::max(kLeastCapacity, labels.size());
  // Whole or not at all: what failed half-way is not taken for the index of what was before.
  Built made;
  FRESHET_ASSIGN(made.index, MakeHnswIndex(options));
  std::iota(labels.begin(), labels.end(), Label{0});
  FRESHET_TRY(made.index->Insert(labels, items));
  FRESHET_TRY(made.index->Settle());
  made.items.assign(items.begin(), items.end());
  made.metric = metric;
  *built = std::move(made);
  return Status::Ok();
}

}  // namespace

SearchIndex SearchByIndex(std::size_t ef) {
  return
      [ef, built = std::make_shared<Built>()](std::span<const float> items, std::span<const float> queries, int dim,
                                              Metric metric, int k) -> Result<std::vector<std::vector<std::int32_t>>> {
        FRESHET_TRY(Build(items, dim, metric, built.get()));
        SearchOptions search;
        search.k = static_cast<std::size_t>(k);
        search.ef = ef;
        FRESHET_ASSIGN(const auto hits, built->index->SearchMany(queries, search));
        std::vector<std::vector<std::int32_t>> numbers(hits.size());
        for (std::size_t i = 0; i < hits.size(); ++i) {
          for (const Hit& hit : hits[i]) numbers[i].push_back(static_cast<std::int32_t>(hit.label));
        }
        return numbers;
      };
}

}  // namespace freshet
