#include "freshet/store/popularity.h"

#include <algorithm>
#include <cmath>

namespace freshet {
namespace {

constexpr double kMaxExponent = 200;  // 2^200 times any count is far from infinite

}  // namespace

void Popularity::Add(const std::string& item_id, std::int64_t timestamp_ms) {
  const std::lock_guard lock(mu_);
  if (weights_.empty()) newest_ms_ = landmark_ms_ = timestamp_ms;
  newest_ms_ = std::max(newest_ms_, timestamp_ms);
  const auto exponent = [&] {
    return static_cast<double>(timestamp_ms - landmark_ms_) / static_cast<double>(options_.half_life_ms);
  };
  if (exponent() > kMaxExponent) Rescale(timestamp_ms);
  weights_[item_id] += std::exp2(exponent());
  ++changes_;
  if (weights_.size() > options_.max_items + options_.max_items / 4) Forget();
}

void Popularity::Rescale(std::int64_t landmark_ms) {
  const double factor =
      std::exp2(-static_cast<double>(landmark_ms - landmark_ms_) / static_cast<double>(options_.half_life_ms));
  for (auto& [id, weight] : weights_) weight *= factor;
  landmark_ms_ = landmark_ms;
}

void Popularity::Forget() {
  std::vector<std::pair<double, std::string>> items;
  items.reserve(weights_.size());
  for (const auto& [id, weight] : weights_) items.emplace_back(weight, id);
  const auto last = items.begin() + static_cast<std::ptrdiff_t>(options_.max_items);
  std::nth_element(items.begin(), last, items.end(), std::greater<>());
  for (auto it = last; it != items.end(); ++it) weights_.erase(it->second);
}

std::shared_ptr<const PopularItems> Popularity::Top(std::int64_t now_ms, std::int64_t max_age_ms) const {
  auto items = std::make_shared<PopularItems>();
  double scale = 0;
  std::uint64_t changes = 0;
  {
    const std::lock_guard lock(mu_);
    if (top_ && (top_changes_ == changes_ || now_ms - top_at_ms_ < max_age_ms)) return top_;
    items->assign(weights_.begin(), weights_.end());
    scale = std::exp2(-static_cast<double>(newest_ms_ - landmark_ms_) / static_cast<double>(options_.half_life_ms));
    changes = changes_;
  }
  // Not under the lock: the Applier need not wait for a sort.
  for (auto& [id, weight] : *items) weight *= scale;
  std::sort(items->begin(), items->end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  const std::lock_guard lock(mu_);
  top_ = items;
  top_at_ms_ = now_ms;
  top_changes_ = changes;
  return items;
}

std::size_t Popularity::size() const {
  const std::lock_guard lock(mu_);
  return weights_.size();
}

}  // namespace freshet
