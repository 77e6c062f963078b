// One best-first search of one level of a graph: Malkov and Yashunin, arXiv 1603.09320, algorithm 2.
//
// A node is 31 bits: on level 0 a slot, above it an upper id. Lists of links are {count, nodes...} and may be changed
// while they are read: each number of a list is atomic, and a node is in a list only when all of it is written; a
// reader may see a list half old, half new, which is as good a list. Nodes that came after the walk began are ignored.
// Memory waits are where time goes. So a walk expands several candidates at once: their lists are fetched together,
// then the rows of what they lead to, and while those come, the lists of what is likely to be expanded next; and what
// is better than the worst is merged into the sorted pool at once. Thread-safety: a walk belongs to one thread at a
// time. Allocates nothing once warm.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "int8_codes.h"

namespace freshet {

[[gnu::always_inline]] inline std::uint32_t LoadLink(const std::uint32_t* at) {
  return std::atomic_ref<std::uint32_t>(*const_cast<std::uint32_t*>(at)).load(std::memory_order_acquire);
}

// The rows that distances are taken of.
struct CodeRows {
  const Int8Codes* codes = nullptr;
  const std::int8_t* rows = nullptr;
  const CodeHead* heads = nullptr;
};

struct BaseLevel {
  const std::uint32_t* links;
  std::size_t m;
  [[nodiscard]] std::uint32_t SlotOf(std::uint32_t node) const { return node; }
  [[nodiscard]] const std::uint32_t* LinksOf(std::uint32_t node) const { return links + std::size_t{node} * (m + 1); }
};
struct UpperLevel {
  const std::uint32_t* links;
  std::size_t m;
  const std::uint32_t* slots;
  const std::uint32_t* first;
  std::size_t level;  // from 1
  [[nodiscard]] std::uint32_t SlotOf(std::uint32_t node) const { return slots[node]; }
  [[nodiscard]] const std::uint32_t* LinksOf(std::uint32_t node) const {
    return links + (first[node] + level - 1) * (m + 1);
  }
};

// A candidate as one number that sorts by distance: the float's bits made monotone, the node, whether it was expanded.
inline std::uint64_t CandidateKey(float distance, std::uint32_t node) {
  const auto bits = std::bit_cast<std::uint32_t>(distance);
  const std::uint32_t ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffU : 0x80000000U);
  return std::uint64_t{ordered} << 32 | std::uint64_t{node} << 1;
}
inline std::uint32_t NodeOf(std::uint64_t key) { return static_cast<std::uint32_t>(key) >> 1; }
inline float DistanceOf(std::uint64_t key) {
  const auto ordered = static_cast<std::uint32_t>(key >> 32);
  return std::bit_cast<float>(ordered ^ ((ordered >> 31) != 0 ? 0x80000000U : 0xffffffffU));
}

class GraphWalk {
 public:
  // From `entry`, for the `width` nearest. `nodes` is above every node there is now; `expand` candidates at once. A
  // `widenable` one keeps what it has no room for. Once `width` are found, only the nearest `share` of them are
  // expanded: what comes last seldom leads to better ones.
  template <typename Level>
  void Begin(const CodeRows& rows, const Level& level, const std::int8_t* query, CodeHead head, std::uint32_t entry,
             std::size_t nodes, std::size_t width, std::size_t expand, bool widenable = false, double share = 1) {
    rows_ = rows;
    query_ = query;
    head_ = head;
    nodes_ = nodes;
    share_ = share;
    SetWidth(width);
    expand_ = expand;
    widenable_ = widenable;
    spare_.clear();
    for (const std::uint32_t word : touched_) visited_[word] = 0;
    touched_.clear();
    if (visited_.size() * 64 < nodes) visited_.resize((nodes + 63) / 64);
    if (pool_.size() < width + 1) pool_.resize(width + 1);
    const std::size_t most = expand * level.m;
    if (keys_.size() < most) {  // the last of them: where there is no memory, none or some have grown
      fresh_.resize(most);
      slots_.resize(most);
      dots_.resize(most);
      keys_.resize(most);
    }
    size_ = next_ = fresh_count_ = 0;
    if (entry >= nodes || width == 0) return;
    const std::uint32_t slot = level.SlotOf(entry);
    std::int32_t dot = 0;
    rows.codes->Dots(query, rows.rows, &slot, 1, &dot);
    pool_[0] = CandidateKey(rows.codes->Distance(dot, head, rows.heads[slot]), entry);
    size_ = 1;
    Visit(entry);
  }

