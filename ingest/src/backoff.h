// How long to wait before the next attempt at something that is away.
//
// Place in the flow: private to ingest; dead letters, the schema registry, the source. Each wait is twice the one
// before, up to a bound, and of that a random part between half and all: engines that lost the same broker at the same
// moment do not come back to it in step. One thread. Who waits also watches whether to stop, hence no waiting here.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

namespace freshet {

class Backoff {
 public:
  // REQUIRES: 0 < first <= max
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds max, std::uint32_t seed = std::random_device{}())
      : first_(first), max_(max), random_(seed) {}

  [[nodiscard]] std::chrono::milliseconds Next() {
    whole_ = whole_.count() == 0 ? first_ : std::min(whole_ * 2, max_);
    return std::chrono::milliseconds(
        std::uniform_int_distribution<std::int64_t>((whole_.count() + 1) / 2, whole_.count())(random_));
  }
  // It is back: the next wait is a first one.
  void Reset() { whole_ = std::chrono::milliseconds(0); }
  // No wait since the start or the last Reset().
  [[nodiscard]] bool fresh() const { return whole_.count() == 0; }

 private:
  const std::chrono::milliseconds first_;
  const std::chrono::milliseconds max_;
  std::chrono::milliseconds whole_{0};
  std::minstd_rand random_;
};

}  // namespace freshet
