// All rows of an index between two rebuilds, by slot, in order of arrival: floats, labels, tombstones, and the graph
// over the slots below `linked`. The slots from `linked` to `used` are the fresh segment, which is scanned.
//
// Thread-safety: Append, SlotOf and MarkDead belong to the writer; Link to the worker, while no search is in the graph;
// everything else may be read at any time for slots below a `used` that was read before.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "buffer.h"
#include "freshet/core/checksum.h"
#include "freshet/indexer/index.h"
#include "graph.h"

namespace freshet {

inline constexpr std::uint32_t kNoSlot = ~std::uint32_t{0};

// key -> slot, open addressing, four bytes an entry: the keys themselves are in the segment.
class SlotTable {
 public:
  explicit SlotTable(std::size_t capacity) : slots_(std::bit_ceil(2 * capacity + 2), kNoSlot) {}
  // Where the slot of a key is, or kNoSlot to be replaced by it. `same` says whether a slot has the key.
  template <typename Same>
  [[nodiscard]] std::uint32_t& At(std::uint64_t hash, const Same& same) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (hash ^ (hash >> 32)) & mask;
    while (slots_[at] != kNoSlot && !same(slots_[at])) at = (at + 1) & mask;
    return slots_[at];
  }
  [[nodiscard]] const std::vector<std::uint32_t>& slots() const { return slots_; }

 private:
  std::vector<std::uint32_t> slots_;
};

class Segment {
 public:
  Segment(const Int8Codes* codes, const HnswOptions& options, std::size_t capacity)
      : Segment(options, capacity, std::make_unique<Graph>(codes, capacity, options)) {}
  // A copy with more room: the same slots.
  Segment(const HnswOptions& options, const Segment& from, std::size_t capacity)
      : Segment(options, capacity, from.graph_->Copy(capacity)) {
    const std::size_t used = from.used();
    for (std::size_t slot = 0; slot < used; ++slot) Append(from.label(slot), from.Vector(slot));
    for (std::size_t slot = 0; slot < used; ++slot) {
      if (from.IsDead(slot)) MarkDead(slot);
    }
    linked_ = from.linked();
    std::copy_n(from.next_same_.get(), used, next_same_.get());
    for (const std::uint32_t slot : from.vector_table_.slots()) {
      if (slot != kNoSlot) FirstSame(slot) = slot;
    }
  }

  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t used() const { return used_.load(std::memory_order_acquire); }
  [[nodiscard]] std::size_t dead() const { return dead_count_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t linked() const { return linked_.load(std::memory_order_acquire); }
  [[nodiscard]] Label label(std::size_t slot) const { return labels_[slot]; }
  [[nodiscard]] const float* Vector(std::size_t slot) const { return vectors_.get() + slot * dim_; }
  [[nodiscard]] bool IsDead(std::size_t slot) const {
    return (dead_[slot / 64].load(std::memory_order_acquire) >> (slot % 64) & 1) != 0;
  }
  [[nodiscard]] const Graph& graph() const { return *graph_; }
  [[nodiscard]] std::size_t memory_bytes() const {
    return used() * (dim_ * sizeof(float) + sizeof(Label)) + graph_->size() * graph_->bytes_per_node() +
           2 * label_table_.slots().size() * sizeof(std::uint32_t) + capacity_ / 8;
  }

  // REQUIRES: used() < capacity().
  void Append(Label label, const float* vector) {
    const std::size_t slot = used_.load(std::memory_order_relaxed);
    std::memcpy(vectors_.get() + slot * dim_, vector, dim_ * sizeof(float));
    labels_[slot] = label;
    next_same_[slot] = kNoSlot;
    LabelSlot(label) = static_cast<std::uint32_t>(slot);  // of a label that is there twice the later one
    used_.store(slot + 1, std::memory_order_release);
  }
  [[nodiscard]] std::optional<std::uint32_t> SlotOf(Label label) {
    const std::uint32_t slot = LabelSlot(label);
    return slot == kNoSlot ? std::nullopt : std::optional(slot);
  }
  void MarkDead(std::size_t slot) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    if ((dead_[slot / 64].fetch_or(bit, std::memory_order_release) & bit) == 0) dead_count_.fetch_add(1);
  }
  // The next fresh slot into the graph; one that died before never gets there, and one whose vector is there already is
  // chained to it: copies would fill each other's lists of neighbours, and be reached no more. REQUIRES: linked() <
  // used().
  void LinkNext() {
    const auto slot = static_cast<std::uint32_t>(linked());
    if (!IsDead(slot)) {
      std::uint32_t& first = FirstSame(slot);
      if (first == kNoSlot) {
        graph_->Add(slot, Vector(slot));
        first = slot;
      } else {
        // An item that is sent again and again leaves its dead at the head of the chain.
        std::uint32_t next = next_same_[first];
        while (next != kNoSlot && IsDead(next)) next = next_same_[next];
        next_same_[slot] = next;
        next_same_[first] = slot;
      }
    }
    linked_.store(std::size_t{slot} + 1, std::memory_order_release);
  }
  // The next slot with the same vector, or kNoSlot. Read as the graph is.
  [[nodiscard]] std::uint32_t NextSame(std::uint32_t slot) const { return next_same_[slot]; }

 private:
  Segment(const HnswOptions& options, std::size_t capacity, std::unique_ptr<Graph> graph)
      : dim_(static_cast<std::size_t>(options.dim)),
        capacity_(capacity),
        vectors_(capacity * dim_),
        labels_(capacity),
        dead_((capacity + 63) / 64),
        next_same_(capacity),
        label_table_(capacity),
        vector_table_(capacity),
        graph_(std::move(graph)) {}

  [[nodiscard]] std::uint32_t& LabelSlot(Label label) {
    return label_table_.At(label * 0x9e3779b97f4a7c15ULL, [&](std::uint32_t slot) { return labels_[slot] == label; });
  }
  [[nodiscard]] std::uint32_t& FirstSame(std::uint32_t slot) {
    const std::size_t bytes = dim_ * sizeof(float);
    const auto* vector = reinterpret_cast<const char*>(Vector(slot));
    return vector_table_.At(Xxh3({vector, bytes}),
                            [&](std::uint32_t other) { return std::memcmp(Vector(other), vector, bytes) == 0; });
  }

  const std::size_t dim_;
  const std::size_t capacity_;
  Buffer<float> vectors_;
  Buffer<Label> labels_;
  std::vector<std::atomic<std::uint64_t>> dead_;  // a bitmap by slot
  Buffer<std::uint32_t> next_same_;               // by slot: a chain of equal vectors, from the one in the graph
  SlotTable label_table_;                         // writer only
  SlotTable vector_table_;                        // worker only: the first of each chain
  std::unique_ptr<Graph> graph_;
  std::atomic<std::size_t> used_{0};
  std::atomic<std::size_t> linked_{0};
  std::atomic<std::size_t> dead_count_{0};
};

}  // namespace freshet
