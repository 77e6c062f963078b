// Item-to-item co-occurrence: the baseline that looks at what stands in the same histories.
//
// Place in the flow: private to judging, a Scorer beside popularity. The time that it takes is bounded whatever the
// data: an item's neighbours are counted once, when they are first asked for. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>

#include "scorers.h"

namespace freshet {

// What it counts at most. On data within them it is exact.
struct CooccurrenceLimits {
  // Pairs of items that are looked at in counting, once for each user who took both. Users beyond, drawn by `seed`, are
  // not counted; nor is one who alone has more.
  double looks = 2e10;
  // Neighbours kept of all items together: of each item its share of them, at least 50, the most similar.
  std::int64_t neighbours = 64'000'000;
  std::uint64_t seed = 1;
};

// Sum over the user's newest 50 items i of c(i, j) / sqrt(c(i) c(j)), c counting other users; popularity where that
// says nothing. `history` outlives the scorer.
[[nodiscard]] std::unique_ptr<Scorer> MakeCooccurrenceScorer(const EvaluationHistory& history,
                                                             const CooccurrenceLimits& limits);

}  // namespace freshet
