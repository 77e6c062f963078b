#include "tower_encoders.h"

#include <algorithm>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxChecked = 8;  // goldens of a Check(): it may come with every batch

constexpr std::size_t kFetchAhead = 6;  // items; what another processor decoded is in no near cache

// Asks for the memory of an item's features, which lie one after the other.
void Fetch(const ItemUpdate& item) {
  constexpr std::size_t kLine = 64;
  constexpr std::size_t kMostLines = 8;
  const auto* at = reinterpret_cast<const char*>(item.features.data());
  const std::size_t lines = (item.features.size() * sizeof(Features::value_type) + kLine - 1) / kLine;
  for (std::size_t i = 0; i < std::min(lines, kMostLines); ++i) __builtin_prefetch(at + i * kLine);
}

class TowerItemEncoder final : public ItemEncoder {
 public:
  TowerItemEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower, const Goldens& goldens,
                   std::string name)
      : spec_(manifest.item),
        dim_(manifest.dim),
        metric_(manifest.metric),
        space_id_(manifest.space_id),
        name_(std::move(name)),
        tower_(std::move(tower)) {
    goldens_.tolerance = goldens.tolerance;
    const std::size_t count = std::min(goldens.items.size(), kMaxChecked);
    goldens_.items.assign(goldens.items.begin(), goldens.items.begin() + static_cast<std::ptrdiff_t>(count));
  }

  int dim() const override { return dim_; }
  Metric metric() const override { return metric_; }
  const std::string& space_id() const override { return space_id_; }

  Status Encode(std::span<const ItemUpdate* const> items, std::span<float> out) override {
    const auto fill = [&](std::size_t begin, std::size_t end, TowerInput* input) {
      for (std::size_t i = begin; i < end; ++i) {
        if (i + kFetchAhead < end) Fetch(*items[i + kFetchAhead]);
        AppendItem(spec_, *items[i], input);
      }
    };
    FRESHET_TRY(tower_->Run(static_cast<std::int64_t>(items.size()), fill, &input_, out));
    const auto width = static_cast<std::size_t>(dim_);
    for (std::size_t i = 0; i < items.size(); ++i) {
      FRESHET_TRY(PrepareVector(metric_, dim_, out.subspan(i * width, width)));
    }
    return Status::Ok();
  }

  Status Check() override {
    const Status status = CheckGoldens(goldens_, metric_, this);
    if (status.ok() || status.category() == Category::kTransient) return status;
    return status.Prefixed(StrCat(name_, ": the model is broken, it no longer answers what it did when it was loaded"));
  }

 private:
  const FeatureSpec spec_;
  const int dim_;
  const Metric metric_;
  const std::string space_id_;
  const std::string name_;
  const std::unique_ptr<Tower> tower_;
  Goldens goldens_;   // of items; constant after construction
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

std::unique_ptr<ItemEncoder> MakeTowerItemEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower,
                                                  const Goldens& goldens, std::string name) {
  return std::make_unique<TowerItemEncoder>(manifest, std::move(tower), goldens, std::move(name));
}

std::unique_ptr<UserEncoder> MakeTowerUserEncoder(const ModelManifest& manifest, std::unique_ptr<Tower> tower) {
  return std::make_unique<TowerUserEncoder>(manifest, std::move(tower));
}

}  // namespace freshet
