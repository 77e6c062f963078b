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

// The same where `ef` may say it.
[[nodiscard]] inline std::size_t EffortOf(std::size_t ef, std::size_t k, std::size_t rows) {
  return ef > 0 ? std::max(ef, k) : DefaultEffort(k, rows);
}

// As many candidates as a walk should need to meet enough that may be returned, where that is a share of them. Among
// few that match it looks as far as among few rows: what that comes by is many more.
[[nodiscard]] inline double WalkWidth(std::size_t ef, std::size_t k, std::size_t rows, double share) {
  return std::max(static_cast<double>(EffortOf(ef, k, rows)),
                  static_cast<double>(EffortOf(ef, k, 0)) / std::max(share, 1e-9));
}

}  // namespace freshet
