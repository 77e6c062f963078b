// Who may search now: so many requests at once, the others queue in the order they came.
//
// Place in the flow: HttpSession asks for a place before HttpApi searches, and leaves it when the answer is made. There
// is one thread more than places, so that probes, refusals and the network never wait for a search. Thread-safe. With a
// free place nothing is allocated and nothing posted. A place is never idle while somebody queues: who leaves hands it
// to the first of the queue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"

namespace freshet {

class RequestSlots {
 public:
  // Right to search, left when it is destroyed. The slots outlive it.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept : slots_(std::exchange(other.slots_, nullptr)) {}
    Place& operator=(Place&& other) noexcept {
      if (this != &other) {
        Leave();
        slots_ = std::exchange(other.slots_, nullptr);
      }
      return *this;
    }
    ~Place() { Leave(); }
    void Leave() {
      if (RequestSlots* slots = std::exchange(slots_, nullptr)) slots->Leave();
    }

   private:
    friend class RequestSlots;
    explicit Place(RequestSlots* slots) : slots_(slots) {}
    RequestSlots* slots_ = nullptr;
  };
  // Called once, by whoever leaves a place, with that place: it posts and returns.
  using Turn = std::function<void(Place)>;
  enum class Entry { kEntered, kQueued, kFull };

  // `metrics` outlives the slots.
  RequestSlots(std::size_t places, std::size_t max_queued, const Clock* clock, Metrics* metrics);
  RequestSlots(const RequestSlots&) = delete;
  RequestSlots& operator=(const RequestSlots&) = delete;

  // kEntered: `*place` is one. kQueued: `make_turn()` was called for a Turn, which will be called unless Close() comes
  // first. kFull: neither; only what may be refused, where max_queued such queue.
  template <typename MakeTurn>
  [[nodiscard]] Entry Enter(bool may_be_refused, Place* place, const MakeTurn& make_turn) {
    const std::lock_guard lock(mu_);
    if (free_ > 0) {
      --free_;
      *place = Place(this);
      return Entry::kEntered;
    }
    if (closed_ || (may_be_refused && refusable_ >= max_queued_)) return Entry::kFull;
    Push({make_turn(), clock_->MonotonicUs(), may_be_refused});
    return Entry::kQueued;
  }
  // Drops those that queue. For the end, when no thread serves any more.
  void Close();

 private:
  struct Queued {
    Turn turn;
    std::int64_t since_us = 0;
    bool may_be_refused = true;
  };
  void Push(Queued queued);  // REQUIRES: mu_
  void Leave();

  const std::size_t max_queued_;
  const Clock* const clock_;
  Gauge& queued_;
  Histogram& queue_seconds_;
  std::mutex mu_;
  // Guarded by mu_:
  std::size_t free_;  // 0 while anybody queues
  std::deque<Queued> queue_;
  std::size_t refusable_ = 0;  // of the queue
  bool closed_ = false;
};

}  // namespace freshet
