// Which slots changed of late: got another row, or a row that filters say something else of.
//
// Place in the flow: the writer notes them, searches that remember what a filter said (filter_memo.h) ask it again for
// those. Thread-safe: one writer, any number of readers. Bounded: the last kKept.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "buffer.h"

namespace freshet {

class SlotChanges {
 public:
  // Numbers of changes begin above `before`.
  explicit SlotChanges(std::uint64_t before) : first_(before), end_(before), slots_(kKept) {}

  // Writer only.
  void Add(std::uint32_t slot) {
    const std::uint64_t end = end_.load(std::memory_order_relaxed);
    std::atomic_ref(slots_[end % kKept]).store(slot, std::memory_order_relaxed);
    end_.store(end + 1, std::memory_order_release);
  }
  // The number of the last one; before any, what numbers begin above.
  [[nodiscard]] std::uint64_t last() const { return end_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t first() const { return first_; }
  // Those after the change of this number, oldest first. False: no longer known, or of another segment.
  [[nodiscard]] bool After(std::uint64_t number, std::vector<std::uint32_t>* slots) const {
    const std::uint64_t end = last();
    slots->clear();
    if (number < first_ || number > end || end - number > kKept / 2) return false;
    for (std::uint64_t at = number; at < end; ++at) {
      slots->push_back(std::atomic_ref(const_cast<std::uint32_t&>(slots_[at % kKept])).load(std::memory_order_acquire));
    }
    // Else the oldest may have been written over meanwhile: the writer stores a slot before it counts it.
    return last() - number < kKept;
  }

 private:
  static constexpr std::uint64_t kKept = 1 << 16;

  const std::uint64_t first_;
  std::atomic<std::uint64_t> end_;
  Buffer<std::uint32_t> slots_;  // a ring
};

}  // namespace freshet
