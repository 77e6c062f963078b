#include "freshet/core/metric.h"

#include <cmath>
#include <limits>

#include "freshet/core/strings.h"

namespace freshet {

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
  double squared = 0;
  for (const float x : vector) {
    if (!std::isfinite(x)) return InvalidArgument("the vector holds a value that is not finite");
    squared += static_cast<double>(x) * static_cast<double>(x);
  }
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
