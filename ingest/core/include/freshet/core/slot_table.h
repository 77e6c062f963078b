// key -> slot, where the keys themselves are kept by slot: labels and vectors in the index's segment, item ids in the
// catalog. Open addressing, four bytes an entry and at least 1.5 entries a key. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace freshet {

class SlotTable {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  // `hash` of the key, `same` whether a slot has it. kNone: none has.
  template <typename Same>
  [[nodiscard]] std::uint32_t Find(std::uint64_t hash, const Same& same) const {
    if (slots_.empty()) return kNone;
    std::size_t at = Begin(hash);
    while (slots_[at] != kNone && !same(slots_[at])) at = Next(at);
    return slots_[at];
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
    while (slots_[gap] != kNone && slots_[gap] != slot) gap = Next(gap);
    if (slots_[gap] == kNone) return;
    for (std::size_t at = Next(gap); slots_[at] != kNone; at = Next(at)) {
      const std::size_t home = Begin(hash_of(slots_[at]));
      // Whether the gap is between its home and its place, around the end or not.
      const bool movable = gap <= at ? (home <= gap || home > at) : (home <= gap && home > at);
      if (movable) {
        slots_[gap] = slots_[at];
        gap = at;
      }
    }
    slots_[gap] = kNone;
    --size_;
  }
  [[nodiscard]] std::size_t bytes() const { return slots_.capacity() * sizeof(std::uint32_t); }

 private:
  [[nodiscard]] std::size_t Begin(std::uint64_t hash) const {
    return static_cast<std::size_t>((static_cast<unsigned __int128>(hash * 0x9e3779b97f4a7c15ULL) * slots_.size()) >>
                                    64);
  }
  [[nodiscard]] std::size_t Next(std::size_t at) const { return at + 1 == slots_.size() ? 0 : at + 1; }
  template <typename HashOf>
  void Resize(std::size_t entries, const HashOf& hash_of) {
    std::vector<std::uint32_t> old(entries, kNone);
    old.swap(slots_);
    for (const std::uint32_t moved : old) {
      if (moved != kNone) Place(hash_of(moved), moved);
    }
  }
  void Place(std::uint64_t hash, std::uint32_t slot) {
    std::size_t at = Begin(hash);
    while (slots_[at] != kNone) at = Next(at);
    slots_[at] = slot;
  }

  std::vector<std::uint32_t> slots_;
  std::size_t size_ = 0;
};

}  // namespace freshet
