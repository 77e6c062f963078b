// Labels one after the other, as most tests of indexes want them.
#pragma once

#include <numeric>
#include <vector>

#include "freshet/indexer/index.h"

namespace freshet {

inline std::vector<Label> Range(Label begin, Label end) {
  std::vector<Label> labels(end - begin);
  std::iota(labels.begin(), labels.end(), begin);
  return labels;
}

}  // namespace freshet
