#include "rerank.h"

#include <cmath>
#include <random>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

struct Case {
  Rerank kind;
  double relative;  // to the largest component: what a stored component may be off by
};

class RerankTest : public ::testing::TestWithParam<int> {};

// Dimensions that are not multiples of any vector width, too; values over many magnitudes.
TEST_P(RerankTest, EveryKindAndPathIsAsExactAsItSays) {
  std::mt19937_64 random(test::TestSeed());
  std::normal_distribution<float> normal;
  const auto dim = static_cast<std::size_t>(GetParam());
  for (const Case& each :
       {Case{Rerank::kFp32, 0}, Case{Rerank::kFp16, 0x1p-11}, Case{Rerank::kResidual8, 1.01 / 65024}}) {
    for (const float magnitude : {1e-3F, 1.0F, 200.0F}) {
      std::vector<float> vector(dim);
      std::vector<float> query(dim);
      float largest = 0;
      for (std::size_t i = 0; i < dim; ++i) {
        vector[i] = magnitude * normal(random);
        query[i] = normal(random);
        largest = std::max(largest, std::fabs(vector[i]));
      }
      const Int8Codes codes(Metric::kL2, GetParam());
      const Reranker reranker(each.kind, Metric::kL2, GetParam());
      std::vector<std::int8_t> row_codes(codes.row_bytes());
      std::vector<std::byte> row(reranker.row_bytes() + dim);
      const CodeHead head = codes.Encode(vector.data(), row_codes.data(), reinterpret_cast<std::int8_t*>(row.data()));
      reranker.Put(vector.data(), row.data());
      std::vector<float> read(dim);
      reranker.Get(row.data(), row_codes.data(), head.scale, read.data());
      double dot = 0;
      double l2 = 0;
      double sum = 0;
      for (std::size_t i = 0; i < dim; ++i) {
        ASSERT_NEAR(read[i], vector[i], each.relative * static_cast<double>(largest) + 6e-8);
        dot += double{query[i]} * double{read[i]};
        l2 += (double{query[i]} - double{read[i]}) * (double{query[i]} - double{read[i]});
        sum += std::fabs(double{query[i]} * double{read[i]});
      }
      for (const RerankKernels& path : RerankKernelsOf(each.kind)) {
        EXPECT_NEAR(path.dot(query.data(), row.data(), row_codes.data(), head.scale, dim), dot, 1e-5 * sum + 1e-6);
        EXPECT_NEAR(path.l2(query.data(), row.data(), row_codes.data(), head.scale, dim), l2, 1e-5 * l2 + 1e-6);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dimensions, RerankTest, ::testing::Values(1, 7, 8, 33, 100, 128, 1000, 4096));

TEST(Rerank, HalvesAtTheEndsOfTheirRange) {
  const std::vector<float> vector = {0, -0.0F, 1e-8F, 6e-8F, 6.1e-5F, 65'504, 1e9F, -1e9F, 1};
  const std::vector<float> expected = {0, 0, 0, 5.9604645e-08F, 6.097555e-05F, 65'504, 65'504, -65'504, 1};
  const auto dim = static_cast<int>(vector.size());
  const Reranker reranker(Rerank::kFp16, Metric::kL2, dim);
  std::vector<std::byte> row(reranker.row_bytes());
  reranker.Put(vector.data(), row.data());
  std::vector<float> read(vector.size());
  reranker.Get(row.data(), nullptr, 0, read.data());
  for (std::size_t i = 0; i < vector.size(); ++i) EXPECT_NEAR(read[i], expected[i], std::fabs(expected[i]) * 0x1p-11F);
}

}  // namespace
}  // namespace freshet
