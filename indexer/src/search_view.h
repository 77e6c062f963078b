// What a search reads of a graph index, in memory or in a mapped file, and the search itself.
//
// Thread-safe; the owner sees to it that no slot is freed while a search is under way.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "freshet/indexer/index.h"
#include "graph.h"
#include "rerank.h"
#include "scoring.h"

namespace freshet {

// One bit of a bitmap that others may be changing.
[[nodiscard]] inline bool LoadBit(const std::uint64_t* bits, std::size_t i) {
  return (std::atomic_ref(const_cast<std::uint64_t&>(bits[i / 64])).load(std::memory_order_acquire) >> (i % 64) & 1) !=
         0;
}

// Whether there is anything that a live row may be refused for.
[[nodiscard]] inline bool IsFiltered(const SearchOptions& options) {
  return options.filter != nullptr || !options.attributes.empty();
}

struct SearchView {
  GraphView graph;
  const Reranker* reranker = nullptr;
  const std::byte* rerank_rows = nullptr;
  const Label* labels = nullptr;
  const std::uint64_t* attributes = nullptr;  // rows of attribute_words
  std::size_t attribute_words = 0;
  const std::uint64_t* dead = nullptr;       // a bitmap by slot; free slots are dead
  const std::uint64_t* nodes = nullptr;      // a bitmap by slot
  const std::uint32_t* next_same = nullptr;  // by slot: one more than the next slot with the same vector, 0 at the end
  std::size_t used = 0;                      // above every slot
  std::size_t dead_count = 0;
  // A bit a slot, of what the search's filter allowed before; null: nothing is known. What has no bit is not allowed,
  // and of what has one the filter is asked again before it is returned.
  const std::vector<std::uint64_t>* allowed = nullptr;

  [[nodiscard]] bool IsDead(std::size_t slot) const { return LoadBit(dead, slot); }
  [[nodiscard]] bool IsNode(std::size_t slot) const { return LoadBit(nodes, slot); }
  [[nodiscard]] bool HasBit(std::size_t slot) const {
    return allowed == nullptr || (slot / 64 < allowed->size() && ((*allowed)[slot / 64] >> (slot % 64) & 1) != 0);
  }
  // Of the 64 slots from `base` on, those that live.
  [[nodiscard]] std::uint64_t LiveOf(std::size_t base) const {
    const std::uint64_t live =
        ~std::atomic_ref(const_cast<std::uint64_t&>(dead[base / 64])).load(std::memory_order_acquire);
    const std::size_t left = used - base;
    return left < 64 ? live & ((std::uint64_t{1} << left) - 1) : live;
  }
  // Of those that `live`, what may be returned; where there are bits, by them alone.
  [[nodiscard]] std::uint64_t AllowedOf(const LabelFilter* filter, std::size_t base, std::uint64_t live) const {
    if (filter == nullptr || live == 0) return live;
    if (allowed != nullptr) return base / 64 < allowed->size() ? live & (*allowed)[base / 64] : 0;
    if (live == ~std::uint64_t{0}) return filter->AllowsEach({labels + base, 64});
    // The label of a slot that is not live may be being written.
    std::array<Label, 64> those{};
    std::size_t count = 0;
    for (std::uint64_t left = live; left != 0; left &= left - 1) {
      those[count++] = labels[base + static_cast<std::size_t>(std::countr_zero(left))];
    }
    std::uint64_t answers = filter->AllowsEach({those.data(), count});
    std::uint64_t of = 0;
    for (std::uint64_t left = live; left != 0; left &= left - 1, answers >>= 1) {
      of |= (answers & 1) << std::countr_zero(left);
    }
    return of;
  }
  [[nodiscard]] bool HasFitting(std::size_t slot, const AttributeMasks& masks) const {
    return masks.empty() || Fits(attributes + slot * attribute_words, masks);
  }
  // Whether a row that is live may be returned.
  [[nodiscard]] bool Admits(std::size_t slot, const SearchOptions& options) const {
    return (options.filter == nullptr || (HasBit(slot) && options.filter->Allows(labels[slot]))) &&
           HasFitting(slot, options.attributes);
  }
  // Of the 64 slots from `base` on and those in `bits`, live ones: what fits.
  [[nodiscard]] std::uint64_t FittingOf(std::uint64_t bits, std::size_t base, const AttributeMasks& masks) const {
    if (masks.empty()) return bits;
    for (std::uint64_t left = bits; left != 0; left &= left - 1) {
      const int bit = std::countr_zero(left);
      if (!Fits(attributes + (base + static_cast<std::size_t>(bit)) * attribute_words, masks)) {
        bits &= ~(std::uint64_t{1} << bit);
      }
    }
    return bits;
  }
  // kNoSlot at the end; so is what a damaged file holds.
  [[nodiscard]] std::uint32_t NextSame(std::uint32_t slot) const {
    const std::uint32_t next = LoadLink(next_same + slot) - 1;
    return next < used ? next : kNoSlot;
  }
  // What Score() will read.
  void Prefetch(std::size_t slot) const {
    const std::size_t row_bytes = reranker->row_bytes();
    const std::byte* row = rerank_rows + slot * row_bytes;
    for (std::size_t at = 0; at < std::min<std::size_t>(row_bytes, 512); at += 64) __builtin_prefetch(row + at);
    const std::size_t code_bytes = graph.rows.codes->row_bytes();
    const std::int8_t* codes = graph.rows.rows + slot * code_bytes;
    for (std::size_t at = 0; at < std::min<std::size_t>(code_bytes, 512); at += 64) __builtin_prefetch(codes + at);
    __builtin_prefetch(labels + slot);
  }
  // What Admits() will read.
  void PrefetchAdmits(std::size_t slot, const SearchOptions& options) const {
    if (options.filter != nullptr) __builtin_prefetch(labels + slot);
    if (!options.attributes.empty()) __builtin_prefetch(attributes + slot * attribute_words);
  }
  // Higher is better, see Reranker. Never NaN, which a damaged file may hold and which cannot be sorted.
  [[nodiscard]] float Score(const float* query, std::size_t slot) const {
    const float score =
        reranker->Score(query, rerank_rows + slot * reranker->row_bytes(),
                        graph.rows.rows + slot * graph.rows.codes->row_bytes(), graph.rows.heads[slot].scale);
    return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
  }
};

// Best first. `fresh` are the rows that are scanned beside the graph; some may be in it too.
[[nodiscard]] std::vector<Hit> SearchGraph(const SearchView& view, const std::vector<std::uint32_t>& fresh,
                                           const float* query, const SearchOptions& options);
// The same for `queries` rows of `dim` floats, of which several are under way at once, so that one computes while the
// others wait for memory.
[[nodiscard]] std::vector<std::vector<Hit>> SearchGraphMany(const SearchView& view,
                                                            const std::vector<std::uint32_t>& fresh,
                                                            std::span<const float> queries, std::size_t dim,
                                                            const SearchOptions& options);

}  // namespace freshet