  // Goes on with room for `width`, as if it had begun with that. REQUIRES: widenable; it is over.
  void Widen(std::size_t width) {
    if (pool_.size() < width + 1) pool_.resize(width + 1);
    // All that is spare is further than all of the pool.
    const std::size_t most = std::min(width - size_, spare_.size());
    const auto end = spare_.begin() + static_cast<std::ptrdiff_t>(most);
    if (most < spare_.size()) std::nth_element(spare_.begin(), end, spare_.end());
    std::sort(spare_.begin(), end);
    std::copy(spare_.begin(), end, pool_.begin() + static_cast<std::ptrdiff_t>(size_));
    spare_.erase(spare_.begin(), end);
    size_ += most;
    SetWidth(width);
  }

  // One round; false when the walk is over.
  template <typename Level>
  bool Step(const Level& level) {
    Score();
    // What to expand now.
    std::size_t chosen = 0;
    const std::size_t end = size_ < width_ ? size_ : expandable_;
    for (; next_ < end && chosen < expand_; ++next_) {
      if ((pool_[next_] & 1) != 0) continue;
      pool_[next_] |= 1;
      lists_[chosen] = level.LinksOf(NodeOf(pool_[next_]));
      PrefetchList(level, lists_[chosen++]);
    }
    if (chosen == 0) return false;
    const std::size_t row_bytes = rows_.codes->row_bytes();
    for (std::size_t c = 0; c < chosen; ++c) {
      const std::uint32_t* list = lists_[c];
      const std::size_t count = std::min<std::size_t>(LoadLink(list), level.m);  // of a mapped file, it may be anything
      for (std::size_t i = 1; i <= count; ++i) {
        const std::uint32_t node = LoadLink(list + i);
        if (node >= nodes_ || !Visit(node)) continue;
        const std::uint32_t slot = level.SlotOf(node);
        fresh_[fresh_count_] = node;
        slots_[fresh_count_++] = slot;
        const std::int8_t* row = rows_.rows + std::size_t{slot} * row_bytes;
        for (std::size_t at = 0; at < row_bytes; at += 64) __builtin_prefetch(row + at);
        __builtin_prefetch(rows_.heads + slot);
      }
    }
    std::size_t ahead = 0;
    for (std::size_t i = next_; i < end && ahead < expand_; ++i) {
      if ((pool_[i] & 1) != 0) continue;
      PrefetchList(level, level.LinksOf(NodeOf(pool_[i])));
      ++ahead;
    }
    return true;
  }

