#include "tower_encoders.h"

#include "freshet/core/strings.h"

namespace freshet {
namespace {

class TowerItemEncoder final : public ItemEncoder {
 public:
  TowerItemEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower)
      : spec_(manifest.item),
        dim_(manifest.dim),
        metric_(manifest.metric),
        space_id_(manifest.space_id),
        tower_(std::move(tower)) {}

  int dim() const override { return dim_; }
  Metric metric() const override { return metric_; }
  const std::string& space_id() const override { return space_id_; }

  Status Encode(std::span<const ItemUpdate* const> items, std::span<float> out) override {
    input_.Clear();
    for (const ItemUpdate* item : items) AppendItem(spec_, *item, &input_);
    FRESHET_TRY(tower_->Run(input_, out));
    const auto width = static_cast<std::size_t>(dim_);
    for (std::size_t i = 0; i < items.size(); ++i) {
      FRESHET_TRY(PrepareVector(metric_, dim_, out.subspan(i * width, width)));
    }
    return Status::Ok();
  }

 private:
  const FeatureSpec spec_;
  const int dim_;
  const Metric metric_;
  const std::string space_id_;
  const std::unique_ptr<Tower> tower_;
  TowerInput input_;  // reused: one caller
};

class TowerUserEncoder final : public UserEncoder {
 public:
  TowerUserEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower)
      : spec_(manifest.user),
        dim_(manifest.dim),
        metric_(manifest.metric),
        space_id_(manifest.space_id),
        tower_(std::move(tower)) {}

  int dim() const override { return dim_; }
  const std::string& space_id() const override { return space_id_; }

  Status Encode(const UserContext& user, std::span<float> out) const override {
    static thread_local TowerInput input;
    input.Clear();
    AppendUser(spec_, user, &input);
    FRESHET_TRY(tower_->Run(input, out));
    return PrepareVector(metric_, dim_, out);
  }

 private:
  const FeatureSpec spec_;
  const int dim_;
  const Metric metric_;
  const std::string space_id_;
  const std::unique_ptr<Tower> tower_;
};

}  // namespace

TowerShape ShapeOf(const FeatureSpec& spec, int dim) {
  return {spec.table_rows(), spec.bag_count(), spec.dense_count(), dim};
}

std::unique_ptr<ItemEncoder> MakeTowerItemEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower) {
  return std::make_unique<TowerItemEncoder>(manifest, std::move(tower));
}

std::unique_ptr<UserEncoder> MakeTowerUserEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower) {
  return std::make_unique<TowerUserEncoder>(manifest, std::move(tower));
}

}  // namespace freshet
