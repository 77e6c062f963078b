#include "freshet/store/catalog.h"

#include <mutex>

namespace freshet {

void Catalog::Apply(const std::vector<Change>& changes) {
  const std::unique_lock lock(mu_);
  for (const Change& change : changes) {
    auto it = by_id_.find(change.item_id);
    if (!change.label) {
      if (it == by_id_.end()) continue;
      Item& item = slots_[it->second];
      item.live = false;
      newly_dead_.emplace_back(item.label, it->second);
      by_id_.erase(it);
      --live_;
      continue;
    }
    if (it == by_id_.end()) {
      std::uint32_t slot = static_cast<std::uint32_t>(slots_.size());
      if (free_slots_.empty()) {
        slots_.emplace_back();
      } else {
        slot = free_slots_.back();
        free_slots_.pop_back();
      }
      it = by_id_.emplace(change.item_id, slot).first;
      slots_[slot] = Item{change.item_id, *change.label, 0, true};
      ++live_;
    } else {
      newly_dead_.emplace_back(slots_[it->second].label, it->second);
      slots_[it->second].label = *change.label;
    }
    ++slots_[it->second].labels;
    by_label_[*change.label] = it->second;
  }
}

void Catalog::ForgetDeadLabels() {
  const std::unique_lock lock(mu_);
  for (const auto& [label, slot] : dead_) {
    by_label_.erase(label);
    Item& item = slots_[slot];
    if (--item.labels == 0 && !item.live) {
      item = Item{};
      free_slots_.push_back(slot);
    }
  }
  dead_ = std::move(newly_dead_);
  newly_dead_.clear();
}

void Catalog::Resolve(const std::vector<Hit>& hits, std::vector<std::string>* ids) const {
  ids->clear();
  ids->reserve(hits.size());
  const std::shared_lock lock(mu_);
  for (const Hit& hit : hits) {
    const auto it = by_label_.find(hit.label);
    ids->emplace_back(it != by_label_.end() && slots_[it->second].live ? slots_[it->second].id : std::string());
  }
}

std::optional<Label> Catalog::LabelOf(std::string_view item_id) const {
  const std::shared_lock lock(mu_);
  const auto it = by_id_.find(item_id);
  if (it == by_id_.end()) return std::nullopt;
  return slots_[it->second].label;
}

std::size_t Catalog::live() const {
  const std::shared_lock lock(mu_);
  return live_;
}

std::vector<std::string> Catalog::LiveIds() const {
  const std::shared_lock lock(mu_);
  std::vector<std::string> ids;
  ids.reserve(live_);
  for (const auto& [id, slot] : by_id_) ids.push_back(id);
  return ids;
}

}  // namespace freshet
