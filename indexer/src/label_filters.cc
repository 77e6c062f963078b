#include "freshet/indexer/label_filters.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace freshet {
namespace {

// What LabelBitmap has, for the kernels.
struct Bits {
  const std::uint64_t* words;
  Label begin;
  std::uint64_t size;
};

std::uint64_t AllowsPortable(const Bits& bits, std::span<const Label> labels, std::uint64_t* behind) {
  std::uint64_t allowed = 0;
  *behind = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::uint64_t at = labels[i] - bits.begin;
    if (at < bits.size) {
      allowed |= (bits.words[at / 64] >> (at % 64) & 1) << i;
    } else {
      *behind |= std::uint64_t{labels[i] >= bits.begin} << i;
    }
  }
  return allowed;
}

#if defined(__x86_64__)
// GCC 12 warns of what its own AVX-512 headers leave undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
// A scan asks of every label there is: 0.5 ns each so, 2 one by one.
[[gnu::target("avx512f")]] std::uint64_t AllowsAvx512(const Bits& bits, std::span<const Label> labels,
                                                      std::uint64_t* behind) {
  const __m512i begin = _mm512_set1_epi64(static_cast<long long>(bits.begin));
  const __m512i size = _mm512_set1_epi64(static_cast<long long>(bits.size));
  const __m512i one = _mm512_set1_epi64(1);
  std::uint64_t allowed = 0;
  *behind = 0;
  for (std::size_t i = 0; i < labels.size(); i += 8) {
    const std::size_t left = labels.size() - i;
    const auto some = static_cast<__mmask8>(left < 8 ? (1U << left) - 1 : 0xff);
    const __m512i label = _mm512_maskz_loadu_epi64(some, labels.data() + i);
    const __m512i at = _mm512_sub_epi64(label, begin);
    const __mmask8 inside = _mm512_mask_cmplt_epu64_mask(some, at, size);
    const __m512i words =
        _mm512_mask_i64gather_epi64(_mm512_setzero_si512(), inside, _mm512_srli_epi64(at, 6), bits.words, 8);
    // Turned so that the bit that is asked for comes first.
    allowed |= std::uint64_t{_mm512_test_epi64_mask(_mm512_rorv_epi64(words, at), one)} << i;
    *behind |= std::uint64_t{_mm512_mask_cmpge_epu64_mask(static_cast<__mmask8>(some & ~inside), label, begin)} << i;
  }
  return allowed;
}
#pragma GCC diagnostic pop
#endif

using AllowsKernel = std::uint64_t (*)(const Bits& bits, std::span<const Label> labels, std::uint64_t* behind);

AllowsKernel Fastest() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") != 0) return &AllowsAvx512;
#endif
  return &AllowsPortable;
}

}  // namespace

LabelBitmap::LabelBitmap(Label begin, Label end, std::span<const Label> allowed) : LabelBitmap(begin, end) {
  constexpr std::size_t kFew = 16;  // words for each of them
  if (allowed.size() < words_.size() / kFew) {
    for (const Label label : allowed) Allow(label);
    return;
  }
  // As bytes first: one is written without a look at its neighbours, which a bit is not.
  std::vector<std::uint8_t> bytes(words_.size() * 64);
  for (const Label label : allowed) bytes[static_cast<std::size_t>(label - begin_)] = 1;
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, &bytes[at], sizeof(eight));
    // Their lowest bits, side by side.
    words_[at / 64] |= eight * 0x0102040810204080ULL >> 56 << (at % 64);
  }
}

std::uint64_t LabelBitmap::AllowsEach(std::span<const Label> labels, std::uint64_t* behind) const {
  static const AllowsKernel kernel = Fastest();
  return kernel({words_.data(), begin_, size_}, labels, behind);
}

}  // namespace freshet
