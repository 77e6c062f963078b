// All rows of an index, by slot: codes, what they are scored by, labels, tombstones, and the graph over them.
//
// A slot is fresh (written, scanned by every search), then linked (a node of the graph, or hung on the node of an equal
// vector), and when it died and nothing leads to it any more, free. Unused slots begin at used().
// Thread-safety: MakeRoom, Put, SlotOf, MarkDead belong to the writer, Chain and Forget to the worker; the rest is for
// any reader of a slot that is live or linked, for as long as the reader keeps slots from being freed (read_epoch.h).
// Errors: std::bad_alloc, ScratchError; what was called then changed nothing.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "buffer.h"
#include "freshet/core/checksum.h"
#include "freshet/indexer/index.h"
#include "graph.h"
#include "rerank.h"
#include "rerank_rows.h"
#include "search_view.h"
#include "sharded_slots.h"
#include "slot_changes.h"

namespace freshet {

class Segment {
 public:
  // Numbers of changes begin above `changes_before`.
  explicit Segment(const HnswOptions& options, std::uint64_t changes_before = 0)
      : codes_(options.metric, options.dim),
        reranker_(options.rerank, options.metric, options.dim),
        capacity_(options.capacity),
        code_rows_(capacity_ * codes_.row_bytes()),
        heads_(capacity_),
        rerank_rows_(capacity_ * reranker_.row_bytes(), options.rerank_directory),
        labels_(capacity_),
        attribute_words_(options.attribute_words),
        attributes_(attribute_words_ == 0 ? Buffer<std::uint64_t>()
                                          : Buffer<std::uint64_t>(capacity_ * attribute_words_)),
        dead_((capacity_ + 63) / 64),
        next_same_(capacity_),
        nodes_((capacity_ + 63) / 64),
        fresh_(std::bit_ceil(2 * options.max_fresh)),
        fresh_mask_(std::bit_ceil(2 * options.max_fresh) - 1),
        changes_(changes_before),
        graph_({&codes_, code_rows_.get(), heads_.get()}, {dead_.get(), next_same_.get()}, options) {}

