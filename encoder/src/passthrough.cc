#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "freshet/core/strings.h"
#include "freshet/encoder/encoder.h"

namespace freshet {
namespace {

class PassthroughEncoder final : public ItemEncoder {
 public:
  PassthroughEncoder(int dim, Metric metric, std::string space_id)
      : dim_(dim), metric_(metric), space_id_(std::move(space_id)) {
    if (space_id_.empty()) space_id_ = StrCat("passthrough-", dim, "-", MetricName(metric));
  }

  int dim() const override { return dim_; }
  Metric metric() const override { return metric_; }
  const std::string& space_id() const override { return space_id_; }
  bool reads_vector() const override { return true; }

  Status Encode(std::span<const ItemUpdate* const> items, std::span<float> out) override {
    const auto width = static_cast<std::size_t>(dim_);
    if (out.size() != items.size() * width) return Internal("the output has the wrong size");
    for (std::size_t i = 0; i < items.size(); ++i) {
      const std::vector<float>& vector = items[i]->vector;
      if (vector.empty()) return InvalidArgument("the item has no vector, and the encoder is `passthrough`");
      if (vector.size() != width) {
        return InvalidArgument(StrCat("the vector has ", vector.size(), " values, not ", dim_));
      }
      const std::span<float> row = out.subspan(i * width, width);
      std::copy_n(vector.data(), row.size(), row.data());
      FRESHET_TRY(PrepareVector(metric_, dim_, row));
    }
    return Status::Ok();
  }

 private:
  const int dim_;
  const Metric metric_;
  std::string space_id_;
};

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

std::unique_ptr<ItemEncoder> MakePassthroughEncoder(int dim, Metric metric, std::string space_id) {
  return std::make_unique<PassthroughEncoder>(dim, metric, std::move(space_id));
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
