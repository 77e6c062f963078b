#include "freshet/core/metric.h"

#include <array>
#include <cmath>
#include <limits>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

// In lanes, which are added up in the same order everywhere: one sum would wait for each of its additions.
double SquaredLength(std::span<const float> vector) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  std::size_t at = 0;
  for (; at + kLanes <= vector.size(); at += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const auto x = static_cast<double>(vector[at + lane]);
      sums[lane] += x * x;
    }
  }
  for (; at < vector.size(); ++at)
    sums[at % kLanes] += static_cast<double>(vector[at]) * static_cast<double>(vector[at]);
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace

const char* MetricName(Metric metric) {
  switch (metric) {
    case Metric::kCosine:
      return "cosine";
    case Metric::kInnerProduct:
      return "ip";
    case Metric::kL2:
      return "l2";
  }
  return "unknown";
}

Result<Metric> ParseMetric(std::string_view name) {
  for (const Metric metric : {Metric::kCosine, Metric::kInnerProduct, Metric::kL2}) {
    if (name == MetricName(metric)) return metric;
  }
  return ConfigError(StrCat("`", name, "` is no metric; it may be cosine, ip or l2"));
}

Status PrepareVector(Metric metric, int dim, std::span<float> vector) {
  if (vector.size() != static_cast<std::size_t>(dim)) {
    return InvalidArgument(StrCat("the vector has ", vector.size(), " values, not ", dim));
  }
  const double squared = SquaredLength(vector);
  // A float's square is finite as a double, so only what is not finite makes this so.
  if (!std::isfinite(squared)) return InvalidArgument("the vector holds a value that is not finite");
  if (squared == 0) return InvalidArgument("the vector has length zero");
  if (metric != Metric::kCosine) {
    // The distance of two such vectors must stay a finite float: |a - b|^2 <= 4 max(|a|, |b|)^2.
    if (squared > static_cast<double>(std::numeric_limits<float>::max()) / 4) {
      return InvalidArgument("the vector is too long: its squared length does not fit a float");
    }
    return Status::Ok();
  }
  const double scale = 1.0 / std::sqrt(squared);
  for (float& x : vector) x = static_cast<float>(static_cast<double>(x) * scale);
  return Status::Ok();
}

}  // namespace freshet