  // Sorted, nearest first; the lowest bit of a key is set.
  [[nodiscard]] const std::uint64_t* pool() const { return pool_.data(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t width() const { return width_; }

 private:
  static constexpr std::size_t kMaxExpand = 8;

  void SetWidth(std::size_t width) {
    width_ = width;
    expandable_ = share_ < 1 ? static_cast<std::size_t>(std::ceil(share_ * static_cast<double>(width))) : width;
  }
  template <typename Level>
  [[gnu::always_inline]] static void PrefetchList(const Level& level, const std::uint32_t* list) {
    for (std::size_t i = 0; i <= level.m; i += 16) __builtin_prefetch(list + i);
  }

  // Whether the node is new.
  [[gnu::always_inline]] bool Visit(std::uint32_t node) {
    std::uint64_t& word = visited_[node / 64];
    const std::uint64_t bit = std::uint64_t{1} << (node % 64);
    if ((word & bit) != 0) return false;
    if (word == 0) touched_.push_back(node / 64);
    word |= bit;
    return true;
  }

  // The distances of what was fetched, and the best of them into the pool.
  void Score() {
    if (fresh_count_ == 0) return;
    rows_.codes->Dots(query_, rows_.rows, slots_.data(), fresh_count_, dots_.data());
    const std::uint64_t worst = size_ < width_ ? ~std::uint64_t{0} : pool_[size_ - 1];
    std::size_t better = 0;
    for (std::size_t i = 0; i < fresh_count_; ++i) {
      const float distance = rows_.codes->Distance(dots_[i], head_, rows_.heads[slots_[i]]);
      keys_[better] = CandidateKey(distance, fresh_[i]);
      if (widenable_ && keys_[better] >= worst) spare_.push_back(keys_[better]);
      better += keys_[better] < worst ? 1 : 0;
    }
    fresh_count_ = 0;
    if (better == 0) return;
    SortKeys(better);
    next_ = std::min(next_, Merge(better));
  }

  void SortKeys(std::size_t count) {
    if (count > 24) {
      std::sort(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(count));
      return;
    }
    for (std::size_t i = 1; i < count; ++i) {
      const std::uint64_t key = keys_[i];
      std::size_t at = i;
      for (; at > 0 && keys_[at - 1] > key; --at) keys_[at] = keys_[at - 1];
      keys_[at] = key;
    }
  }

  // The sorted keys into the sorted pool, from the back, keeping the best `width_`. Returns where the first went.
  std::size_t Merge(std::size_t count) {
    std::uint64_t* pool = pool_.data();
    const std::size_t total = std::min(size_ + count, width_);
    std::size_t old = size_;
    std::size_t add = count;
    for (std::size_t drop = size_ + count - total; drop > 0; --drop) {
      if (add == 0 || (old > 0 && pool[old - 1] > keys_[add - 1])) {
        --old;
        if (widenable_) spare_.push_back(pool[old]);
      } else {
        --add;
        if (widenable_) spare_.push_back(keys_[add]);
      }
    }
    size_ = total;
    std::size_t place = total;
    for (; add > 0; --add) {
      const std::uint64_t key = keys_[add - 1];
      place = Place(old, key);
      std::memmove(pool + place + add, pool + place, (old - place) * sizeof(*pool));
      pool[place + add - 1] = key;
      old = place;
    }
    return place;
  }
  // Where `key` belongs among the first `size` of the pool, without a branch that is guessed wrong half of the time.
  [[nodiscard]] std::size_t Place(std::size_t size, std::uint64_t key) const {
    const std::uint64_t* base = pool_.data();
    if (size == 0) return 0;
    for (std::size_t left = size; left > 1;) {
      const std::size_t half = left / 2;
      base = base[half - 1] < key ? base + half : base;
      left -= half;
    }
    return static_cast<std::size_t>(base - pool_.data()) + (*base < key ? 1 : 0);
  }

  CodeRows rows_;
  const std::int8_t* query_ = nullptr;
  CodeHead head_;
  std::size_t nodes_ = 0;
  std::size_t width_ = 0;
  double share_ = 1;
  std::size_t expandable_ = 0;  // of a full pool
  std::size_t expand_ = 1;
  bool widenable_ = false;
  std::vector<std::uint64_t> visited_;  // one bit a node, so that a million nodes fit into the processor's cache
  std::vector<std::uint32_t> touched_;  // the words of visited_ to clear afterwards
  std::vector<std::uint64_t> pool_;     // the best so far, sorted
  std::size_t size_ = 0;
  std::size_t next_ = 0;              // before it, everything was expanded
  std::vector<std::uint64_t> spare_;  // what was met and is further than the pool
  const std::uint32_t* lists_[kMaxExpand] = {};
  std::vector<std::uint32_t> fresh_;  // nodes that were not seen before, and their slots
  std::vector<std::uint32_t> slots_;
  std::size_t fresh_count_ = 0;
  std::vector<std::int32_t> dots_;
  std::vector<std::uint64_t> keys_;
};

}  // namespace freshet
