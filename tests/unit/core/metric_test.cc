#include "freshet/core/metric.h"

#include <limits>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(MetricTest, NamesRoundTrip) {
  for (const Metric metric : {Metric::kCosine, Metric::kInnerProduct, Metric::kL2}) {
    const Result<Metric> parsed = ParseMetric(MetricName(metric));
    ASSERT_OK(parsed);
    EXPECT_EQ(*parsed, metric);
  }
  EXPECT_EQ(ParseMetric("euclid").status().code(), Code::kConfig);
}

TEST(MetricTest, NormalisesTheSmallestAndTheLargestFloats) {
  for (const float x : {std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()}) {
    std::vector<float> vector = {x, 0};
    ASSERT_OK(PrepareVector(Metric::kCosine, 2, vector));
    EXPECT_FLOAT_EQ(vector[0], 1);
  }
}

TEST(MetricTest, NormalisesForCosineAloneAndRefusesAnotherDimension) {
  std::vector<float> vector = {3, 4};
  ASSERT_OK(PrepareVector(Metric::kL2, 2, vector));
  EXPECT_EQ(vector, (std::vector<float>{3, 4}));
  ASSERT_OK(PrepareVector(Metric::kCosine, 2, vector));
  EXPECT_FLOAT_EQ(vector[1], 0.8F);
  EXPECT_EQ(PrepareVector(Metric::kCosine, 3, vector).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace freshet
