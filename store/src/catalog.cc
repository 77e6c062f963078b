#include "freshet/store/catalog.h"

#include <algorithm>
#include <bit>

namespace freshet {
namespace {

constexpr std::size_t kChunksPerLock = 16;  // tens of microseconds for which a writer may have to wait

}  // namespace

void Catalog::Apply(const std::vector<Change>& changes) {
  const std::lock_guard gate(gate_);
  const std::unique_lock lock(mu_);
  for (const Change& change : changes) {
    auto it = by_id_.find(change.item_id);
    if (!change.label) {
      if (it == by_id_.end()) continue;
      Item& item = slots_[it->second];
      SetHidden(it->second, false);
      item.live = false;
      newly_dead_.emplace_back(item.label, it->second);
      attributes_.Remove(it->second);
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
      slots_[slot] = Item{change.item_id, *change.label, 0, true, change.partition};
      ++live_;
    } else if (slots_[it->second].label == *change.label) {
      slots_[it->second].partition = change.partition;
      Reveal(it->second);
      attributes_.Set(it->second, change.attributes);
      continue;
    } else {
      newly_dead_.emplace_back(slots_[it->second].label, it->second);
      slots_[it->second].label = *change.label;
      slots_[it->second].partition = change.partition;
    }
    Reveal(it->second);
    ++slots_[it->second].labels;
    by_label_.Insert(*change.label, it->second);
    attributes_.Set(it->second, change.attributes);
  }
}

void Catalog::ShowOnly(std::set<std::int32_t> partitions) {
  const std::lock_guard gate(gate_);
  const std::unique_lock lock(mu_);
  shown_ = std::move(partitions);
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].live) Reveal(slot);
  }
}

void Catalog::Reveal(std::uint32_t slot) {
  const std::int32_t partition = slots_[slot].partition;
  SetHidden(slot, shown_ && partition >= 0 && !shown_->contains(partition));
}

void Catalog::SetHidden(std::uint32_t slot, bool hidden) {
  if (IsHidden(slot) == hidden) return;
  if (hidden_.size() <= slot / 64) hidden_.resize(slot / 64 + 1);
  hidden_[slot / 64] ^= std::uint64_t{1} << (slot % 64);
  hidden_live_ += hidden ? 1 : -std::size_t{1};
}

void Catalog::ForgetDeadLabels() {
  const std::lock_guard gate(gate_);
  const std::unique_lock lock(mu_);
  for (const auto& [label, slot] : dead_) {
    by_label_.Erase(label);
    Item& item = slots_[slot];
    if (--item.labels == 0 && !item.live) {
      item = Item{};
      free_slots_.push_back(slot);
    }
  }
  dead_ = std::move(newly_dead_);
  newly_dead_.clear();
}

void Catalog::Resolve(const std::vector<Hit>& hits, std::vector<std::string>* ids, const Filter* filter) const {
  ids->clear();
  ids->reserve(hits.size());
  const auto lock = ReadLock();
  for (const Hit& hit : hits) {
    const auto slot = by_label_.Find(hit.label);
    const bool counts =
        slot && slots_[*slot].live && !IsHidden(*slot) && (filter == nullptr || attributes_.Matches(*filter, *slot));
    ids->emplace_back(counts ? slots_[*slot].id : std::string());
  }
}

std::optional<Label> Catalog::LabelOf(std::string_view item_id) const {
  const auto lock = ReadLock();
  const auto it = by_id_.find(item_id);
  if (it == by_id_.end() || IsHidden(it->second)) return std::nullopt;
  return slots_[it->second].label;
}

std::optional<Label> Catalog::StoredLabelOf(std::string_view item_id) const {
  const auto lock = ReadLock();
  const auto it = by_id_.find(item_id);
  if (it == by_id_.end()) return std::nullopt;
  return slots_[it->second].label;
}

std::size_t Catalog::live() const {
  const auto lock = ReadLock();
  return live_ - hidden_live_;
}

std::size_t Catalog::hidden() const {
  const auto lock = ReadLock();
  return hidden_live_;
}

