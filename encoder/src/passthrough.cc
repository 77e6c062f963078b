#include <algorithm>

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

std::unique_ptr<ItemEncoder> MakePassthroughEncoder(int dim, Metric metric, std::string space_id) {
  return std::make_unique<PassthroughEncoder>(dim, metric, std::move(space_id));
}

}  // namespace freshet
