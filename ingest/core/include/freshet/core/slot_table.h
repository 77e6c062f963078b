// key -> slot, where the keys themselves are kept by slot: labels and vectors in the index's segment, item ids in the
// catalog. Open addressing, five bytes an entry and at least 1.5 entries a key. One of the five is a tag, of the key's
// hash: a search compares keys, each a jump into other memory, only where it agrees (one in 255 by chance), and passes
// over others within a cache line. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "freshet/core/huge_pages.h"

namespace freshet {

class SlotTable {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  // `hash` of the key, `same` whether a slot has it. kNone: none has.
  template <typename Same>
  [[nodiscard]] std::uint32_t Find(std::uint64_t hash, const Same& same) const {
    if (slots_.empty()) return kNone;
    const std::uint8_t tag = TagOf(hash);
    for (std::size_t at = Begin(hash); tags_[at] != kFree; at = Next(at)) {
      if (tags_[at] == tag && same(slots_[at])) return slots_[at];
    }
    return kNone;
  }
  // Of a key that is going to be searched for or added: its entry is fetched meanwhile.
  void Prefetch(std::uint64_t hash) const {
    if (slots_.empty()) return;
    const std::size_t at = Begin(hash);
    __builtin_prefetch(&tags_[at]);
    __builtin_prefetch(&slots_[at]);
  }
  // `hash_of` a slot's key. REQUIRES: not there yet.
  template <typename HashOf>
  void Add(std::uint64_t hash, std::uint32_t slot, const HashOf& hash_of) {
    if (3 * (size_ + 1) > 2 * slots_.size())
      Resize(std::max<std::size_t>(64, slots_.size() + slots_.size() / 2), hash_of);
    Place(hash, slot);
    ++size_;
  }
  template <typename HashOf>
  void Reserve(std::size_t entries, const HashOf& hash_of) {
    if (3 * entries > 2 * slots_.size()) Resize(3 * entries / 2 + 64, hash_of);
  }
  // Those after it move up, so that no gap ends a search early. No effect when it is not there.
  template <typename HashOf>
  void Remove(std::uint64_t hash, std::uint32_t slot, const HashOf& hash_of) {
    if (slots_.empty()) return;
    std::size_t gap = Begin(hash);
    while (tags_[gap] != kFree && slots_[gap] != slot) gap = Next(gap);
    if (tags_[gap] == kFree) return;
    for (std::size_t at = Next(gap); tags_[at] != kFree; at = Next(at)) {
      const std::size_t home = Begin(hash_of(slots_[at]));
      // Whether the gap is between its home and its place, around the end or not.
      const bool movable = gap <= at ? (home <= gap || home > at) : (home <= gap && home > at);
      if (movable) {
        slots_[gap] = slots_[at];
        tags_[gap] = tags_[at];
        gap = at;
      }
    }
    tags_[gap] = kFree;
    --size_;
  }
  [[nodiscard]] std::size_t bytes() const { return slots_.capacity() * (sizeof(std::uint32_t) + sizeof(std::uint8_t)); }

 private:
  static constexpr std::uint8_t kFree = 0;

  [[nodiscard]] static std::uint64_t Mixed(std::uint64_t hash) { return hash * 0x9e3779b97f4a7c15ULL; }
  // Other bits than those that the home is of.
  [[nodiscard]] static std::uint8_t TagOf(std::uint64_t hash) {
    return static_cast<std::uint8_t>(std::max<std::uint64_t>(1, Mixed(hash) >> 16 & 0xff));
  }
  [[nodiscard]] std::size_t Begin(std::uint64_t hash) const {
    return static_cast<std::size_t>((static_cast<unsigned __int128>(Mixed(hash)) * slots_.size()) >> 64);
  }
  [[nodiscard]] std::size_t Next(std::size_t at) const { return at + 1 == slots_.size() ? 0 : at + 1; }
  template <typename HashOf>
  void Resize(std::size_t entries, const HashOf& hash_of) {
    Slots slots(entries);
    Tags tags(entries, kFree);
    slots.swap(slots_);
    tags.swap(tags_);
    for (std::size_t at = 0; at < tags.size(); ++at) {
      if (tags[at] != kFree) Place(hash_of(slots[at]), slots[at]);
    }
  }
  void Place(std::uint64_t hash, std::uint32_t slot) {
    std::size_t at = Begin(hash);
    while (tags_[at] != kFree) at = Next(at);
    tags_[at] = TagOf(hash);
    slots_[at] = slot;
  }

  using Slots = std::vector<std::uint32_t, HugePageAllocator<std::uint32_t>>;
  using Tags = std::vector<std::uint8_t, HugePageAllocator<std::uint8_t>>;
  Slots slots_;
  Tags tags_;  // by entry; kFree: none
  std::size_t size_ = 0;
};

}  // namespace freshet
