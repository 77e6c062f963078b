#include "package_reranker.h"

#include <algorithm>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

class PackageReranker final : public Reranker {
 public:
  PackageReranker(const ModelManifest& manifest, std::unique_ptr<RerankScript> script)
      : spec_(*manifest.reranker),
        dim_(manifest.dim),
        space_id_(manifest.space_id),
        reads_features_(std::any_of(spec_.item.features.begin(), spec_.item.features.end(),
                                    [](const FeatureDef& def) { return def.name != "item_id"; })),
        script_(std::move(script)) {}

  int dim() const override { return dim_; }
  const std::string& space_id() const override { return space_id_; }
  bool reads_features() const override { return reads_features_; }

  Status Score(const UserContext& user, std::span<const float> user_vector, std::span<const RerankCandidate> candidates,
               std::span<float> scores) const override {
    RerankTensors tensors;
    tensors.user_vector.assign(user_vector.begin(), user_vector.end());
    tensors.item_vectors.reserve(candidates.size() * static_cast<std::size_t>(dim_));
    AppendUser(spec_.user, user, &tensors.user);
    for (const RerankCandidate& one : candidates) {
      tensors.item_vectors.insert(tensors.item_vectors.end(), one.item.vector.begin(), one.item.vector.end());
      tensors.similarity.push_back(one.similarity);
      tensors.popularity.push_back(one.popularity);
      tensors.age_hours.push_back(one.age_hours);
      AppendItem(spec_.item, one.item, &tensors.items);
    }
    return script_->Run(std::move(tensors), scores);
  }

 private:
  const RerankSpec spec_;
  const int dim_;
  const std::string space_id_;
  const bool reads_features_;
  const std::unique_ptr<RerankScript> script_;
};

}  // namespace

Features FeaturesOfAttributes(const Attributes& attributes) {
  Features features;
  features.reserve(attributes.size());
  for (const auto& [name, value] : attributes) {
    if (const auto* flag = std::get_if<bool>(&value)) {
      features.emplace_back(name, *flag ? 1.0 : 0.0);
    } else if (const auto* whole = std::get_if<std::int64_t>(&value)) {
      features.emplace_back(name, static_cast<double>(*whole));
    } else if (const auto* number = std::get_if<double>(&value)) {
      features.emplace_back(name, *number);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      features.emplace_back(name, *text);
    } else if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
      features.emplace_back(name, *texts);
    }
  }
  return features;
}

std::unique_ptr<Reranker> MakePackageReranker(const ModelManifest& manifest, std::unique_ptr<RerankScript> script) {
  return std::make_unique<PackageReranker>(manifest, std::move(script));
}

}  // namespace freshet
