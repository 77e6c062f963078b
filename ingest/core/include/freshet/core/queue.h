// The bounded queue between two stages.
//
// Place in the flow: every joint of the pipeline. Bounded by elements and by bytes; a full queue blocks the pusher, and
// that is the whole of backpressure. One element larger than the byte bound still passes when the queue is empty, so
// that nothing can wedge. Shutdown runs left to right: the producer calls Close(), the consumer drains what is left and
// then sees nullopt. Thread-safe for any number of producers and consumers.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace freshet {

template <typename T>
class BoundedQueue {
 public:
  BoundedQueue(std::size_t max_items, std::size_t max_bytes) : max_items_(max_items), max_bytes_(max_bytes) {}
  BoundedQueue(const BoundedQueue&) = delete;
  BoundedQueue& operator=(const BoundedQueue&) = delete;

  // Blocks while full. False: the queue is closed and the element was not taken.
  [[nodiscard]] bool Push(T element, std::size_t bytes) {
    std::unique_lock lock(mu_);
    not_full_.wait(lock, [&] { return closed_ || HasRoom(bytes); });
    if (closed_) return false;
    elements_.emplace_back(std::move(element), bytes);
    bytes_ += bytes;
    not_empty_.notify_one();
    return true;
  }

  // As Push, but gives up after `timeout`; the element is taken (moved from) only when this returns true. See closed().
  [[nodiscard]] bool PushFor(T* element, std::size_t bytes, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mu_);
    if (!not_full_.wait_for(lock, timeout, [&] { return closed_ || HasRoom(bytes); }) || closed_) return false;
    elements_.emplace_back(std::move(*element), bytes);
    bytes_ += bytes;
    not_empty_.notify_one();
    return true;
  }

  // Blocks while empty. Nothing: closed and drained.
  [[nodiscard]] std::optional<T> Pop() {
    std::unique_lock lock(mu_);
    not_empty_.wait(lock, [&] { return closed_ || !elements_.empty(); });
    return Take();
  }

  // As Pop, but gives up after `timeout`; see drained() to tell a timeout from the end.
  [[nodiscard]] std::optional<T> PopFor(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mu_);
    not_empty_.wait_for(lock, timeout, [&] { return closed_ || !elements_.empty(); });
    return Take();
  }

  // No more pushes; what is inside can still be popped. Idempotent.
  void Close() {
    const std::lock_guard lock(mu_);
    closed_ = true;
    not_full_.notify_all();
    not_empty_.notify_all();
  }

  [[nodiscard]] bool drained() const {
    const std::lock_guard lock(mu_);
    return closed_ && elements_.empty();
  }
  [[nodiscard]] bool closed() const {
    const std::lock_guard lock(mu_);
    return closed_;
  }
  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mu_);
    return elements_.size();
  }
  [[nodiscard]] std::size_t bytes() const {
    const std::lock_guard lock(mu_);
    return bytes_;
  }

 private:
  [[nodiscard]] bool HasRoom(std::size_t bytes) const {
    return elements_.empty() || (elements_.size() < max_items_ && bytes_ + bytes <= max_bytes_);
  }

  std::optional<T> Take() {
    if (elements_.empty()) return std::nullopt;
    std::optional<T> element(std::move(elements_.front().first));
    bytes_ -= elements_.front().second;
    elements_.pop_front();
    not_full_.notify_one();
    return element;
  }

  const std::size_t max_items_;
  const std::size_t max_bytes_;

  mutable std::mutex mu_;
  std::condition_variable not_full_;
  std::condition_variable not_empty_;
  // Guarded by mu_:
  std::deque<std::pair<T, std::size_t>> elements_;
  std::size_t bytes_ = 0;
  bool closed_ = false;
};

}  // namespace freshet
