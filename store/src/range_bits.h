// Which of 64 numbers lie in a range: the inner loop of most filters. Thread-safe.
#pragma once

#include <cstdint>
#include <span>

#include "freshet/store/filter.h"

namespace freshet {

// A bit for each of `values`, which are 64, the first lowest. NaN is in no range.
using IntegersInRange = std::uint64_t (*)(const std::int64_t* values, const Interval<std::int64_t>& range);
using DoublesInRange = std::uint64_t (*)(const double* values, const Interval<double>& range);
struct RangeKernels {
  IntegersInRange integers;
  DoublesInRange doubles;
};
[[nodiscard]] const RangeKernels& FastestRangeKernels();
// For tests: every kernel this processor can run, the portable one first.
[[nodiscard]] std::span<const RangeKernels> AllRangeKernels();

}  // namespace freshet
