#include "distance.h"

#include <array>

namespace freshet {
namespace {

template <std::size_t kLanes>
[[gnu::always_inline]] inline float Dot(const float* a, const float* b, std::size_t dim) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < dim; ++i) sum += a[i] * b[i];
  return sum;
}

template <std::size_t kLanes>
[[gnu::always_inline]] inline float SquaredL2(const float* a, const float* b, std::size_t dim) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float difference = a[i + lane] - b[i + lane];
      lanes[lane] += difference * difference;
    }
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < dim; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

float DotPortable(const float* a, const float* b, std::size_t dim) { return Dot<16>(a, b, dim); }
float SquaredL2Portable(const float* a, const float* b, std::size_t dim) { return SquaredL2<16>(a, b, dim); }

#if defined(__x86_64__)
// GCC prefers half the width unless told; Clang knows no such word.
#if defined(__clang__)
#define FRESHET_AVX512 "avx512f,avx512vl"
#else
#define FRESHET_AVX512 "avx512f,avx512vl,prefer-vector-width=512"
#endif
[[gnu::target("avx2,fma")]] float DotAvx2(const float* a, const float* b, std::size_t dim) {
  return Dot<32>(a, b, dim);
}
[[gnu::target("avx2,fma")]] float SquaredL2Avx2(const float* a, const float* b, std::size_t dim) {
  return SquaredL2<32>(a, b, dim);
}
[[gnu::target(FRESHET_AVX512)]] float DotAvx512(const float* a, const float* b, std::size_t dim) {
  return Dot<32>(a, b, dim);
}
[[gnu::target(FRESHET_AVX512)]] float SquaredL2Avx512(const float* a, const float* b, std::size_t dim) {
  return SquaredL2<32>(a, b, dim);
}
bool HasAvx512() { return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0; }
bool HasAvx2() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }
#endif

struct Found {
  std::array<DistanceKernels, 3> all{};
  std::size_t count = 0;
  Found() {
    all[count++] = {&DotPortable, &SquaredL2Portable};
#if defined(__x86_64__)
    if (HasAvx2()) all[count++] = {&DotAvx2, &SquaredL2Avx2};
    if (HasAvx512()) all[count++] = {&DotAvx512, &SquaredL2Avx512};
#endif
  }
};

}  // namespace

std::span<const DistanceKernels> AllDistanceKernels() {
  static const Found found;
  return {found.all.data(), found.count};
}

DistanceKernel DotKernel() { return AllDistanceKernels().back().dot; }
DistanceKernel SquaredL2Kernel() { return AllDistanceKernels().back().l2; }

}  // namespace freshet
