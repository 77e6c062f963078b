// A graph over int8 codes: hnswlib 0.8.0 builds it, we search it.
//
// HNSW is Malkov and Yashunin, arXiv 1603.09320. Names are slots, numbers below the capacity that the caller gives.
// Thread-safety: Add and Copy exclude each other; Add excludes Search (hnswlib may not be read while it is changed);
// searches run side by side, and beside Copy. Errors: hnswlib's and the allocator's exceptions (std::exception).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "freshet/indexer/index.h"
#include "int8_codes.h"

namespace freshet {

struct Candidate {
  float distance = 0;  // of the codes: approximate, lower is better
  std::uint32_t slot = 0;
};

class Graph {
 public:
  // `codes` outlives the graph.
  Graph(const Int8Codes* codes, std::size_t capacity, const HnswOptions& options);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  [[nodiscard]] std::size_t size() const;
  void Add(std::uint32_t slot, const float* vector);
  // The up to `width` nearest, nearest first. The answer is valid until the next search of this thread.
  [[nodiscard]] const std::vector<Candidate>& Search(const float* query, std::size_t width) const;
  // The same graph with other room, built by copying. REQUIRES: capacity >= size().
  [[nodiscard]] std::unique_ptr<Graph> Copy(std::size_t capacity) const;
  [[nodiscard]] std::size_t bytes_per_node() const;

 private:
  struct Impl;
  explicit Graph(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace freshet
