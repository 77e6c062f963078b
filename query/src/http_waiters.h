// Requests that wait for freshness (`min_as_of`): none of them holds a thread.
//
// Place in the flow: HttpApi says that an answer has to wait (HttpWait), HttpSession leaves here what goes on then. One
// timer looks every millisecond, while anyone waits. At most `max` wait. Thread-safe. What goes on is called once, on
// this object's strand: it goes to its own from there.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"

namespace freshet {

class FreshnessWaiters {
 public:
  // `as_of_ms`: how fresh an answer would be. All outlive the waiters, which the context outlives.
  FreshnessWaiters(boost::asio::io_context* context, std::size_t max, std::function<std::int64_t()> as_of_ms,
                   Metrics* metrics);
  // Calls `go_on` once answers are this fresh, the deadline (monotonic) has passed, or Stop() was called. False: too
  // many wait, or it is stopped; then it is never called.
  [[nodiscard]] bool Add(std::int64_t min_as_of_ms, std::int64_t deadline_us, std::function<void()> go_on);
  void Stop();

 private:
  struct Waiter {
    std::int64_t min_as_of_ms = 0;
    std::int64_t deadline_us = 0;
    std::function<void()> go_on;
  };
  void Look();

  const std::size_t max_;
  const std::function<std::int64_t()> as_of_ms_;
  const SystemClock clock_;
  Gauge& waiting_;
  boost::asio::steady_timer timer_;  // on its strand
  std::mutex mu_;
  // Guarded by mu_:
  std::vector<Waiter> waiters_;
  bool looking_ = false;
  bool stopped_ = false;
};

}  // namespace freshet
