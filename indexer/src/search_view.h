// What a search reads of a graph index, in memory or in a mapped file, and the search itself.
//
// Thread-safe; the owner sees to it that no slot is freed while a search is under way.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "freshet/indexer/index.h"
#include "graph.h"
#include "rerank.h"

namespace freshet {

// One bit of a bitmap that others may be changing.
[[nodiscard]] inline bool LoadBit(const std::uint64_t* bits, std::size_t i) {
  return (std::atomic_ref(const_cast<std::uint64_t&>(bits[i / 64])).load(std::memory_order_acquire) >> (i % 64) & 1) !=
         0;
}

struct SearchView {
  GraphView graph;
  const Reranker* reranker = nullptr;
  const std::byte* rerank_rows = nullptr;
  const Label* labels = nullptr;
  const std::uint64_t* dead = nullptr;       // a bitmap by slot; free slots are dead
  const std::uint64_t* nodes = nullptr;      // a bitmap by slot
  const std::uint32_t* next_same = nullptr;  // by slot: one more than the next slot with the same vector, 0 at the end
  std::size_t used = 0;                      // above every slot
  std::size_t dead_count = 0;

  [[nodiscard]] bool IsDead(std::size_t slot) const { return LoadBit(dead, slot); }
  [[nodiscard]] bool IsNode(std::size_t slot) const { return LoadBit(nodes, slot); }
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
