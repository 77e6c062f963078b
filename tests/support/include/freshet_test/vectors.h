// Vectors for tests and benchmarks: a generator with a fixed seed, and the u8bin files of the ANN benchmarks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "freshet/core/status.h"

namespace freshet::test {

struct VectorSet {
  int dim = 0;
  std::size_t size = 0;
  std::vector<float> values;
  [[nodiscard]] const float* Row(std::size_t i) const { return values.data() + i * static_cast<std::size_t>(dim); }
};

// Unit vectors around `clusters` random centres. Rows and queries of one seed share their centres: `part` 0 gives the
// rows, 1 the queries. The same numbers on every machine.
[[nodiscard]] VectorSet ClusteredVectors(std::uint64_t seed, int part, std::size_t size, int dim, std::size_t clusters,
                                         float spread = 1.0F);

// u8bin: uint32 count, uint32 dimension, rows of bytes, little-endian. At most `limit` rows.
[[nodiscard]] Result<VectorSet> ReadU8Bin(const std::string& path, std::size_t limit);

}  // namespace freshet::test
