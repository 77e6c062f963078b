#include "freshet/store/catalog.h"

#include <algorithm>
#include <array>
#include <bit>

#include "freshet/core/checksum.h"

namespace freshet {
namespace {

constexpr std::size_t kChunksWorthKeeping = 32;  // one of so many, and a filter's entry is made anew
constexpr std::size_t kChunksPerLock = 16;       // tens of microseconds for which a writer may have to wait
constexpr Label kNoLabel = ~Label{0};
constexpr std::size_t kAhead = 16;  // changes whose table entries are fetched while others are applied

std::size_t CountOf(const std::vector<std::uint64_t>& words) {
  std::size_t count = 0;
  for (const std::uint64_t word : words) count += static_cast<std::size_t>(std::popcount(word));
  return count;
}

}  // namespace

std::uint32_t Catalog::SlotOf(std::string_view item_id, std::uint64_t hash) const {
  return by_id_.Find(hash, [&](std::uint32_t slot) { return slots_[slot].id == item_id; });
}

std::uint32_t Catalog::SlotOf(std::string_view item_id) const { return SlotOf(item_id, Xxh3(item_id)); }

void Catalog::Reserve(std::size_t items) {
  const std::lock_guard gate(gate_);
  const std::unique_lock lock(mu_);
  slots_.reserve(items);
  label_of_.reserve(items);
  by_id_.Reserve(items, [this](std::uint32_t slot) { return Xxh3(slots_[slot].id); });
  by_label_.Reserve(items);
}

void Catalog::Apply(const std::vector<Change>& changes) {
  const std::lock_guard gate(gate_);
  const std::unique_lock lock(mu_);
  // In a big catalog each look into a table waits for memory; those of the changes ahead are under way meanwhile.
  std::array<std::uint64_t, kAhead> hashes{};
  const auto fetch = [&](std::size_t i) {
    if (i >= changes.size()) return;
    hashes[i % kAhead] = Xxh3(changes[i].item_id);
    by_id_.Prefetch(hashes[i % kAhead]);
    if (changes[i].label) by_label_.Prefetch(*changes[i].label);
  };
  for (std::size_t i = 0; i < kAhead; ++i) fetch(i);
  for (std::size_t i = 0; i < changes.size(); ++i) {
    const std::uint64_t hash = hashes[i % kAhead];
    fetch(i + kAhead);
    ApplyOne(changes[i], hash);
  }
}

void Catalog::ApplyOne(const Change& change, std::uint64_t id_hash) {
  const auto hash_of = [this](std::uint32_t slot) { return Xxh3(slots_[slot].id); };
  std::uint32_t slot = SlotOf(change.item_id, id_hash);
  const bool is_new = slot == SlotTable::kNone;
  if (!change.label) {
    if (is_new) return;
    Item& item = slots_[slot];
    SetHidden(slot, false);
    item.live = false;
    label_of_[slot] = kNoLabel;
    newly_dead_.emplace_back(item.label, slot);
    attributes_.Remove(slot);
    by_id_.Remove(id_hash, slot, hash_of);
    --live_;
    return;
  }
  bool new_label = true;
  if (is_new) {
    slot = static_cast<std::uint32_t>(slots_.size());
    if (free_slots_.empty()) {
      label_of_.resize(slots_.size() + 1, kNoLabel);
      slots_.emplace_back();
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    slots_[slot] = Item{change.item_id, *change.label, 0, true, change.partition};
    by_id_.Add(id_hash, slot, hash_of);
    ++live_;
  } else {
    Item& item = slots_[slot];
    new_label = item.label != *change.label;
    if (new_label) newly_dead_.emplace_back(item.label, slot);
    item.label = *change.label;
    item.partition = change.partition;
  }
  label_of_[slot] = *change.label;
  Reveal(slot);
  if (new_label) {
    ++slots_[slot].labels;
    by_label_.Insert(*change.label, slot);
    newest_label_ = std::max(newest_label_, *change.label);
  }
  attributes_.Set(slot, change.attributes);
}

void Catalog::ShowOnly(std::optional<std::set<std::int32_t>> partitions) {
  const std::lock_guard gate(gate_);
  const std::unique_lock lock(mu_);
  if (shown_ == partitions) return;
  shown_ = std::move(partitions);
  filters_.Renumber();
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

std::vector<Catalog::Resolved> Catalog::Resolve(const std::vector<Hit>& hits, const Filter* filter) const {
  std::vector<Resolved> resolved(hits.size());
  const auto lock = ReadLock();
  // Two looks into memory a hit, each fetched while others are gone through.
  for (std::size_t i = 0; i < hits.size() + kAhead; ++i) {
    if (i < hits.size()) by_label_.Prefetch(hits[i].label);
    if (i < kAhead) continue;
    Resolved& one = resolved[i - kAhead];
    one.slot = by_label_.Find(hits[i - kAhead].label).value_or(SlotTable::kNone);
    if (one.slot != SlotTable::kNone) __builtin_prefetch(&slots_[one.slot]);
  }
  for (std::size_t i = 0; i < hits.size(); ++i) {
    Resolved& one = resolved[i];
    if (one.slot == SlotTable::kNone || IsHidden(one.slot)) continue;
    const Item& item = slots_[one.slot];
    if (!item.live || (filter != nullptr && !attributes_.Matches(*filter, one.slot))) continue;
    one.id = item.id;
    one.newest = item.label == hits[i].label;
  }
  return resolved;
}

std::optional<Label> Catalog::LabelOf(std::string_view item_id) const {
  const auto lock = ReadLock();
  const std::uint32_t slot = SlotOf(item_id);
  return IsShown(slot) ? std::optional(slots_[slot].label) : std::nullopt;
}

std::optional<Label> Catalog::StoredLabelOf(std::string_view item_id) const {
  const auto lock = ReadLock();
  const std::uint32_t slot = SlotOf(item_id);
  return slot == SlotTable::kNone ? std::nullopt : std::optional(slots_[slot].label);
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
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].live && !IsHidden(slot)) ids.push_back(slots_[slot].id);
  }
  return ids;
}

