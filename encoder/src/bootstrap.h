// Ratios of sums over users, with percentile intervals from resampled users.
//
// Place in the flow: private to judging. Every system is resampled with the same users, so that the ratio of two
// systems has an interval of its own (paired bootstrap). Deterministic by seed.
#pragma once

#include <cstdint>
#include <vector>

#include "freshet/encoder/evaluation.h"

namespace freshet {

// Per user, for each metric, a numerator and a denominator: the metric of a set of users is their sums' ratio.
class UserSums {
 public:
  explicit UserSums(std::size_t metrics) : metrics_(metrics) {}
  // Metric 0 first; call metrics() times a user.
  void Add(double numerator, double denominator) {
    values_.push_back(numerator);
    values_.push_back(denominator);
  }
  [[nodiscard]] std::size_t users() const { return values_.size() / (2 * metrics_); }
  [[nodiscard]] std::size_t metrics() const { return metrics_; }
  [[nodiscard]] const double* Row(std::size_t user) const { return values_.data() + user * 2 * metrics_; }

 private:
  const std::size_t metrics_;
  std::vector<double> values_;
};

struct Resampled {
  std::vector<Measured> metrics;
  std::vector<Measured> ratios;  // to the system `reference`
};

// One entry a system; all hold the same users and metrics.
[[nodiscard]] std::vector<Resampled> Bootstrap(const std::vector<UserSums>& systems, std::size_t reference,
                                               int resamples, std::uint64_t seed);

}  // namespace freshet
