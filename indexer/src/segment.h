// All rows of an index between two rebuilds, by slot, in order of arrival: floats, labels, tombstones, and the graph
// over the slots below `linked`. The slots from `linked` to `used` are the fresh segment, which is scanned.
//
// Thread-safety: Append, SlotOf and MarkDead belong to the writer; Link to the worker, while no search is in the graph;
// everything else may be read at any time for slots below a `used` that was read before.
#pragma once

#include <atomic>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "buffer.h"
#include "freshet/indexer/index.h"
#include "graph.h"

namespace freshet {

// label -> slot, open addressing, four bytes an entry: the labels themselves are in the segment.
class LabelTable {
 public:
  explicit LabelTable(std::size_t capacity) : slots_(std::bit_ceil(2 * capacity + 2), kEmpty) {}
  // The slot of a label that is there twice is the later one.
  void Put(Label label, std::uint32_t slot, const Label* labels) { *Place(label, labels) = slot; }
  [[nodiscard]] std::optional<std::uint32_t> Find(Label label, const Label* labels) const {
    const std::uint32_t slot = *const_cast<LabelTable*>(this)->Place(label, labels);
    return slot == kEmpty ? std::nullopt : std::optional(slot);
  }
  [[nodiscard]] std::size_t bytes() const { return slots_.size() * sizeof(std::uint32_t); }

 private:
  static constexpr std::uint32_t kEmpty = ~std::uint32_t{0};
  std::uint32_t* Place(Label label, const Label* labels) {
    const std::size_t mask = slots_.size() - 1;
    std::uint64_t hash = label * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
    std::size_t at = hash & mask;
    while (slots_[at] != kEmpty && labels[slots_[at]] != label) at = (at + 1) & mask;
    return &slots_[at];
  }

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
           table_.bytes() + capacity_ / 8;
  }

  // REQUIRES: used() < capacity().
  void Append(Label label, const float* vector) {
    const std::size_t slot = used_.load(std::memory_order_relaxed);
    std::memcpy(vectors_.get() + slot * dim_, vector, dim_ * sizeof(float));
    labels_[slot] = label;
    table_.Put(label, static_cast<std::uint32_t>(slot), labels_.get());
    used_.store(slot + 1, std::memory_order_release);
  }
  [[nodiscard]] std::optional<std::uint32_t> SlotOf(Label label) const { return table_.Find(label, labels_.get()); }
  void MarkDead(std::size_t slot) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    if ((dead_[slot / 64].fetch_or(bit, std::memory_order_release) & bit) == 0) dead_count_.fetch_add(1);
  }
  // The next fresh slot into the graph; one that died before never gets there. REQUIRES: linked() < used().
  void LinkNext() {
    const std::size_t slot = linked();
    if (!IsDead(slot)) graph_->Add(static_cast<std::uint32_t>(slot), Vector(slot));
    linked_.store(slot + 1, std::memory_order_release);
  }

 private:
  Segment(const HnswOptions& options, std::size_t capacity, std::unique_ptr<Graph> graph)
      : dim_(static_cast<std::size_t>(options.dim)),
        capacity_(capacity),
        vectors_(capacity * dim_),
        labels_(capacity),
        dead_((capacity + 63) / 64),
        table_(capacity),
        graph_(std::move(graph)) {}

  const std::size_t dim_;
  const std::size_t capacity_;
  Buffer<float> vectors_;
  Buffer<Label> labels_;
  std::vector<std::atomic<std::uint64_t>> dead_;  // a bitmap by slot
  LabelTable table_;                              // writer only
  std::unique_ptr<Graph> graph_;
  std::atomic<std::size_t> used_{0};
  std::atomic<std::size_t> linked_{0};
  std::atomic<std::size_t> dead_count_{0};
};

}  // namespace freshet
