// Vectors as one byte a dimension: what the graph is built over and searched by.
//
// x is about scale * code, scale being max|x| / 127 of that vector, so that nothing has to be known of the data before
// it comes. A second byte, the residual, refines the code to 16 bits: x is about scale / 256 * (256 * code + residual).
// The dot product of two codes is a sum of integers, the same bit for bit whichever kernel computes it; hence graphs
// are, too. Thread-safe after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "freshet/core/metric.h"

namespace freshet {

inline constexpr std::size_t kCodeBlock = 32;

// The dot products of `row` with `count` rows of `base`, each `row_bytes` (a multiple of kCodeBlock) after the one
// before.
using Int8DotsKernel = void (*)(const std::int8_t* row, const std::int8_t* base, std::size_t row_bytes,
                                const std::uint32_t* slots, std::size_t count, std::int32_t* dots);
[[nodiscard]] Int8DotsKernel Int8Dots();  // the fastest this processor has
[[nodiscard]] const char* Int8DotsName();
// For tests: every kernel this processor can run, the portable one first.
[[nodiscard]] std::span<const Int8DotsKernel> Int8DotsKernels();

struct CodeHead {
  float scale = 0;
  float norm = 0;  // |x|^2, of the floats
};

class Int8Codes {
 public:
  Int8Codes(Metric metric, int dim)
      : dim_(static_cast<std::size_t>(dim)),
        row_bytes_((dim_ + kCodeBlock - 1) / kCodeBlock * kCodeBlock),
        inner_product_(metric == Metric::kInnerProduct),
        dots_(Int8Dots()) {}

  [[nodiscard]] std::size_t row_bytes() const { return row_bytes_; }
  // Writes row_bytes() codes and, unless null, dim residuals.
  CodeHead Encode(const float* vector, std::int8_t* codes, std::int8_t* residuals) const;
  void Dots(const std::int8_t* row, const std::int8_t* base, const std::uint32_t* slots, std::size_t count,
            std::int32_t* dots) const {
    dots_(row, base, row_bytes_, slots, count, dots);
  }
  // Lower is better: minus the inner product for ip; else the squared distance, which for the unit vectors of cosine
  // puts all in the same order.
  [[nodiscard]] float Distance(std::int32_t dot, CodeHead a, CodeHead b) const {
    const float product = static_cast<float>(dot) * (a.scale * b.scale);
    return inner_product_ ? -product : a.norm + b.norm - 2 * product;
  }

 private:
  std::size_t dim_;
  std::size_t row_bytes_;
  bool inner_product_;
  Int8DotsKernel dots_;
};

}  // namespace freshet
