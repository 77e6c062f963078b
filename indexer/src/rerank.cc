#include "rerank.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "distance.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace freshet {
namespace {

std::uint16_t HalfOf(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const float magnitude = std::fabs(value);
  if (magnitude >= 65'520.0F)
    return static_cast<std::uint16_t>(sign | 0x7bffU);  // the largest there is, never infinity
  if (magnitude < 6.103515625e-05F) {
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::lrintf(magnitude * 16'777'216.0F)));
  }
  const std::uint32_t rounded = (bits & 0x7fffffffU) + 0xfffU + ((bits >> 13) & 1U);  // to nearest, ties to even
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}
float FloatOf(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000U} << 16;
  const std::uint32_t magnitude = half & 0x7fffU;
  if (magnitude < 0x400U) {
    const float value = static_cast<float>(magnitude) / 16'777'216.0F;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
}

struct Fp16 {
  static float At(const void* row, const std::int8_t* /*codes*/, float /*scale*/, std::size_t i) {
    std::uint16_t half = 0;
    std::memcpy(&half, static_cast<const char*>(row) + 2 * i, sizeof(half));
    return FloatOf(half);
  }
};
struct Residual8 {
  static float At(const void* row, const std::int8_t* codes, float scale, std::size_t i) {
    return static_cast<float>(codes[i] * 256 + static_cast<const std::int8_t*>(row)[i]) * (scale / 256);
  }
};

template <typename Kind>
float DotPortable(const float* query, const void* row, const std::int8_t* codes, float scale, std::size_t dim) {
  float lanes[8] = {};
  for (std::size_t i = 0; i < dim; ++i) lanes[i % 8] += query[i] * Kind::At(row, codes, scale, i);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}
template <typename Kind>
float L2Portable(const float* query, const void* row, const std::int8_t* codes, float scale, std::size_t dim) {
  float lanes[8] = {};
  for (std::size_t i = 0; i < dim; ++i) {
    const float difference = query[i] - Kind::At(row, codes, scale, i);
    lanes[i % 8] += difference * difference;
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

float DotFp32(const float* query, const void* row, const std::int8_t* /*codes*/, float /*scale*/, std::size_t dim) {
  static const DistanceKernel kernel = DotKernel();
  return kernel(query, static_cast<const float*>(row), dim);
}
float L2Fp32(const float* query, const void* row, const std::int8_t* /*codes*/, float /*scale*/, std::size_t dim) {
  static const DistanceKernel kernel = SquaredL2Kernel();
  return kernel(query, static_cast<const float*>(row), dim);
}

#if defined(__x86_64__)
[[gnu::target("avx2,fma"), gnu::always_inline]] inline float Sum(__m256 lanes) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
struct Fp16Avx2 : Fp16 {
  [[gnu::target("avx2,fma,f16c"), gnu::always_inline]] static inline __m256 Eight(const void* row,
                                                                                  const std::int8_t* /*codes*/,
                                                                                  __m256 /*step*/, std::size_t i) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const char*>(row) + 2 * i)));
  }
};
struct Residual8Avx2 : Residual8 {
  [[gnu::target("avx2,fma,f16c"), gnu::always_inline]] static inline __m256 Eight(const void* row,
                                                                                  const std::int8_t* codes, __m256 step,
                                                                                  std::size_t i) {
    const __m128i coarse =
        _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i))), 8);
    const __m128i fine =
        _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const std::int8_t*>(row) + i)));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_add_epi16(coarse, fine))), step);
  }
};
template <typename Kind, bool kL2>
[[gnu::target("avx2,fma,f16c")]] float Avx2(const float* query, const void* row, const std::int8_t* codes, float scale,
                                            std::size_t dim) {
  const __m256 step = _mm256_set1_ps(scale / 256);
  __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  std::size_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    const __m256 a = _mm256_loadu_ps(query + i);
    const __m256 b = Kind::Eight(row, codes, step, i);
    __m256& sum = sums[i / 8 % 2];
    if constexpr (kL2) {
      const __m256 difference = _mm256_sub_ps(a, b);
      sum = _mm256_fmadd_ps(difference, difference, sum);
    } else {
      sum = _mm256_fmadd_ps(a, b, sum);
    }
  }
  float sum = Sum(_mm256_add_ps(sums[0], sums[1]));
  for (; i < dim; ++i) {
    const float b = Kind::At(row, codes, scale, i);
    sum += kL2 ? (query[i] - b) * (query[i] - b) : query[i] * b;
  }
  return sum;
}

