// How far a search looks around where nobody says (SearchOptions::ef is 0).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace freshet {

// Candidates for the best `k` of so many rows: half as many more, and of more than 100,000 rows a quarter of that again
// each time there are twice as many, since the same effort finds less among more (indexer/README.md has figures).
[[nodiscard]] inline std::size_t DefaultEffort(std::size_t k, std::size_t rows) {
  constexpr double kRows = 100'000;
  constexpr double kEachDoubling = 0.25;
  const auto effort = static_cast<double>(std::max(k + k / 2, std::size_t{64}));
  const double doublings = std::max(0.0, std::log2(static_cast<double>(std::max<std::size_t>(rows, 1)) / kRows));
  return static_cast<std::size_t>(effort * (1 + kEachDoubling * doublings));
}

}  // namespace freshet
