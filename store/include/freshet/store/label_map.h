// Label -> slot, read without a lock.
//
// Place in the flow: a part of the Catalog; a filtered search asks it for every candidate that it meets, from within
// the index. Open addressing with linear probing. One writer. A reader holds a View: it finds what was there when it
// was taken, unless it was erased since, and may or may not find what came later.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "freshet/core/huge_pages.h"
#include "freshet/indexer/index.h"

namespace freshet {

class LabelMap {
 public:
  using Slot = std::uint32_t;
  class View;

  LabelMap() : table_(std::make_shared<Table>(kMinBuckets)) {}

  // Writer only. A label is inserted once.
  void Insert(Label label, Slot slot) {
    if (2 * (table_->used + 1) > table_->buckets.size()) Rehash(4 * (live_ + 1));
    table_->Insert(label, slot);
    ++live_;
  }
  // Writer only. Room for so many labels, at once.
  void Reserve(std::size_t labels) {
    if (2 * (labels + 1) > table_->buckets.size()) Rehash(2 * (labels + 1));
  }
  // Of a label that is going to be inserted or found: its bucket is fetched meanwhile.
  void Prefetch(Label label) const { __builtin_prefetch(&table_->buckets[table_->Home(label)]); }
  void Erase(Label label) {
    Bucket* bucket = table_->Find(label);
    if (bucket == nullptr || bucket->slot.exchange(kNone, std::memory_order_release) == kNone) return;
    --live_;
  }
  // Writer, or under the lock that keeps it out.
  [[nodiscard]] std::optional<Slot> Find(Label label) const { return table_->Get(label); }
  [[nodiscard]] View view() const;

 private:
  static constexpr std::size_t kMinBuckets = 64;
  static constexpr Label kFree = ~Label{0};
  static constexpr Slot kNone = ~Slot{0};

  struct Bucket {
    std::atomic<Label> label{kFree};
    std::atomic<Slot> slot{kNone};
  };
  struct Table {
    explicit Table(std::size_t size) : buckets(size), shift(64 - std::countr_zero(size)) {}
    // Labels are consecutive numbers: multiplied by the golden ratio they spread evenly.
    [[nodiscard]] std::size_t Home(Label label) const { return (label * 0x9E3779B97F4A7C15U) >> shift; }
    void Insert(Label label, Slot slot) {
      std::size_t at = Home(label);
      while (buckets[at].label.load(std::memory_order_relaxed) != kFree) at = (at + 1) & (buckets.size() - 1);
      buckets[at].slot.store(slot, std::memory_order_relaxed);
      buckets[at].label.store(label, std::memory_order_release);
      ++used;
    }
    // At most half of the buckets are used, so that a free one ends every search.
    [[nodiscard]] Bucket* Find(Label label) {
      for (std::size_t at = Home(label);; at = (at + 1) & (buckets.size() - 1)) {
        const Label found = buckets[at].label.load(std::memory_order_acquire);
        if (found == label) return &buckets[at];
        if (found == kFree) return nullptr;
      }
    }
    [[nodiscard]] std::optional<Slot> Get(Label label) {
      const Bucket* bucket = Find(label);
      const Slot slot = bucket == nullptr ? kNone : bucket->slot.load(std::memory_order_acquire);
      return slot == kNone ? std::nullopt : std::optional(slot);
    }
    std::vector<Bucket, HugePageAllocator<Bucket>> buckets;  // a power of two
    const int shift;
    std::size_t used = 0;  // erased ones too; writer only
  };

  void Rehash(std::size_t buckets) {
    auto fresh = std::make_shared<Table>(std::bit_ceil(std::max(kMinBuckets, buckets)));
    for (const Bucket& bucket : table_->buckets) {
      const Slot slot = bucket.slot.load(std::memory_order_relaxed);
      if (slot != kNone) fresh->Insert(bucket.label.load(std::memory_order_relaxed), slot);
    }
    table_ = std::move(fresh);
  }

  std::shared_ptr<Table> table_;
  std::size_t live_ = 0;
};

class LabelMap::View {
 public:
  [[nodiscard]] std::optional<Slot> Find(Label label) const { return table_->Get(label); }
  void Prefetch(Label label) const { __builtin_prefetch(&table_->buckets[table_->Home(label)]); }

 private:
  friend class LabelMap;
  explicit View(std::shared_ptr<Table> table) : table_(std::move(table)) {}
  std::shared_ptr<Table> table_;
};

inline LabelMap::View LabelMap::view() const { return View(table_); }

}  // namespace freshet
