#include "http_slots.h"

#include <exception>

#include "freshet/core/log.h"

namespace freshet {

RequestSlots::RequestSlots(std::size_t places, std::size_t max_queued, const Clock* clock, Metrics* metrics)
    : max_queued_(max_queued),
      clock_(clock),
      queued_(metrics->GetGauge("freshet_http_queued_requests", "Requests that queue for a place to search")),
      queue_seconds_(metrics->GetHistogram("freshet_http_queue_seconds",
                                           "Time in the queue for a place to search, of requests that had to queue")),
      free_(places) {}

void RequestSlots::Push(Queued queued) {
  if (queued.may_be_refused) ++refusable_;
  queue_.push_back(std::move(queued));
  queued_.Add(1);
}

void RequestSlots::Leave() {
  Queued next;
  {
    const std::lock_guard lock(mu_);
    if (queue_.empty()) {
      ++free_;
      return;
    }
    next = std::move(queue_.front());
    queue_.pop_front();
    if (next.may_be_refused) --refusable_;
  }
  queued_.Add(-1);
  queue_seconds_.Observe(static_cast<double>(clock_->MonotonicUs() - next.since_us) * 1e-6);
  // A turn that throws has given its place up on the way: the one after it comes, this connection is lost.
  try {
    next.turn(Place(this));
  } catch (const std::exception& error) {
    LogError("query", "a queued request is lost", {{"reason", error.what()}});
  }
}

void RequestSlots::Close() {
  std::deque<Queued> dropped;  // destroyed without the lock
  const std::lock_guard lock(mu_);
  closed_ = true;
  dropped.swap(queue_);
  queued_.Add(-static_cast<double>(dropped.size()));
  refusable_ = 0;
}

}  // namespace freshet
