// What embeddings look like: neighbours, and a plane to draw them on.
//
// Place in the flow: the report of a training. Rows of `dim` floats. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace freshet {

struct Neighbour {
  std::size_t row = 0;
  float score = 0;  // inner product
};

// The `count` rows with the largest inner product with row `of`, best first, without itself.
[[nodiscard]] std::vector<Neighbour> NearestRows(std::span<const float> rows, std::size_t dim, std::size_t of,
                                                 std::size_t count);

// Coordinates on the first two principal components, by power iteration from a fixed start; `share` is the share of the
// variance that they carry. REQUIRES: rows.size() is a multiple of dim.
struct PlaneMap {
  std::vector<std::pair<double, double>> points;
  double share = 0;
};
[[nodiscard]] PlaneMap PrincipalPlane(std::span<const float> rows, std::size_t dim);

}  // namespace freshet
