#include "bootstrap.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace freshet {
namespace {

using Draws = std::vector<std::vector<double>>;  // per metric, one value a resample

std::vector<double> Ratios(const std::vector<double>& sums) {
  std::vector<double> values;
  for (std::size_t i = 0; i < sums.size(); i += 2) values.push_back(sums[i + 1] > 0 ? sums[i] / sums[i + 1] : 0);
  return values;
}

void AddRow(const double* row, std::vector<double>* sums) {
  for (std::size_t i = 0; i < sums->size(); ++i) (*sums)[i] += row[i];
}

Measured WithInterval(double value, std::vector<double> draws) {
  if (draws.empty()) return {value, value, value};
  std::sort(draws.begin(), draws.end());
  const auto quantile = [&](double q) {
    return draws[static_cast<std::size_t>(std::llround(q * static_cast<double>(draws.size() - 1)))];
  };
  return {value, quantile(0.025), quantile(0.975)};
}

double Over(double value, double reference) { return reference > 0 ? value / reference : 0; }

}  // namespace

std::vector<Resampled> Bootstrap(const std::vector<UserSums>& systems, std::size_t reference, int resamples,
                                 std::uint64_t seed) {
  const std::size_t users = systems.front().users();
  const std::size_t metrics = systems.front().metrics();
  const auto values_of = [&](std::size_t system, const std::vector<std::size_t>& sample) {
    std::vector<double> sums(2 * metrics);
    for (const std::size_t user : sample) AddRow(systems[system].Row(user), &sums);
    return Ratios(sums);
  };
  std::vector<std::size_t> sample(users);
  for (std::size_t i = 0; i < users; ++i) sample[i] = i;
  std::vector<std::vector<double>> whole;
  for (std::size_t s = 0; s < systems.size(); ++s) whole.push_back(values_of(s, sample));

  std::vector<Draws> draws(systems.size(), Draws(metrics));
  std::vector<Draws> ratio_draws = draws;
  std::mt19937_64 random(seed);
  for (int i = 0; i < resamples && users > 0; ++i) {
    for (std::size_t& user : sample) user = random() % users;
    std::sort(sample.begin(), sample.end());  // memory is walked forward
    const std::vector<double> base = values_of(reference, sample);
    for (std::size_t s = 0; s < systems.size(); ++s) {
      const std::vector<double> values = s == reference ? base : values_of(s, sample);
      for (std::size_t m = 0; m < metrics; ++m) {
        draws[s][m].push_back(values[m]);
        ratio_draws[s][m].push_back(Over(values[m], base[m]));
      }
    }
  }
  std::vector<Resampled> results(systems.size());
  for (std::size_t s = 0; s < systems.size(); ++s) {
    for (std::size_t m = 0; m < metrics; ++m) {
      results[s].metrics.push_back(WithInterval(whole[s][m], std::move(draws[s][m])));
      results[s].ratios.push_back(WithInterval(Over(whole[s][m], whole[reference][m]), std::move(ratio_draws[s][m])));
    }
  }
  return results;
}

}  // namespace freshet
