#include "range_bits.h"

#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

template <typename T>
std::uint64_t Expected(const std::array<T, 64>& values, const Interval<T>& range) {
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < 64; ++i) found |= std::uint64_t{values[i] >= range.low && values[i] <= range.high} << i;
  return found;
}

TEST(RangeBits, EveryKernelSaysTheSame) {
  std::mt19937_64 random(test::TestSeed());
  constexpr auto kLeast = std::numeric_limits<std::int64_t>::lowest();
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  for (int round = 0; round < 200; ++round) {
    std::array<std::int64_t, 64> integers;
    std::array<double, 64> doubles;
    for (std::size_t i = 0; i < 64; ++i) {
      integers[i] = static_cast<std::int64_t>(random() % 100) - 50;
      doubles[i] = static_cast<double>(integers[i]) / 4;
    }
    integers[random() % 64] = kLeast;
    integers[random() % 64] = kMost;
    doubles[random() % 64] = std::nan("");
    doubles[random() % 64] = std::numeric_limits<double>::infinity();
    const auto low = static_cast<std::int64_t>(random() % 100) - 50;
    const auto high = static_cast<std::int64_t>(random() % 100) - 50;  // below the other at times: nothing is in it
    for (const Interval<std::int64_t>& range :
         {Interval<std::int64_t>{low, high}, {kLeast, high}, {low, kMost}, {kLeast, kMost}, {low, low}}) {
      const Interval<double> of_doubles{static_cast<double>(range.low) / 4, static_cast<double>(range.high) / 4};
      for (const RangeKernels& kernels : AllRangeKernels()) {
        EXPECT_EQ(kernels.integers(integers.data(), range), Expected(integers, range));
        EXPECT_EQ(kernels.doubles(doubles.data(), of_doubles), Expected(doubles, of_doubles));
      }
    }
  }
}

}  // namespace
}  // namespace freshet
