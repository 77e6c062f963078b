#include "filter_memo.h"

#include <algorithm>

namespace freshet {
namespace {

constexpr std::size_t kChangesWorthKeeping = 512;  // fewer are asked for again by each search

void AskAll(const SearchView& view, const LabelFilter& filter, std::vector<std::uint64_t>* words) {
  words->assign((view.used + 63) / 64, 0);
  for (std::size_t base = 0; base < view.used; base += 64) {
    (*words)[base / 64] = view.AllowedOf(&filter, base, view.LiveOf(base));
  }
}

void AskAgain(const SearchView& view, const LabelFilter& filter, const std::vector<std::uint32_t>& slots,
              std::vector<std::uint64_t>* words) {
  words->resize((view.used + 63) / 64);
  for (const std::uint32_t slot : slots) {
    if (slot >= view.used) continue;
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    // Whether it lives comes first: the label of a free slot may be being written.
    const bool allowed = !view.IsDead(slot) && filter.Allows(view.labels[slot]);
    std::uint64_t& word = (*words)[slot / 64];
    word = allowed ? word | bit : word & ~bit;
  }
}

}  // namespace

const std::vector<std::uint64_t>* FilterMemo::BitsOf(const Segment& segment, const LastingFilter& filter,
                                                     std::size_t used) {
  // What this thread looks at: an entry, or a copy that it has brought up to date.
  thread_local std::shared_ptr<const Entry> held;
  thread_local std::vector<std::uint64_t> copy;
  thread_local std::vector<std::uint32_t> changed;
  if (max_bytes_ < 8 * (used / 64 + 1)) return nullptr;
  SearchView view = segment.View();
  view.used = std::min(view.used, used);
  const SlotChanges& changes = segment.changes();
  held = Find(filter.key());
  // The entry may be newer than this one's answers: of what it knows it is what they would be. What came since is asked
  // for in any case: it may be allowed by this one too, and nothing that has no bit is looked at.
  const bool known = held != nullptr && changes.After(held->as_of, &changed);
  if (known && 64 * held->words.size() >= view.used && changed.empty()) return &held->words;
  if (known) {
    copy.assign(held->words.begin(), held->words.end());
    AskAgain(view, filter, changed, &copy);
  } else {
    AskAll(view, filter, &copy);
  }
  // Of before this segment, it would never be current.
  const bool lasts = filter.as_of() >= changes.first();
  if (lasts && (!known || (changed.size() > kChangesWorthKeeping && filter.as_of() > held->as_of))) {
    auto made = std::make_shared<Entry>();
    made->key = filter.key();
    made->as_of = filter.as_of();
    made->words = copy;
    Keep(std::move(made));
  }
  held = nullptr;
  return &copy;
}

std::size_t FilterMemo::bytes() const {
  const std::lock_guard lock(mu_);
  return bytes_;
}

std::shared_ptr<const FilterMemo::Entry> FilterMemo::Find(std::uint64_t key) {
  const std::lock_guard lock(mu_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return *found->second;
}

void FilterMemo::Keep(std::shared_ptr<const Entry> entry) {
  const std::size_t bytes = BytesOf(*entry);
  if (bytes > max_bytes_) return;
  const std::lock_guard lock(mu_);
  const auto drop = [&](Entries::iterator kept) {
    bytes_ -= BytesOf(**kept);
    by_key_.erase((*kept)->key);
    entries_.erase(kept);
  };
  if (const auto before = by_key_.find(entry->key); before != by_key_.end()) {
    if ((*before->second)->as_of > entry->as_of) return;
    drop(before->second);
  }
  while (bytes_ + bytes > max_bytes_) drop(std::prev(entries_.end()));
  Entries one;  // what may fail comes first
  one.push_front(std::move(entry));
  by_key_.emplace(one.front()->key, one.begin());
  entries_.splice(entries_.begin(), one);
  bytes_ += bytes;
}

}  // namespace freshet
