#include "int8_codes.h"

#include <cmath>
#include <random>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(Int8Dot, EveryKernelIsBitExact) {
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
      for (const Int8DotKernel kernel : Int8DotKernels()) EXPECT_EQ(kernel(a.data(), b.data(), size), expected);
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
    const Int8Codes codes(metric, GetParam());
    std::vector<char> row_a(codes.row_bytes());
    std::vector<char> row_b(codes.row_bytes());
    codes.Encode(a.data(), row_a.data());
    codes.Encode(b.data(), row_b.data());
    EXPECT_NEAR(codes.Distance(row_a.data(), row_b.data()), metric == Metric::kL2 ? l2 : -dot, 2 * tolerance);
    EXPECT_EQ(codes.Distance(row_a.data(), row_b.data()), codes.Distance(row_b.data(), row_a.data()));
  }
}

INSTANTIATE_TEST_SUITE_P(Dimensions, Int8CodesTest, ::testing::Values(1, 3, 31, 32, 33, 100, 128, 1000, 4096));

TEST(Int8Codes, ZerosAreFarFromNothing) {
  const Int8Codes codes(Metric::kL2, 5);
  const std::vector<float> zero(5, 0.0F);
  const std::vector<float> one = {0, 0, 1, 0, 0};
  std::vector<char> row_zero(codes.row_bytes());
  std::vector<char> row_one(codes.row_bytes());
  codes.Encode(zero.data(), row_zero.data());
  codes.Encode(one.data(), row_one.data());
  EXPECT_FLOAT_EQ(codes.Distance(row_zero.data(), row_one.data()), 1.0F);
}

}  // namespace
}  // namespace freshet
