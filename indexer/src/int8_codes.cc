#include "int8_codes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace freshet {
namespace {

std::int32_t DotPortable(const std::int8_t* a, const std::int8_t* b, std::size_t size) {
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < size; ++i) sum += std::int32_t{a[i]} * std::int32_t{b[i]};
  return sum;
}

#if defined(__x86_64__)
[[gnu::always_inline]] inline std::int32_t Sum(__m128i lanes) {
  lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0x4e));
  lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0xb1));
  return _mm_cvtsi128_si32(lanes);
}

[[gnu::target("avx2"), gnu::always_inline]] inline __m256i Widened(const std::int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

[[gnu::target("avx2")]] std::int32_t DotAvx2(const std::int8_t* a, const std::int8_t* b, std::size_t size) {
  __m256i low = _mm256_setzero_si256();
  __m256i high = _mm256_setzero_si256();
  for (std::size_t i = 0; i < size; i += kCodeBlock) {
    low = _mm256_add_epi32(low, _mm256_madd_epi16(Widened(a + i), Widened(b + i)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(Widened(a + i + 16), Widened(b + i + 16)));
  }
  const __m256i both = _mm256_add_epi32(low, high);
  return Sum(_mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
}

// GCC 12 warns of what its own AVX-512 headers leave undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
// VNNI multiplies unsigned by signed: a + 128 is unsigned, and 128 times the sum of b is taken away again.
[[gnu::target("avx512f,avx512bw,avx512vl,avx512vnni")]] std::int32_t DotVnni(const std::int8_t* a, const std::int8_t* b,
                                                                             std::size_t size) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(-128));
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i product = _mm512_setzero_si512();
  __m512i sum_b = _mm512_setzero_si512();
  for (std::size_t i = 0; i < size; i += 64) {
    const __mmask64 mask = i + 64 <= size ? ~__mmask64{0} : (__mmask64{1} << (size - i)) - 1;
    const __m512i row_a = _mm512_maskz_loadu_epi8(mask, a + i);
    const __m512i row_b = _mm512_maskz_loadu_epi8(mask, b + i);
    product = _mm512_dpbusd_epi32(product, _mm512_xor_si512(row_a, flip), row_b);
    sum_b = _mm512_dpbusd_epi32(sum_b, ones, row_b);
  }
  const __m512i total = _mm512_sub_epi32(product, _mm512_slli_epi32(sum_b, 7));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(total), _mm512_extracti64x4_epi64(total, 1));
  return Sum(_mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
#pragma GCC diagnostic pop
#endif

struct Kernels {
  std::array<Int8DotKernel, 3> all{};
  std::array<const char*, 3> names{};
  std::size_t count = 0;
  void Add(Int8DotKernel kernel, const char* name) {
    all[count] = kernel;
    names[count++] = name;
  }
  Kernels() {
    Add(&DotPortable, "portable");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") != 0) Add(&DotAvx2, "avx2");
    if (__builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
        __builtin_cpu_supports("avx512vnni") != 0) {
      Add(&DotVnni, "avx512-vnni");
    }
#endif
  }
};

const Kernels& Found() {
  static const Kernels kernels;
  return kernels;
}

}  // namespace

Int8DotKernel Int8Dot() { return Found().all[Found().count - 1]; }
const char* Int8DotName() { return Found().names[Found().count - 1]; }
std::span<const Int8DotKernel> Int8DotKernels() { return {Found().all.data(), Found().count}; }

void Int8Codes::Encode(const float* vector, void* row) const {
  float largest = 0;
  float norm = 0;
  for (std::size_t i = 0; i < dim_; ++i) {
    largest = std::max(largest, std::fabs(vector[i]));
    norm += vector[i] * vector[i];
  }
  // A vector of zeros (a query may be one) has codes of zero.
  const Head head{largest / 127, norm};
  std::memcpy(row, &head, sizeof(head));
  auto* codes = static_cast<std::int8_t*>(row) + sizeof(head);
  const float inverse = largest > 0 ? 127 / largest : 0;
  for (std::size_t i = 0; i < dim_; ++i) codes[i] = static_cast<std::int8_t>(std::lrintf(vector[i] * inverse));
  std::memset(codes + dim_, 0, padded_ - dim_);
}

}  // namespace freshet