// GCC 12 warns of what its own AVX-512 headers leave undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
// Twice as wide, and for the inner product the scale is multiplied in once.
template <bool kL2>
[[gnu::target("avx512f,avx512bw,avx512vl")]] float Residual8Avx512(const float* query, const void* row,
                                                                   const std::int8_t* codes, float scale,
                                                                   std::size_t dim) {
  const auto* residuals = static_cast<const std::int8_t*>(row);
  const __m512 step = _mm512_set1_ps(scale / 256);
  __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (std::size_t i = 0; i < dim; i += 16) {
    const auto mask = static_cast<__mmask16>(i + 16 <= dim ? 0xffffU : (1U << (dim - i)) - 1);
    const __m512i coarse = _mm512_slli_epi32(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, codes + i)), 8);
    const __m512i fine = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, residuals + i));
    const __m512 a = _mm512_maskz_loadu_ps(mask, query + i);
    const __m512 b = _mm512_cvtepi32_ps(_mm512_add_epi32(coarse, fine));
    __m512& sum = sums[i / 16 % 2];
    if constexpr (kL2) {
      const __m512 difference = _mm512_fnmadd_ps(b, step, a);
      sum = _mm512_fmadd_ps(difference, difference, sum);
    } else {
      sum = _mm512_fmadd_ps(a, b, sum);
    }
  }
  const __m512 sum = _mm512_add_ps(sums[0], sums[1]);
  const __m256 half =
      _mm256_add_ps(_mm512_castps512_ps256(sum), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sum), 1)));
  __m128 lanes = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  lanes = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
  const float total = _mm_cvtss_f32(_mm_add_ss(lanes, _mm_movehdup_ps(lanes)));
  return kL2 ? total : total * (scale / 256);
}
#pragma GCC diagnostic pop

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0;
}
bool HasAvx2() {
  // Clang 14 knows no "f16c" here.
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
         __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

std::span<const RerankKernels> RerankKernelsOf(Rerank kind) {
  static constexpr std::array kFp32 = {RerankKernels{&DotFp32, &L2Fp32}};
#if defined(__x86_64__)
  static constexpr std::array kFp16 = {RerankKernels{&DotPortable<Fp16>, &L2Portable<Fp16>},
                                       RerankKernels{&Avx2<Fp16Avx2, false>, &Avx2<Fp16Avx2, true>}};
  static constexpr std::array kResidual8 = {RerankKernels{&DotPortable<Residual8>, &L2Portable<Residual8>},
                                            RerankKernels{&Avx2<Residual8Avx2, false>, &Avx2<Residual8Avx2, true>},
                                            RerankKernels{&Residual8Avx512<false>, &Residual8Avx512<true>}};
  const std::size_t paths = HasAvx2() ? 2 : 1;
  const std::size_t residual_paths = paths == 2 && HasAvx512() ? 3 : paths;
#else
  static constexpr std::array kFp16 = {RerankKernels{&DotPortable<Fp16>, &L2Portable<Fp16>}};
  static constexpr std::array kResidual8 = {RerankKernels{&DotPortable<Residual8>, &L2Portable<Residual8>}};
  const std::size_t paths = 1;
  const std::size_t residual_paths = 1;
#endif
  if (kind == Rerank::kFp32) return kFp32;
  return kind == Rerank::kFp16 ? std::span<const RerankKernels>(kFp16).first(paths)
                               : std::span<const RerankKernels>(kResidual8).first(residual_paths);
}

Reranker::Reranker(Rerank kind, Metric metric, int dim)
    : kind_(kind),
      l2_(metric == Metric::kL2),
      dim_(static_cast<std::size_t>(dim)),
      row_bytes_(dim_ * (kind == Rerank::kFp32   ? sizeof(float)
                         : kind == Rerank::kFp16 ? 2
                                                 : 1)),
      kernel_(l2_ ? RerankKernelsOf(kind).back().l2 : RerankKernelsOf(kind).back().dot) {}

void Reranker::Put(const float* vector, void* row) const {
  if (kind_ == Rerank::kFp32) std::memcpy(row, vector, row_bytes_);
  if (kind_ != Rerank::kFp16) return;
  for (std::size_t i = 0; i < dim_; ++i) {
    const std::uint16_t half = HalfOf(vector[i]);
    std::memcpy(static_cast<char*>(row) + 2 * i, &half, sizeof(half));
  }
}

void Reranker::Get(const void* row, const std::int8_t* codes, float scale, float* vector) const {
  if (kind_ == Rerank::kFp32) {
    std::memcpy(vector, row, row_bytes_);
    return;
  }
  for (std::size_t i = 0; i < dim_; ++i) {
    vector[i] = kind_ == Rerank::kFp16 ? Fp16::At(row, codes, scale, i) : Residual8::At(row, codes, scale, i);
  }
}

}  // namespace freshet
