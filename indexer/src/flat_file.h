// The head of a flat index's file (flat_index.cc).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "freshet/core/metric.h"
#include "freshet/core/status.h"

namespace freshet {

struct FlatFileHead {
  int dim = 0;
  Metric metric = Metric::kCosine;
  std::uint64_t rows = 0;
  std::size_t attribute_words = 0;
};
// Nothing where the file is of another kind. Errors: kCorruption.
[[nodiscard]] Result<std::optional<FlatFileHead>> ReadFlatFileHead(const std::string& path);

}  // namespace freshet
