// One user's ranking, counted.
//
// Place in the flow: scores of a system -> the best K -> metrics. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace freshet {

// The best `k` items by descending score; ties by ascending `tie` (a number an item, all different). Items of score
// -infinity are not ranked at all, so fewer may come.
[[nodiscard]] std::vector<std::int32_t> TopK(std::span<const float> scores, std::span<const std::uint32_t> tie,
                                             std::size_t k);

// 1 / the rank of the best of `relevant` among all ranked items; 0 when none of them is ranked.
[[nodiscard]] double ReciprocalRank(std::span<const float> scores, std::span<const std::uint32_t> tie,
                                    std::span<const std::int32_t> relevant);

struct RankMetrics {
  double recall = 0;    // hits / relevant
  double hit_rate = 0;  // 1 when there is any hit
  double ndcg = 0;      // binary gains, ideal over min(relevant, k)
  double hits = 0;
};

// REQUIRES: `relevant` is sorted and not empty. Looks at the first `k` of `ranked`.
[[nodiscard]] RankMetrics JudgeRanking(std::span<const std::int32_t> ranked, std::span<const std::int32_t> relevant,
                                       std::size_t k);

}  // namespace freshet
