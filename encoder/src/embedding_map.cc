#include "embedding_map.h"

#include <algorithm>
#include <cmath>

namespace freshet {
namespace {

constexpr int kIterations = 200;

double Dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The leading eigenvector of a symmetric matrix, its eigenvalue in *value.
std::vector<double> Leading(const std::vector<double>& matrix, std::size_t dim, double* value) {
  std::vector<double> vector(dim);
  // Any start that no component is orthogonal to in practice; a fixed one, so that the map is.
  for (std::size_t i = 0; i < dim; ++i) vector[i] = 1.0 + static_cast<double>(i % 7) / 7;
  std::vector<double> next(dim);
  *value = 0;
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    for (std::size_t i = 0; i < dim; ++i) next[i] = Dot(std::span(matrix).subspan(i * dim, dim), vector);
    const double length = std::sqrt(Dot(next, next));
    *value = length / std::sqrt(std::max(Dot(vector, vector), 1e-300));
    if (length < 1e-12) return std::vector<double>(dim);
    for (std::size_t i = 0; i < dim; ++i) vector[i] = next[i] / length;
  }
  return vector;
}

}  // namespace

std::vector<Neighbour> NearestRows(std::span<const float> rows, std::size_t dim, std::size_t of, std::size_t count) {
  std::vector<Neighbour> all;
  const std::span<const float> from = rows.subspan(of * dim, dim);
  for (std::size_t row = 0; row * dim < rows.size(); ++row) {
    if (row == of) continue;
    float score = 0;
    for (std::size_t i = 0; i < dim; ++i) score += from[i] * rows[row * dim + i];
    all.push_back({row, score});
  }
  const std::size_t keep = std::min(count, all.size());
  std::partial_sort(
      all.begin(), all.begin() + static_cast<std::ptrdiff_t>(keep), all.end(),
      [](const Neighbour& a, const Neighbour& b) { return a.score != b.score ? a.score > b.score : a.row < b.row; });
  all.resize(keep);
  return all;
}

PlaneMap PrincipalPlane(std::span<const float> rows, std::size_t dim) {
  PlaneMap map;
  const std::size_t count = rows.size() / dim;
  if (count == 0) return map;
  std::vector<double> mean(dim);
  for (std::size_t i = 0; i < rows.size(); ++i) mean[i % dim] += static_cast<double>(rows[i]);
  for (double& x : mean) x /= static_cast<double>(count);
  std::vector<double> covariance(dim * dim);
  std::vector<double> centred(dim);
  const auto centre = [&](std::size_t row) {
    for (std::size_t i = 0; i < dim; ++i) centred[i] = static_cast<double>(rows[row * dim + i]) - mean[i];
  };
  for (std::size_t row = 0; row < count; ++row) {
    centre(row);
    for (std::size_t i = 0; i < dim; ++i) {
      for (std::size_t j = 0; j < dim; ++j) covariance[i * dim + j] += centred[i] * centred[j];
    }
  }
  double total = 0;
  for (std::size_t i = 0; i < dim; ++i) total += covariance[i * dim + i];
  double first_value = 0;
  double second_value = 0;
  const std::vector<double> first = Leading(covariance, dim, &first_value);
  for (std::size_t i = 0; i < dim; ++i) {
    for (std::size_t j = 0; j < dim; ++j) covariance[i * dim + j] -= first_value * first[i] * first[j];
  }
  const std::vector<double> second = Leading(covariance, dim, &second_value);
  map.share = total > 0 ? std::min((first_value + second_value) / total, 1.0) : 0;
  for (std::size_t row = 0; row < count; ++row) {
    centre(row);
    map.points.emplace_back(Dot(centred, first), Dot(centred, second));
  }
  return map;
}

}  // namespace freshet
