// Inner product and squared L2 over floats, chosen once for this processor.
//
// A binary runs on any x86-64-v2 machine: the portable kernel is always there, the AVX2 and AVX-512 ones are taken
// where the processor has them. Sums run in 16 or 32 independent lanes, so that the compiler may vectorise them without
// -ffast-math; the three kernels therefore differ in the last bits. Thread-safe.
#pragma once

#include <cstddef>
#include <span>

namespace freshet {

using DistanceKernel = float (*)(const float* a, const float* b, std::size_t dim);

[[nodiscard]] DistanceKernel DotKernel();
[[nodiscard]] DistanceKernel SquaredL2Kernel();

// For tests: every path this processor has, the portable one first, the one that is chosen last.
struct DistanceKernels {
  DistanceKernel dot;
  DistanceKernel l2;
};
[[nodiscard]] std::span<const DistanceKernels> AllDistanceKernels();

}  // namespace freshet
