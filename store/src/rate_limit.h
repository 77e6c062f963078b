// Bytes at a bounded rate.
//
// Place in the flow: private to the snapshotter, behind the Throttle of everything that it reads and writes. The rate
// is an average since the first byte, so that what had to be done at once is made up for by what follows. Time and
// waiting are given, so that tests own them. One thread. Errors: kCancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "freshet/core/status.h"

namespace freshet {

class RateLimit {
 public:
  using Now = std::function<std::int64_t()>;               // microseconds, monotonic
  using Wait = std::function<bool(std::int64_t wait_us)>;  // may return early; false: stop

  // 0 bytes a second: no limit.
  RateLimit(std::uint64_t bytes_per_second, Now now, Wait wait)
      : bytes_per_second_(bytes_per_second), now_(std::move(now)), wait_(std::move(wait)), begin_us_(now_()) {}

  // Returns when so many bytes more may have been moved.
  Status operator()(std::uint64_t bytes) {
    bytes_ += bytes;
    std::int64_t left_us = 0;
    do {
      left_us = bytes_per_second_ == 0 ? 0 : DueUs() - now_();
      if (!wait_(left_us > 0 ? left_us : 0)) return Cancelled("stopping");
    } while (left_us > 0);
    return Status::Ok();
  }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  [[nodiscard]] std::int64_t DueUs() const {
    return begin_us_ +
           static_cast<std::int64_t>(static_cast<double>(bytes_) / static_cast<double>(bytes_per_second_) * 1e6);
  }

  const std::uint64_t bytes_per_second_;
  const Now now_;
  const Wait wait_;
  const std::int64_t begin_us_;
  std::uint64_t bytes_ = 0;
};

}  // namespace freshet
