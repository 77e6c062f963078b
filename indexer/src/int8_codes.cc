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

void DotsPortable(const std::int8_t* row, const std::int8_t* base, std::size_t row_bytes, const std::uint32_t* slots,
                  std::size_t count, std::int32_t* dots) {
  for (std::size_t r = 0; r < count; ++r) {
    const std::int8_t* other = base + std::size_t{slots[r]} * row_bytes;
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < row_bytes; ++i) sum += std::int32_t{row[i]} * std::int32_t{other[i]};
    dots[r] = sum;
  }
}

#if defined(__x86_64__)
[[gnu::always_inline]] inline std::int32_t Sum(__m128i lanes) {
  lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0x4e));
  lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32(lanes, 0xb1));
  return _mm_cvtsi128_si32(lanes);
}

// maddubs multiplies unsigned by signed: |a| by b with a's sign. Codes are at most 127 in magnitude, so that the sum of
// two products, at most 32,258, is never saturated.
[[gnu::target("avx2")]] void DotsAvx2(const std::int8_t* row, const std::int8_t* base, std::size_t row_bytes,
                                      const std::uint32_t* slots, std::size_t count, std::int32_t* dots) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::size_t r = 0; r < count; ++r) {
    const std::int8_t* other = base + std::size_t{slots[r]} * row_bytes;
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < row_bytes; i += kCodeBlock) {
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + i));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(other + i));
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(a, a), _mm256_sign_epi8(b, a));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    dots[r] = Sum(_mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
  }
}

// GCC 12 warns of what its own AVX-512 headers leave undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
[[gnu::target("avx512f,avx512bw,avx512vl,avx512vnni"), gnu::always_inline]] inline __m512i Codes(const std::int8_t* at,
                                                                                                 __mmask64 mask) {
  return _mm512_maskz_loadu_epi8(mask, at);
}
[[gnu::target("avx512f,avx512bw,avx512vl,avx512vnni"), gnu::always_inline]] inline std::int32_t Sum512(__m512i sum) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
  return Sum(_mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
// Of four at once: added up side by side, which takes a third of the steps that one after the other would.
[[gnu::target("avx512f,avx512bw,avx512vl,avx512vnni"), gnu::always_inline]] inline __m128i Sums512(
    const __m512i (&sums)[4]) {
  const __m512i first =
      _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]), _mm512_unpackhi_epi32(sums[0], sums[1]));
  const __m512i second =
      _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]), _mm512_unpackhi_epi32(sums[2], sums[3]));
  const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
// VNNI multiplies unsigned by signed, too: other + 128 is unsigned, and 128 times the sum of the row, which is the same
// for all, is taken away again.
[[gnu::target("avx512f,avx512bw,avx512vl,avx512vnni")]] void DotsVnni(const std::int8_t* row, const std::int8_t* base,
                                                                      std::size_t row_bytes, const std::uint32_t* slots,
                                                                      std::size_t count, std::int32_t* dots) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(-128));
  __m512i ones_dot = _mm512_setzero_si512();
  const auto mask_at = [row_bytes](std::size_t i) {
    return i + 64 <= row_bytes ? ~__mmask64{0} : (__mmask64{1} << (row_bytes - i)) - 1;
  };
  for (std::size_t i = 0; i < row_bytes; i += 64) {
    ones_dot = _mm512_dpbusd_epi32(ones_dot, _mm512_set1_epi8(1), Codes(row + i, mask_at(i)));
  }
  const std::int32_t excess = 128 * Sum512(ones_dot);
  std::size_t r = 0;
  for (; r + 4 <= count; r += 4) {
    const std::int8_t* others[4];
    __m512i sums[4];
    for (std::size_t j = 0; j < 4; ++j) {
      others[j] = base + std::size_t{slots[r + j]} * row_bytes;
      sums[j] = _mm512_setzero_si512();
    }
    for (std::size_t i = 0; i < row_bytes; i += 64) {
      const __mmask64 mask = mask_at(i);
      const __m512i a = Codes(row + i, mask);
      for (std::size_t j = 0; j < 4; ++j) {
        sums[j] = _mm512_dpbusd_epi32(sums[j], _mm512_xor_si512(Codes(others[j] + i, mask), flip), a);
      }
    }
    const __m128i four = Sums512(sums);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dots + r), _mm_sub_epi32(four, _mm_set1_epi32(excess)));
  }
  for (; r < count; ++r) {
    const std::int8_t* other = base + std::size_t{slots[r]} * row_bytes;
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t i = 0; i < row_bytes; i += 64) {
      const __mmask64 mask = mask_at(i);
      sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(Codes(other + i, mask), flip), Codes(row + i, mask));
    }
    dots[r] = Sum512(sum) - excess;
  }
}
#pragma GCC diagnostic pop
#endif

struct Kernels {
  std::array<Int8DotsKernel, 3> all{};
  std::array<const char*, 3> names{};
  std::size_t count = 0;
  void Add(Int8DotsKernel kernel, const char* name) {
    all[count] = kernel;
    names[count++] = name;
  }
  Kernels() {
    Add(&DotsPortable, "portable");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") != 0) Add(&DotsAvx2, "avx2");
    if (__builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
        __builtin_cpu_supports("avx512vnni") != 0) {
      Add(&DotsVnni, "avx512-vnni");
    }
#endif
  }
};

const Kernels& Found() {
  static const Kernels kernels;
  return kernels;
}

}  // namespace

Int8DotsKernel Int8Dots() { return Found().all[Found().count - 1]; }
const char* Int8DotsName() { return Found().names[Found().count - 1]; }
std::span<const Int8DotsKernel> Int8DotsKernels() { return {Found().all.data(), Found().count}; }

CodeHead Int8Codes::Encode(const float* vector, std::int8_t* codes, std::int8_t* residuals) const {
  float largest = 0;
  float norm = 0;
  for (std::size_t i = 0; i < dim_; ++i) {
    largest = std::max(largest, std::fabs(vector[i]));
    norm += vector[i] * vector[i];
  }
  // A vector of zeros (a query may be one) has codes of zero; so has one too small to be scaled up.
  const float inverse = largest > 1e-34F ? 127 * 256 / largest : 0;
  for (std::size_t i = 0; i < dim_; ++i) {
    const long fine = std::clamp(std::lrintf(vector[i] * inverse), -127L * 256, 127L * 256);
    const long code = (fine + 128) >> 8;
    codes[i] = static_cast<std::int8_t>(code);
    if (residuals != nullptr) residuals[i] = static_cast<std::int8_t>(fine - code * 256);
  }
  std::memset(codes + dim_, 0, row_bytes_ - dim_);
  return {largest / 127, norm};
}

}  // namespace freshet
