#include "ann_recall.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace freshet {
namespace {

constexpr std::size_t kUsers = 64;  // in one block

}  // namespace

Result<AnnRecall> JudgeIndex(VectorScorer* model, std::span<const std::int32_t> users, const EvaluateOptions& options,
                             const SearchIndex& search) {
  const auto dim = static_cast<std::size_t>(model->dim());
  const std::size_t items = model->items().size() / dim;
  const std::size_t most =
      std::min(items, static_cast<std::size_t>(*std::max_element(options.ks.begin(), options.ks.end())));
  AnnRecall result;
  result.system = model->name();
  result.recall.assign(options.ks.size(), 0);
  result.lowest.assign(options.ks.size(), 1);
  std::vector<float> vectors;
  std::vector<float> scores;
  std::vector<float> ranked;
  for (std::size_t begin = 0; begin < users.size(); begin += kUsers) {
    const auto block = users.subspan(begin, std::min(kUsers, users.size() - begin));
    vectors.resize(block.size() * dim);
    std::vector<std::size_t> refused;
    FRESHET_TRY(model->Embed(block, vectors, &refused));
    for (auto row = refused.rbegin(); row != refused.rend(); ++row) {
      const auto at = vectors.begin() + static_cast<std::ptrdiff_t>(*row * dim);
      vectors.erase(at, at + static_cast<std::ptrdiff_t>(dim));
    }
    const std::size_t rows = vectors.size() / dim;
    if (rows == 0) continue;
    scores.resize(rows * items);
    FRESHET_TRY(model->ScoreVectors(vectors, scores));
    FRESHET_ASSIGN(const auto found,
                   search(model->items(), vectors, model->dim(), model->metric(), static_cast<int>(most)));
    if (found.size() != rows) return Internal("the index answered for other queries than were asked");
    for (std::size_t row = 0; row < rows; ++row) {
      const std::span<const float> exact = std::span(scores).subspan(row * items, items);
      ranked.assign(exact.begin(), exact.end());
      std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(most), ranked.end(),
                        std::greater<>());
      for (std::size_t i = 0; i < options.ks.size(); ++i) {
        const std::size_t k = std::min(static_cast<std::size_t>(options.ks[i]), items);
        // What is as good as the last of the exact list is right: which of equals it is says nothing of the index.
        std::size_t hits = 0;
        for (std::size_t at = 0; at < std::min(k, found[row].size()); ++at) {
          const std::int32_t item = found[row][at];
          if (item < 0 || static_cast<std::size_t>(item) >= items) return Internal("the index found what is no item");
          hits += exact[static_cast<std::size_t>(item)] >= ranked[k - 1] ? 1 : 0;
        }
        const double recall = static_cast<double>(hits) / static_cast<double>(k);
        result.recall[i] += recall;
        result.lowest[i] = std::min(result.lowest[i], recall);
      }
    }
    result.users += static_cast<std::int64_t>(rows);
  }
  if (result.users == 0) result.lowest = result.recall;
  for (double& recall : result.recall) recall /= static_cast<double>(std::max<std::int64_t>(result.users, 1));
  return result;
}

}  // namespace freshet
