// What all calls into LibTorch share: its threads, and what its exceptions mean.
//
// Place in the flow: under torch_tower.cc and torch_reranker.cc, whose exceptions end here. No LibTorch in this header.
// Thread-safe.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

// Sets LibTorch's and OpenBLAS' threads; the first call decides for the process (a later, different wish is logged).
// Operators that a script forks share one more thread.
void InitTorch(int intra_op_threads);
[[nodiscard]] std::string TorchVersion();

// So that every failure arrives with the type that it was thrown with. REQUIRES: called before a script is loaded.
void KeepTypesOfErrors();

// What the exception in flight means, by its type. What the input may be to blame for is the input's: a record that is
// refused is looked at alone, and the model is asked for its goldens before (encode_stage). So a broken device, of
// which only the newest LibTorch has a type, does not pass for bad records either. REQUIRES: called in a catch block.
// `name`: the package and its file, for what is the model's fault; `what`: "the tower", for what is the input's.
[[nodiscard]] Status ErrorInFlight(std::string_view name, std::string_view what);

// No branch for each, so that it runs on vectors of them: the largest exponent says it for all.
[[nodiscard]] inline bool AllFinite(std::span<const float> values) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t largest = 0;
  for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & kExponent);
  return largest < kExponent;
}

}  // namespace freshet
