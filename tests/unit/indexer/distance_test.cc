#include "distance.h"

#include <cmath>
#include <random>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

// Dimensions that are not multiples of any vector width, too.
class DistanceTest : public ::testing::TestWithParam<int> {};

TEST_P(DistanceTest, EveryPathAgreesWithDoubles) {
  std::mt19937_64 random(test::TestSeed());
  std::normal_distribution<float> normal;
  const auto dim = static_cast<std::size_t>(GetParam());
  std::vector<float> a(dim);
  std::vector<float> b(dim);
  double dot = 0;
  double l2 = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    a[i] = normal(random);
    b[i] = normal(random);
    dot += double{a[i]} * double{b[i]};
    l2 += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
  }
  const double tolerance = 1e-5 * static_cast<double>(dim);
  for (const DistanceKernels& path : AllDistanceKernels()) {
    EXPECT_NEAR(path.dot(a.data(), b.data(), dim), dot, tolerance);
    EXPECT_NEAR(path.l2(a.data(), b.data(), dim), l2, tolerance);
  }
}

// What this processor has is there to be called, one by one, whatever is chosen on it.
TEST(DistanceKernels, EveryPathOfThisProcessorIsTested) {
  std::size_t paths = 1;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) ++paths;
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0) ++paths;
#endif
  ASSERT_EQ(AllDistanceKernels().size(), paths);
  EXPECT_EQ(DotKernel(), AllDistanceKernels().back().dot);
  EXPECT_EQ(SquaredL2Kernel(), AllDistanceKernels().back().l2);
}

INSTANTIATE_TEST_SUITE_P(Dimensions, DistanceTest, ::testing::Values(1, 3, 15, 16, 17, 31, 33, 64, 100, 128, 1000));

}  // namespace
}  // namespace freshet
