#include "ranking.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace freshet {
namespace {

constexpr float kUnranked = -std::numeric_limits<float>::infinity();

}  // namespace

std::vector<std::int32_t> TopK(std::span<const float> scores, std::span<const std::uint32_t> tie, std::size_t k) {
  const auto before = [&](std::int32_t a, std::int32_t b) {
    const auto x = static_cast<std::size_t>(a);
    const auto y = static_cast<std::size_t>(b);
    return scores[x] != scores[y] ? scores[x] > scores[y] : tie[x] < tie[y];
  };
  std::vector<std::int32_t> heap;  // the worst of the best in front
  heap.reserve(k + 1);
  if (k == 0) return heap;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] == kUnranked) continue;
    const auto item = static_cast<std::int32_t>(i);
    if (heap.size() == k) {
      if (!before(item, heap.front())) continue;
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.pop_back();
    }
    heap.push_back(item);
    std::push_heap(heap.begin(), heap.end(), before);
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

double ReciprocalRank(std::span<const float> scores, std::span<const std::uint32_t> tie,
                      std::span<const std::int32_t> relevant) {
  float best = kUnranked;
  std::uint32_t best_tie = 0;
  for (const std::int32_t item : relevant) {
    const auto i = static_cast<std::size_t>(item);
    if (scores[i] > best || (scores[i] == best && tie[i] < best_tie)) {
      best = scores[i];
      best_tie = tie[i];
    }
  }
  if (best == kUnranked) return 0;
  std::size_t rank = 1;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > best || (scores[i] == best && tie[i] < best_tie)) ++rank;
  }
  return 1.0 / static_cast<double>(rank);
}

RankMetrics JudgeRanking(std::span<const std::int32_t> ranked, std::span<const std::int32_t> relevant, std::size_t k) {
  const auto discount = [](std::size_t position) { return 1.0 / std::log2(static_cast<double>(position) + 2.0); };
  RankMetrics metrics;
  double gain = 0;
  for (std::size_t i = 0; i < std::min(k, ranked.size()); ++i) {
    if (!std::binary_search(relevant.begin(), relevant.end(), ranked[i])) continue;
    metrics.hits += 1;
    gain += discount(i);
  }
  double ideal = 0;
  for (std::size_t i = 0; i < std::min(k, relevant.size()); ++i) ideal += discount(i);
  metrics.recall = metrics.hits / static_cast<double>(relevant.size());
  metrics.hit_rate = metrics.hits > 0 ? 1 : 0;
  metrics.ndcg = gain / ideal;
  return metrics;
}

}  // namespace freshet