Status Catalog::EvaluateFilter(const Filter& filter, const std::function<bool()>& expired,
                               std::shared_lock<std::shared_mutex>* lock, Selection* selection) const {
  std::vector<std::uint64_t>* words = &selection->words_;
  const FilterCache::Found known = filters_.Find(filter);
  bool same_columns = known.entry != nullptr;
  auto made = known.key.empty() ? nullptr : std::make_shared<FilterCache::Entry>();
  const std::uint64_t columns_version = attributes_.columns_version();
  std::shared_ptr<AttributeIndex::Compiled> compiled;  // once a chunk has to be looked at
  std::uint64_t compiled_at = 0;
  std::size_t looked_at = 0;
  std::size_t in_lock = 0;
  words->reserve(attributes_.chunks() * AttributeIndex::kChunkWords);
  for (std::size_t chunk = 0; chunk < attributes_.chunks(); ++chunk) {
    if (in_lock == kChunksPerLock) {
      in_lock = 0;
      lock->unlock();
      if (expired()) return DeadlineExceeded("the deadline passed while the filter was evaluated");
      *lock = ReadLock();
    }
    const std::uint64_t changed_at = attributes_.ChangedAt(chunk);
    same_columns = same_columns && known.entry->columns_version == attributes_.columns_version();
    if (const std::uint64_t* kept = same_columns ? known.entry->Find(chunk, changed_at) : nullptr; kept != nullptr) {
      words->insert(words->end(), kept, kept + AttributeIndex::kChunkWords);
    } else {
      ++looked_at;
      ++in_lock;
      if (compiled == nullptr || compiled_at != attributes_.version()) {
        FRESHET_ASSIGN(compiled, attributes_.Compile(filter));
        compiled_at = attributes_.version();
      }
      AttributeIndex::Words matching;
      attributes_.Evaluate(*compiled, chunk, &matching);
      words->insert(words->end(), matching.begin(), matching.end());
    }
    if (made != nullptr) made->changed_at.push_back(changed_at);
  }
  // Of an empty catalog too it is known what cannot be filtered by.
  if (attributes_.chunks() == 0) FRESHET_TRY(attributes_.Compile(filter).status());
  // A few chunks change all the time; to look at them again is cheaper than to keep another copy of all.
  const bool worth_it = looked_at > attributes_.chunks() / kChunksWorthKeeping;
  if (made != nullptr && worth_it && columns_version == attributes_.columns_version()) {
    made->words = *words;
    made->columns_version = columns_version;
    filters_.Keep(known.key, std::move(made));
  }
  if (same_columns) selection->number_ = known.number;
  return Status::Ok();
}

