#include "int8_codes.h"

#include <cmath>
#include <random>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(Int8Dots, EveryKernelIsBitExact) {
  std::mt19937_64 random(test::TestSeed());
  for (const std::size_t size : {32U, 64U, 96U, 128U, 1024U, 4096U}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<std::int8_t> a(size);
      std::vector<std::int8_t> b(size);
      for (std::size_t i = 0; i < size; ++i) {
        // The extremes, whose sum is the largest there is, as well as noise.
        a[i] = static_cast<std::int8_t>(round == 0 ? -127 : static_cast<int>(random() % 255) - 127);
        b[i] = static_cast<std::int8_t>(round == 0 ? -127 : static_cast<int>(random() % 255) - 127);
      }
      std::int64_t expected = 0;
      for (std::size_t i = 0; i < size; ++i) expected += std::int64_t{a[i]} * b[i];
      const std::uint32_t slot = 0;
      for (const Int8DotsKernel kernel : Int8DotsKernels()) {
        std::int32_t dot = 0;
        kernel(a.data(), b.data(), size, &slot, 1, &dot);
        EXPECT_EQ(dot, expected);
      }
    }
  }
}

// AVX2 too, on a processor that has AVX-512: each is called by the tests, not the fastest alone.
TEST(Int8Dots, EveryKernelOfThisProcessorIsTested) {
  std::size_t kernels = 1;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") != 0) ++kernels;
  if (__builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512vnni") != 0) {
    ++kernels;
  }
#endif
  EXPECT_EQ(Int8DotsKernels().size(), kernels);
}

struct Coded {
  Coded(Metric metric, const std::vector<float>& a, const std::vector<float>& b) {
    const Int8Codes codes(metric, static_cast<int>(a.size()));
    std::vector<std::int8_t> row_a(codes.row_bytes());
    std::vector<std::int8_t> row_b(codes.row_bytes());
    const CodeHead head_a = codes.Encode(a.data(), row_a.data(), nullptr);
    const CodeHead head_b = codes.Encode(b.data(), row_b.data(), nullptr);
    const std::uint32_t slot = 0;
    std::int32_t dot = 0;
    codes.Dots(row_a.data(), row_b.data(), &slot, 1, &dot);
    distance = codes.Distance(dot, head_a, head_b);
  }
  float distance;
};

// Groups of four and what remains of them, slots in any order.
TEST(Int8Dots, ManyRowsAtOnce) {
  std::mt19937_64 random(test::TestSeed());
  constexpr std::size_t kRows = 23;
  for (const std::size_t size : {32U, 96U, 128U, 320U}) {
    std::vector<std::int8_t> row(size);
    std::vector<std::int8_t> base(kRows * size);
    for (auto* values : {&row, &base}) {
      for (std::int8_t& value : *values) value = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
    }
    for (std::size_t count = 0; count < kRows; ++count) {
      std::vector<std::uint32_t> slots(count);
      for (std::uint32_t& slot : slots) slot = static_cast<std::uint32_t>(random() % kRows);
      std::vector<std::int32_t> expected(count);
      Int8DotsKernels()[0](row.data(), base.data(), size, slots.data(), count, expected.data());
      for (const Int8DotsKernel kernel : Int8DotsKernels()) {
        std::vector<std::int32_t> dots(count);
        kernel(row.data(), base.data(), size, slots.data(), count, dots.data());
        EXPECT_EQ(dots, expected);
      }
    }
  }
}

// Dimensions that are not multiples of any vector width, too.
class Int8CodesTest : public ::testing::TestWithParam<int> {};

TEST_P(Int8CodesTest, DistancesAreCloseToThoseOfTheFloats) {
  std::mt19937_64 random(test::TestSeed());
  std::normal_distribution<float> normal;
  const auto dim = static_cast<std::size_t>(GetParam());
  std::vector<float> a(dim);
  std::vector<float> b(dim);
  double dot = 0;
  double l2 = 0;
  double norm_a = 0;
  double norm_b = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    a[i] = 3 * normal(random);
    b[i] = normal(random);
    dot += double{a[i]} * double{b[i]};
    l2 += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
    norm_a += double{a[i]} * double{a[i]};
    norm_b += double{b[i]} * double{b[i]};
  }
  // Each code is off by half a step at most, and a step is a 127th of the largest: |dot error| <= sum of both.
  const double tolerance = 0.02 * std::sqrt(norm_a * norm_b) * std::sqrt(static_cast<double>(dim)) / 4 + 1e-4;
  for (const Metric metric : {Metric::kCosine, Metric::kInnerProduct, Metric::kL2}) {
    const Coded coded(metric, a, b);
    EXPECT_NEAR(coded.distance, metric == Metric::kInnerProduct ? -dot : l2, 2 * tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Dimensions, Int8CodesTest, ::testing::Values(1, 3, 31, 32, 33, 100, 128, 1000, 4096));

TEST(Int8Codes, ZerosAreFarFromNothing) {
  const std::vector<float> zero(5, 0.0F);
  const std::vector<float> one = {0, 0, 1, 0, 0};
  EXPECT_FLOAT_EQ(Coded(Metric::kL2, zero, one).distance, 1.0F);
}

}  // namespace
}  // namespace freshet
