// The rows that candidates are scored by once more: what an index knows of a vector beyond its codes.
//
// fp32: the vector itself. fp16: IEEE 754 half precision. residual8: a second byte a dimension, which with the first
// (int8_codes.h) makes 16 bits. Thread-safe after construction. A row is row_bytes() bytes, at no particular alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "freshet/core/metric.h"
#include "freshet/indexer/index.h"
#include "int8_codes.h"

namespace freshet {

// One row beside another: the inner product, or the squared distance. `codes` and `scale` are of residual8 only.
using RerankKernel = float (*)(const float* query, const void* row, const std::int8_t* codes, float scale,
                               std::size_t dim);
struct RerankKernels {
  RerankKernel dot;
  RerankKernel l2;
};
// For tests: every path this processor has for a kind, the portable one first.
[[nodiscard]] std::span<const RerankKernels> RerankKernelsOf(Rerank kind);

class Reranker {
 public:
  Reranker(Rerank kind, Metric metric, int dim);
  [[nodiscard]] Rerank kind() const { return kind_; }
  [[nodiscard]] std::size_t row_bytes() const { return row_bytes_; }
  // REQUIRES for residual8: `row` holds what Int8Codes::Encode gave. Others: written here, from the vector.
  void Put(const float* vector, void* row) const;
  // The vector again, as exact as the kind is.
  void Get(const void* row, const std::int8_t* codes, float scale, float* vector) const;
  // Higher is better: the inner product for cosine and ip, minus the squared distance for l2.
  [[nodiscard]] float Score(const float* query, const void* row, const std::int8_t* codes, float scale) const {
    const float value = kernel_(query, row, codes, scale, dim_);
    return l2_ ? -value : value;
  }

 private:
  Rerank kind_;
  bool l2_;
  std::size_t dim_;
  std::size_t row_bytes_;
  RerankKernel kernel_;
};

}  // namespace freshet