Result<Catalog::Selection> Catalog::Select(const Filter& filter, const std::vector<std::string_view>& excluded_ids,
                                           const std::function<bool()>& expired) const {
  auto lock = ReadLock();
  Selection selection(by_label_.view());
  FRESHET_TRY(EvaluateFilter(filter, expired, &lock, &selection));
  for (std::size_t w = 0; w < std::min(hidden_.size(), selection.words_.size()); ++w) {
    selection.words_[w] &= ~hidden_[w];
  }
  if (selection.number_ != 0 && !excluded_ids.empty()) {
    Selection all(by_label_.view());
    all.words_ = selection.words_;
    all.count_ = CountOf(all.words_);
    all.number_ = selection.number_;
    selection.with_excluded_ = std::make_shared<const Selection>(std::move(all));
  }
  for (const std::string_view id : excluded_ids) {
    const std::uint32_t slot = SlotOf(id);
    if (slot == SlotTable::kNone || slot / 64 >= selection.words_.size()) continue;
    selection.words_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
  }
  selection.count_ = CountOf(selection.words_);
  // What was inserted while the lock was away is then found as well.
  selection.labels_ = by_label_.view();
  return selection;
}

void Catalog::ForEachSelected(const Selection& selection, const std::function<bool(const Item&)>& item) const {
  for (std::size_t w = 0; w < selection.words_.size(); ++w) {
    for (std::uint64_t left = selection.words_[w]; left != 0; left &= left - 1) {
      const std::size_t slot = w * 64 + static_cast<std::size_t>(std::countr_zero(left));
      if (!slots_[slot].live || IsHidden(static_cast<std::uint32_t>(slot))) continue;
      if (!item(slots_[slot])) return;
    }
  }
}

std::vector<std::string> Catalog::IdsOf(const Selection& selection, std::size_t max) const {
  std::vector<std::string> ids;
  if (max == 0) return ids;
  ids.reserve(std::min(max, selection.count()));
  const auto lock = ReadLock();
  ForEachSelected(selection, [&](const Item& item) {
    ids.push_back(item.id);
    return ids.size() < max;
  });
  return ids;
}

Catalog::Labels Catalog::LabelsOf(const Selection& selection) const {
  Labels of;
  of.labels.resize(selection.count());
  Label* end = of.labels.data();
  const auto lock = ReadLock();
  of.newest = newest_label_;
  for (std::size_t w = 0; w < selection.words_.size(); ++w) {
    std::uint64_t word = selection.words_[w];
    if (w < hidden_.size()) word &= ~hidden_[w];
    // Written over by the next one where the item lives no more: cheaper than a branch.
    for (const Label* labels = label_of_.data() + w * 64; word != 0; word &= word - 1) {
      *end = labels[std::countr_zero(word)];
      end += *end != kNoLabel ? 1 : 0;
    }
  }
  of.labels.resize(static_cast<std::size_t>(end - of.labels.data()));
  return of;
}

std::vector<bool> Catalog::Matching(const std::vector<std::string>& ids, const Filter& filter) const {
  std::vector<bool> matching;
  matching.reserve(ids.size());
  const auto lock = ReadLock();
  for (const std::string& id : ids) {
    const std::uint32_t slot = SlotOf(id);
    matching.push_back(IsShown(slot) && attributes_.Matches(filter, slot));
  }
  return matching;
}

std::vector<std::vector<FilterValue>> Catalog::ValuesOf(const std::vector<std::string>& ids,
                                                        std::string_view key) const {
  std::vector<std::vector<FilterValue>> values;
  values.reserve(ids.size());
  const auto lock = ReadLock();
  for (const std::string& id : ids) {
    const std::uint32_t slot = SlotOf(id);
    values.push_back(IsShown(slot) ? attributes_.Values(key, slot) : std::vector<FilterValue>());
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
