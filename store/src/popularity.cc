#include "freshet/store/popularity.h"

#include <algorithm>
#include <cmath>

namespace freshet {
namespace {

constexpr double kMaxExponent = 200;  // 2^200 times any count is far from infinite

}  // namespace

double Popularity::Exponent(std::int64_t timestamp_ms) const {
  return static_cast<double>(timestamp_ms - landmark_ms_) / static_cast<double>(options_.half_life_ms);
}

double Popularity::Scale() const { return std::exp2(-Exponent(newest_ms_)); }

void Popularity::Add(const std::string& item_id, std::int64_t timestamp_ms) {
  const std::lock_guard lock(mu_);
  if (counts_.empty()) newest_ms_ = landmark_ms_ = timestamp_ms;
  newest_ms_ = std::max(newest_ms_, timestamp_ms);
  if (Exponent(timestamp_ms) > kMaxExponent) Rescale(timestamp_ms);
  Count& count = counts_[item_id];
  count.weight += std::exp2(Exponent(timestamp_ms));
  ++count.interactions;
  ++changes_;
  if (counts_.size() > options_.max_items + options_.max_items / 4) Forget();
}

void Popularity::Remove(const std::string& item_id, std::int64_t timestamp_ms) {
  const std::lock_guard lock(mu_);
  const auto found = counts_.find(item_id);
  if (found == counts_.end()) return;  // forgotten meanwhile
  Count& count = found->second;
  ++changes_;
  if (--count.interactions == 0) {
    counts_.erase(found);
  } else {
    // Rounding must not make it negative.
    count.weight = std::max(0.0, count.weight - std::exp2(Exponent(timestamp_ms)));
  }
}

void Popularity::Rescale(std::int64_t landmark_ms) {
  const double factor =
      std::exp2(-static_cast<double>(landmark_ms - landmark_ms_) / static_cast<double>(options_.half_life_ms));
  for (auto& [id, count] : counts_) count.weight *= factor;
  landmark_ms_ = landmark_ms;
}

void Popularity::Forget() {
  std::vector<std::pair<double, std::string>> items;
  items.reserve(counts_.size());
  for (const auto& [id, count] : counts_) items.emplace_back(count.weight, id);
  const auto last = items.begin() + static_cast<std::ptrdiff_t>(options_.max_items);
  std::nth_element(items.begin(), last, items.end(), std::greater<>());
  for (auto it = last; it != items.end(); ++it) counts_.erase(it->second);
}

std::shared_ptr<const PopularItems> Popularity::Top(std::int64_t now_ms, std::int64_t max_age_ms) const {
  auto items = std::make_shared<PopularItems>();
  double scale = 0;
  std::uint64_t changes = 0;
  {
    const std::lock_guard lock(mu_);
    if (top_ && (top_changes_ == changes_ || now_ms - top_at_ms_ < max_age_ms)) return top_;
    items->reserve(counts_.size());
    for (const auto& [id, count] : counts_) items->emplace_back(id, count.weight);
    scale = Scale();
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

std::vector<double> Popularity::CountsOf(const std::vector<std::string>& ids) const {
  std::vector<double> counts;
  counts.reserve(ids.size());
  const std::lock_guard lock(mu_);
  const double scale = Scale();
  for (const std::string& id : ids) {
    const auto found = counts_.find(id);
    counts.push_back(found == counts_.end() ? 0.0 : found->second.weight * scale);
  }
  return counts;
}

std::size_t Popularity::size() const {
  const std::lock_guard lock(mu_);
  return counts_.size();
}

}  // namespace freshet
