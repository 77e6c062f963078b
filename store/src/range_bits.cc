#include "range_bits.h"

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace freshet {
namespace {

constexpr std::size_t kValues = 64;

template <typename T>
std::uint64_t InRangePortable(const T* values, const Interval<T>& range) {
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < kValues; ++i) {
    found |= std::uint64_t{values[i] >= range.low && values[i] <= range.high} << i;
  }
  return found;
}

#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
[[gnu::target("avx512f")]] std::uint64_t IntegersAvx512(const std::int64_t* values,
                                                        const Interval<std::int64_t>& range) {
  const __m512i low = _mm512_set1_epi64(range.low);
  const __m512i high = _mm512_set1_epi64(range.high);
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < kValues; i += 8) {
    const __m512i some = _mm512_loadu_si512(values + i);
    found |= std::uint64_t{_mm512_mask_cmple_epi64_mask(_mm512_cmpge_epi64_mask(some, low), some, high)} << i;
  }
  return found;
}
[[gnu::target("avx512f")]] std::uint64_t DoublesAvx512(const double* values, const Interval<double>& range) {
  const __m512d low = _mm512_set1_pd(range.low);
  const __m512d high = _mm512_set1_pd(range.high);
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < kValues; i += 8) {
    const __m512d some = _mm512_loadu_pd(values + i);
    const __mmask8 above = _mm512_cmp_pd_mask(some, low, _CMP_GE_OQ);
    found |= std::uint64_t{_mm512_mask_cmp_pd_mask(above, some, high, _CMP_LE_OQ)} << i;
  }
  return found;
}
#pragma GCC diagnostic pop
#endif

struct Kernels {
  std::array<RangeKernels, 2> all{};
  std::size_t count = 1;
  Kernels() {
    all[0] = {&InRangePortable<std::int64_t>, &InRangePortable<double>};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") != 0) all[count++] = {&IntegersAvx512, &DoublesAvx512};
#endif
  }
};

const Kernels& Found() {
  static const Kernels kernels;
  return kernels;
}

}  // namespace

const RangeKernels& FastestRangeKernels() { return Found().all[Found().count - 1]; }
std::span<const RangeKernels> AllRangeKernels() { return {Found().all.data(), Found().count}; }

}  // namespace freshet