  [[nodiscard]] const Int8Codes& codes() const { return codes_; }
  [[nodiscard]] const Reranker& reranker() const { return reranker_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t used() const { return used_.load(std::memory_order_acquire); }
  [[nodiscard]] std::size_t dead() const { return dead_count_.load(std::memory_order_relaxed); }
  [[nodiscard]] Label label(std::size_t slot) const { return labels_[slot]; }
  [[nodiscard]] bool IsDead(std::size_t slot) const { return LoadBit(dead_.get(), slot); }
  [[nodiscard]] const std::int8_t* CodesOf(std::size_t slot) const {
    return code_rows_.get() + slot * codes_.row_bytes();
  }
  [[nodiscard]] CodeHead HeadOf(std::size_t slot) const { return heads_[slot]; }
  [[nodiscard]] const std::byte* RerankRow(std::size_t slot) const {
    return rerank_rows_.get() + slot * reranker_.row_bytes();
  }
  [[nodiscard]] std::span<const std::uint64_t> AttributesOf(std::size_t slot) const {
    return {attributes_.get() + slot * attribute_words_, attribute_words_};
  }
  // The next slot with the same vector, or kNoSlot.
  [[nodiscard]] std::uint32_t NextSame(std::uint32_t slot) const { return LoadLink(&next_same_[slot]) - 1; }
  // Whether it is a node of the graph.
  [[nodiscard]] bool IsNode(std::size_t slot) const { return LoadBit(nodes_.get(), slot); }
  // The fresh rows, numbered as they came: from fresh_begin() to fresh_end(). What left them while a search looked at
  // them is in the graph by then; so a search looks at them first.
  [[nodiscard]] std::uint64_t fresh_begin() const { return fresh_begin_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t fresh_end() const { return fresh_end_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint32_t Fresh(std::uint64_t number) const { return LoadLink(&fresh_[number & fresh_mask_]); }
  [[nodiscard]] std::size_t fresh() const { return static_cast<std::size_t>(fresh_end() - fresh_begin()); }
  [[nodiscard]] Graph& graph() { return graph_; }
  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] SearchView View() const {
    SearchView view;
    view.graph = graph_.View(used_);
    view.reranker = &reranker_;
    view.rerank_rows = rerank_rows_.get();
    view.labels = labels_.get();
    view.attributes = attributes_.get();
    view.attribute_words = attribute_words_;
    view.dead = dead_.get();
    view.nodes = nodes_.get();
    view.next_same = next_same_.get();
    view.used = view.graph.nodes;
    view.dead_count = std::min(dead(), view.used);
    return view;
  }
  [[nodiscard]] std::size_t memory_bytes() const {
    const std::size_t row = codes_.row_bytes() + (rerank_rows_.in_file() ? 0 : reranker_.row_bytes()) +
                            sizeof(CodeHead) + sizeof(Label) + sizeof(std::uint32_t) +
                            attribute_words_ * sizeof(std::uint64_t);
    return used() * row + used() / 8 + graph_.memory_bytes(used()) + label_table_bytes_ + vector_table_bytes_;
  }

  [[nodiscard]] const SlotChanges& changes() const { return changes_; }

  // Both bitmaps as they are now, up to `slots`.
  [[nodiscard]] std::vector<std::uint64_t> DeadBits(std::size_t slots) const { return Words(dead_, slots); }
  [[nodiscard]] std::vector<std::uint64_t> NodeBits(std::size_t slots) const { return Words(nodes_, slots); }

  // --- The writer.

  // All that Put() could fail for: after this it does not. REQUIRES as Put().
  void MakeRoom(std::uint32_t slot, Label label) {
    rerank_rows_.Reserve((std::size_t{slot} + 1) * reranker_.row_bytes());
    label_table_.MakeRoom(label, [&](std::uint32_t other) { return labels_[other]; });
    label_table_bytes_ = label_table_.bytes();
  }
  // REQUIRES: `slot` is free, or used() and below capacity(). The row is live when this returns. `attributes`: a row's
  // words, or nothing, which is zeros.
  void Put(std::uint32_t slot, Label label, const float* vector, std::span<const std::uint64_t> attributes = {}) {
    MakeRoom(slot, label);
    PutAttributes(slot, attributes);
    std::byte* rerank = rerank_rows_.get() + std::size_t{slot} * reranker_.row_bytes();
    heads_[slot] =
        codes_.Encode(vector, code_rows_.get() + std::size_t{slot} * codes_.row_bytes(),
                      reranker_.kind() == Rerank::kResidual8 ? reinterpret_cast<std::int8_t*>(rerank) : nullptr);
    reranker_.Put(vector, rerank);
    Publish(slot, label);
  }
  // The same for a row that is coded already, of another segment or a file.
  void PutRow(std::uint32_t slot, Label label, const void* codes, CodeHead head, const void* rerank,
              std::span<const std::uint64_t> attributes, bool dead = false) {
    MakeRoom(slot, label);
    PutAttributes(slot, attributes);
    std::memcpy(code_rows_.get() + std::size_t{slot} * codes_.row_bytes(), codes, codes_.row_bytes());
    std::memcpy(rerank_rows_.get() + std::size_t{slot} * reranker_.row_bytes(), rerank, reranker_.row_bytes());
    heads_[slot] = head;
    if (!dead) return Publish(slot, label);
    labels_[slot] = label;
    std::atomic_ref(dead_[slot / 64]).fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
    dead_count_.fetch_add(1, std::memory_order_relaxed);
    used_.store(std::size_t{slot} + 1, std::memory_order_release);
  }
  [[nodiscard]] std::optional<std::uint32_t> SlotOf(Label label) const {
    const std::uint32_t slot = label_table_.Find(label, [&](std::uint32_t other) { return labels_[other] == label; });
    return slot == kNoSlot ? std::nullopt : std::optional(slot);
  }
  void NoteChange(std::uint32_t slot) { changes_.Add(slot); }
  void PrefetchLabel(Label label) const { label_table_.Prefetch(label); }
  // Its label is known no more.
  void MarkDead(std::uint32_t slot) {
    label_table_.Remove(labels_[slot], slot, [&](std::uint32_t other) { return labels_[other]; });
    std::atomic_ref(dead_[slot / 64]).fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
    dead_count_.fetch_add(1, std::memory_order_relaxed);
  }

  // REQUIRES: fewer than max_fresh are.
  void PushFresh(std::uint32_t slot) {
    const std::uint64_t end = fresh_end_.load(std::memory_order_relaxed);
    std::atomic_ref(fresh_[end & fresh_mask_]).store(slot, std::memory_order_release);
    fresh_end_.store(end + 1, std::memory_order_release);
  }

  // --- The worker.

  // The first `count` fresh rows are in the graph, or dead.
  void PopFresh(std::size_t count) { fresh_begin_.fetch_add(count, std::memory_order_release); }
  void SetNode(std::uint32_t slot, bool is_node) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    const std::atomic_ref word(nodes_[slot / 64]);
    if (is_node) {
      word.fetch_or(bit, std::memory_order_release);
    } else {
      word.fetch_and(~bit, std::memory_order_release);
    }
  }
  // Hangs the slot on the node of an equal vector, if there is one; copies would fill each other's lists of neighbours,
  // and be reached no more. Otherwise it is to be a node itself.
  [[nodiscard]] bool Chain(std::uint32_t slot) {
    const std::uint64_t hash = VectorHash(slot);
    const std::uint32_t first = vector_table_.Find(hash, [&](std::uint32_t other) { return SameVector(slot, other); });
    if (first == kNoSlot) {
      vector_table_.Add(hash, slot, [&](std::uint32_t other) { return VectorHash(other); });
      vector_table_bytes_ = vector_table_.bytes();
      return false;
    }
    SetNext(slot, NextSame(first));
    SetNext(first, slot);
    return true;
  }
  void SetNext(std::uint32_t slot, std::uint32_t next) {
    std::atomic_ref(next_same_[slot]).store(next + 1, std::memory_order_release);
  }
  // A node of a file, whose links and chain are there already.
  void PutNode(std::uint32_t slot) {
    vector_table_.Add(VectorHash(slot), slot, [&](std::uint32_t other) { return VectorHash(other); });
    vector_table_bytes_ = vector_table_.bytes();
    SetNode(slot, true);
  }
  // Room for so many, at once.
  void Reserve(std::size_t rows) {
    label_table_.Reserve(rows, [&](std::uint32_t other) { return labels_[other]; });
    vector_table_.Reserve(rows, [&](std::uint32_t other) { return VectorHash(other); });
  }
  // REQUIRES: a dead node that nothing is hung on; the caller unlinks it from the graph.
  void Forget(std::uint32_t slot) {
    vector_table_.Remove(VectorHash(slot), slot, [&](std::uint32_t other) { return VectorHash(other); });
  }

 private:
  void PutAttributes(std::uint32_t slot, std::span<const std::uint64_t> attributes) {
    if (attribute_words_ == 0) return;
    std::uint64_t* to = attributes_.get() + std::size_t{slot} * attribute_words_;
    std::fill_n(to, attribute_words_, 0);
    std::copy(attributes.begin(), attributes.end(), to);
  }
  void Publish(std::uint32_t slot, Label label) {
    labels_[slot] = label;
    std::atomic_ref(next_same_[slot]).store(0, std::memory_order_relaxed);
    label_table_.Add(label, slot, [&](std::uint32_t other) { return labels_[other]; });
    if (slot == used_.load(std::memory_order_relaxed)) {
      used_.store(std::size_t{slot} + 1, std::memory_order_release);
    } else {
      dead_count_.fetch_sub(1, std::memory_order_relaxed);
      std::atomic_ref(dead_[slot / 64]).fetch_and(~(std::uint64_t{1} << (slot % 64)), std::memory_order_release);
    }
    changes_.Add(slot);
  }
  [[nodiscard]] static std::vector<std::uint64_t> Words(const Buffer<std::uint64_t>& bits, std::size_t slots) {
    std::vector<std::uint64_t> words((slots + 63) / 64);
    for (std::size_t i = 0; i < words.size(); ++i) {
      words[i] = std::atomic_ref(const_cast<std::uint64_t&>(bits[i])).load(std::memory_order_acquire);
    }
    return words;
  }
  [[nodiscard]] std::uint64_t VectorHash(std::uint32_t slot) const {
    // Not of the re-rank row, which may be in a file: the norm, of the floats, tells vectors of the same codes apart.
    std::uint64_t head = 0;
    static_assert(sizeof(head) == sizeof(CodeHead));
    std::memcpy(&head, &heads_[slot], sizeof(head));
    return Xxh3({reinterpret_cast<const char*>(CodesOf(slot)), codes_.row_bytes()}, head);
  }
  [[nodiscard]] bool SameVector(std::uint32_t a, std::uint32_t b) const {
    return std::memcmp(&heads_[a], &heads_[b], sizeof(CodeHead)) == 0 &&
           std::memcmp(CodesOf(a), CodesOf(b), codes_.row_bytes()) == 0 &&
           std::memcmp(RerankRow(a), RerankRow(b), reranker_.row_bytes()) == 0;
  }

  const Int8Codes codes_;
  const Reranker reranker_;
  const std::size_t capacity_;
  Buffer<std::int8_t> code_rows_;
  Buffer<CodeHead> heads_;
  RerankRows rerank_rows_;
  Buffer<Label> labels_;
  const std::size_t attribute_words_;
  Buffer<std::uint64_t> attributes_;
  Buffer<std::uint64_t> dead_;       // a bitmap by slot; free slots are dead
  Buffer<std::uint32_t> next_same_;  // by slot: one more than the next slot of a chain of equal vectors
  Buffer<std::uint64_t> nodes_;      // a bitmap by slot
  Buffer<std::uint32_t> fresh_;      // a ring of slots
  const std::uint64_t fresh_mask_;
  SlotChanges changes_;
  Graph graph_;
  ShardedSlots label_table_;   // writer only: of live slots
  ShardedSlots vector_table_;  // worker only: of nodes
  std::atomic<std::size_t> used_{0};
  std::atomic<std::uint64_t> fresh_begin_{0};
  std::atomic<std::uint64_t> fresh_end_{0};
  std::atomic<std::size_t> dead_count_{0};
  std::atomic<std::size_t> label_table_bytes_{0};
  std::atomic<std::size_t> vector_table_bytes_{0};
};

}  // namespace freshet
