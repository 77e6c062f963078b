#include "validator.h"

#include <algorithm>
#include <numeric>

namespace freshet {
namespace {

constexpr std::size_t kEmbedRows = 4096;
constexpr std::size_t kScoreRows = 64;

}  // namespace

Result<std::vector<float>> Validator::EmbedItems(const TorchTrainer& trainer) {
  std::vector<float> vectors;
  for (std::size_t begin = 0; begin < data_.items.size(); begin += kEmbedRows) {
    items_.Clear();
    const std::size_t end = std::min(begin + kEmbedRows, data_.items.size());
    for (std::size_t i = begin; i < end; ++i) cache_.AppendItem(static_cast<std::int32_t>(i), false, &items_);
    FRESHET_ASSIGN(const std::vector<float> chunk, trainer.Embed(Side::kItem, items_));
    vectors.insert(vectors.end(), chunk.begin(), chunk.end());
  }
  return vectors;
}

Result<double> Validator::Recall(const TorchTrainer& trainer) {
  FRESHET_ASSIGN(const std::vector<float> items, EmbedItems(trainer));
  double sum = 0;
  for (std::size_t begin = 0; begin < data_.validation.size(); begin += kScoreRows) {
    const std::size_t end = std::min(begin + kScoreRows, data_.validation.size());
    users_.Clear();
    for (std::size_t i = begin; i < end; ++i) {
      cache_.AppendUser(data_.validation[i].user, &users_);
    }
    FRESHET_ASSIGN(const std::vector<float> users, trainer.Embed(Side::kUser, users_));
    std::vector<float> scores((end - begin) * data_.items.size());
    FRESHET_TRY(InnerProducts(users, items, options_.dim, scores));
    for (std::size_t i = begin; i < end; ++i) {
      sum += RecallOf(data_.validation[i],
                      std::span(scores).subspan((i - begin) * data_.items.size(), data_.items.size()));
    }
  }
  return sum / static_cast<double>(data_.validation.size());
}

double Validator::PopularityRecall() {
  double sum = 0;
  for (const ValidationCase& one : data_.validation) {
    std::vector<float> scores(data_.item_counts.begin(), data_.item_counts.end());
    sum += RecallOf(one, scores);
  }
  return sum / static_cast<double>(data_.validation.size());
}

double Validator::RecallOf(const ValidationCase& one, std::span<float> scores) {
  if (options_.mask_seen) {
    for (const std::int32_t seen : data_.sequences[static_cast<std::size_t>(one.user)]) {
      scores[static_cast<std::size_t>(seen)] = -1e30F;
    }
  }
  order_.resize(scores.size());
  std::iota(order_.begin(), order_.end(), 0);
  const std::size_t top = std::min(static_cast<std::size_t>(options_.validation_k), order_.size());
  std::nth_element(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(top - 1), order_.end(),
                   [&](std::int32_t a, std::int32_t b) {
                     const float x = scores[static_cast<std::size_t>(a)];
                     const float y = scores[static_cast<std::size_t>(b)];
                     return x != y ? x > y : a < b;
                   });
  const auto hits =
      std::count_if(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(top),
                    [&](std::int32_t item) { return std::binary_search(one.items.begin(), one.items.end(), item); });
  return static_cast<double>(hits) / static_cast<double>(one.items.size());
}

}  // namespace freshet
