// Vectors as one byte a dimension: what the graph is built over and searched by.
//
// A row is {float scale, float norm, int8 codes[padded]}: x is about scale * code, scale being max|x| / 127 of that
// vector, so that nothing has to be known of the data before it comes; norm is |x|^2, exact. The dot product of two
// codes is a sum of integers, the same bit for bit whichever kernel computes it; hence graphs are, too.
// Thread-safe after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "freshet/encoder/encoder.h"

namespace freshet {

// `size` is a multiple of kCodeBlock.
using Int8DotKernel = std::int32_t (*)(const std::int8_t* a, const std::int8_t* b, std::size_t size);
inline constexpr std::size_t kCodeBlock = 32;

[[nodiscard]] Int8DotKernel Int8Dot();  // the fastest this processor has
[[nodiscard]] const char* Int8DotName();
// For tests: every kernel this processor can run, the portable one first.
[[nodiscard]] std::span<const Int8DotKernel> Int8DotKernels();

class Int8Codes {
 public:
  Int8Codes(Metric metric, int dim)
      : dim_(static_cast<std::size_t>(dim)),
        padded_((dim_ + kCodeBlock - 1) / kCodeBlock * kCodeBlock),
        l2_(metric == Metric::kL2),
        dot_(Int8Dot()) {}

  [[nodiscard]] std::size_t row_bytes() const { return sizeof(Head) + padded_; }
  void Encode(const float* vector, void* row) const;
  // Lower is better: minus the inner product, or the squared distance; of two rows.
  [[nodiscard]] float Distance(const void* a, const void* b) const {
    const Head& head_a = *static_cast<const Head*>(a);
    const Head& head_b = *static_cast<const Head*>(b);
    const auto dot = static_cast<float>(dot_(Codes(a), Codes(b), padded_)) * (head_a.scale * head_b.scale);
    return l2_ ? head_a.norm + head_b.norm - 2 * dot : -dot;
  }

 private:
  struct Head {
    float scale;
    float norm;
  };
  static const std::int8_t* Codes(const void* row) { return static_cast<const std::int8_t*>(row) + sizeof(Head); }

  std::size_t dim_;
  std::size_t padded_;
  bool l2_;
  Int8DotKernel dot_;
};

}  // namespace freshet