std::vector<std::string> Catalog::LiveIds() const {
  const auto lock = ReadLock();
  std::vector<std::string> ids;
  ids.reserve(live_);
  for (const auto& [id, slot] : by_id_) {
    if (!IsHidden(slot)) ids.push_back(id);
  }
  return ids;
}

Result<Catalog::Selection> Catalog::Select(const Filter& filter, const std::vector<std::string_view>& excluded_ids,
                                           const std::function<bool()>& expired) const {
  auto lock = ReadLock();
  Selection selection(by_label_.view());
  FRESHET_ASSIGN(std::shared_ptr<AttributeIndex::Compiled> compiled, attributes_.Compile(filter));
  std::uint64_t version = attributes_.version();
  for (std::size_t chunk = 0; chunk < attributes_.chunks(); ++chunk) {
    if (chunk > 0 && chunk % kChunksPerLock == 0) {
      lock.unlock();
      if (expired()) return DeadlineExceeded("the deadline passed while the filter was evaluated");
      lock = ReadLock();
      if (version != attributes_.version()) {
        FRESHET_ASSIGN(compiled, attributes_.Compile(filter));
        version = attributes_.version();
      }
    }
    AttributeIndex::Words matching;
    attributes_.Evaluate(*compiled, chunk, &matching);
    selection.words_.insert(selection.words_.end(), matching.begin(), matching.end());
  }
  for (const std::string_view id : excluded_ids) {
    const auto it = by_id_.find(id);
    if (it == by_id_.end() || it->second / 64 >= selection.words_.size()) continue;
    selection.words_[it->second / 64] &= ~(std::uint64_t{1} << (it->second % 64));
  }
  for (std::size_t w = 0; w < std::min(hidden_.size(), selection.words_.size()); ++w) {
    selection.words_[w] &= ~hidden_[w];
  }
  for (const std::uint64_t word : selection.words_) selection.count_ += static_cast<std::size_t>(std::popcount(word));
  // What was inserted while the lock was away is then found as well.
  selection.labels_ = by_label_.view();
  return selection;
}

std::vector<std::string> Catalog::IdsOf(const Selection& selection, std::size_t max) const {
  std::vector<std::string> ids;
  ids.reserve(std::min(max, selection.count()));
  const auto lock = ReadLock();
  for (std::size_t w = 0; w < selection.words_.size() && ids.size() < max; ++w) {
    for (std::uint64_t left = selection.words_[w]; left != 0 && ids.size() < max; left &= left - 1) {
      const std::size_t slot = w * 64 + static_cast<std::size_t>(std::countr_zero(left));
      if (slots_[slot].live && !IsHidden(static_cast<std::uint32_t>(slot))) ids.push_back(slots_[slot].id);
    }
  }
  return ids;
}

std::vector<bool> Catalog::Matching(const std::vector<std::string>& ids, const Filter& filter) const {
  std::vector<bool> matching;
  matching.reserve(ids.size());
  const auto lock = ReadLock();
  for (const std::string& id : ids) {
    const auto it = by_id_.find(id);
    matching.push_back(it != by_id_.end() && !IsHidden(it->second) && attributes_.Matches(filter, it->second));
  }
  return matching;
}

std::vector<std::vector<FilterValue>> Catalog::ValuesOf(const std::vector<std::string>& ids,
                                                        std::string_view key) const {
  std::vector<std::vector<FilterValue>> values;
  values.reserve(ids.size());
  const auto lock = ReadLock();
  for (const std::string& id : ids) {
    const auto it = by_id_.find(id);
    values.push_back(it == by_id_.end() || IsHidden(it->second) ? std::vector<FilterValue>()
                                                                : attributes_.Values(key, it->second));
  }
  return values;
}

Status Catalog::CheckFilterable(const std::string& key) const {
  Filter filter;
  filter.condition = ExistsCondition(key, true);
  const auto lock = ReadLock();
  return attributes_.Compile(filter).status();
}

AttributeIndexStats Catalog::attribute_stats() const {
  const auto lock = ReadLock();
  return attributes_.Stats();
}

}  // namespace freshet
