// Time as a port, so that tests own it.
//
// Place in the flow: every stage that lingers, waits or stamps gets a Clock*. Thread-safe. Two times, never mixed:
// wall (Unix milliseconds, comparable with Kafka timestamps) and monotonic (for durations; its zero means nothing).
#pragma once

#include <atomic>
#include <cstdint>

namespace freshet {

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual std::int64_t WallMs() const = 0;
  [[nodiscard]] virtual std::int64_t MonotonicUs() const = 0;
};

class SystemClock final : public Clock {
 public:
  [[nodiscard]] std::int64_t WallMs() const override;
  [[nodiscard]] std::int64_t MonotonicUs() const override;
};

// Moves only when told to.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(std::int64_t wall_ms = 1'700'000'000'000) : wall_ms_(wall_ms) {}
  [[nodiscard]] std::int64_t WallMs() const override { return wall_ms_.load(); }
  [[nodiscard]] std::int64_t MonotonicUs() const override { return monotonic_us_.load(); }
  void AdvanceMs(std::int64_t ms) {
    wall_ms_ += ms;
    monotonic_us_ += ms * 1000;
  }
  // As an administrator or NTP sets it: monotonic time does not notice.
  void SetWallMs(std::int64_t ms) { wall_ms_ = ms; }

 private:
  std::atomic<std::int64_t> wall_ms_;
  std::atomic<std::int64_t> monotonic_us_{0};
};

}  // namespace freshet
