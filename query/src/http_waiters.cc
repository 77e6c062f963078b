#include "http_waiters.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <utility>

namespace freshet {
namespace {

constexpr std::chrono::milliseconds kLookEvery{1};

}  // namespace

FreshnessWaiters::FreshnessWaiters(boost::asio::io_context* context, std::size_t max,
                                   std::function<std::int64_t()> as_of_ms, Metrics* metrics)
    : max_(max),
      as_of_ms_(std::move(as_of_ms)),
      waiting_(metrics->GetGauge("freshet_http_waiting_requests", "Requests that wait for freshness (min_as_of)")),
      timer_(boost::asio::make_strand(*context)) {}

bool FreshnessWaiters::Add(std::int64_t min_as_of_ms, std::int64_t deadline_us, std::function<void()> go_on) {
  const std::lock_guard lock(mu_);
  if (stopped_ || waiters_.size() >= max_) return false;
  waiters_.push_back({min_as_of_ms, deadline_us, std::move(go_on)});
  waiting_.Set(static_cast<double>(waiters_.size()));
  if (!std::exchange(looking_, true)) {
    boost::asio::post(timer_.get_executor(), [this] { Look(); });
  }
  return true;
}

void FreshnessWaiters::Stop() {
  const std::lock_guard lock(mu_);
  stopped_ = true;  // seen at the next look
}

void FreshnessWaiters::Look() {
  const std::int64_t as_of_ms = as_of_ms_();
  const std::int64_t now_us = clock_.MonotonicUs();
  std::vector<Waiter> done;
  {
    const std::lock_guard lock(mu_);
    const auto begin = std::stable_partition(waiters_.begin(), waiters_.end(), [&](const Waiter& waiter) {
      return !stopped_ && as_of_ms < waiter.min_as_of_ms && now_us < waiter.deadline_us;
    });
    done.assign(std::make_move_iterator(begin), std::make_move_iterator(waiters_.end()));
    waiters_.erase(begin, waiters_.end());
    waiting_.Set(static_cast<double>(waiters_.size()));
    looking_ = !waiters_.empty();
    if (looking_) {
      timer_.expires_after(kLookEvery);
      timer_.async_wait([this](boost::system::error_code cancelled) {
        if (!cancelled) Look();
      });
    }
  }
  for (const Waiter& waiter : done) waiter.go_on();
}

}  // namespace freshet
