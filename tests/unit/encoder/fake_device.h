// A device for tests: each queue is a thread, so that a wait that is forgotten is a race that shows.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "device_queues.h"

namespace freshet::test {

// What tests hold while a tower owns the queues.
struct FakeDevice {
  std::mutex mu;
  std::condition_variable changed;
  // Guarded by mu:
  bool computing_held = false;  // nothing is computed until it is let go
  int copied_in = 0;            // parts whose tensors are on the device
  int computed = 0;
  std::function<void(int)> before_compute;  // of the n-th part, from 1; may throw
  std::atomic<bool> alive{true};

  template <typename Condition>
  bool WaitFor(const Condition& condition) {
    std::unique_lock lock(mu);
    return changed.wait_for(lock, std::chrono::seconds(30), condition);
  }
  void Hold(bool held) {
    const std::lock_guard lock(mu);
    computing_held = held;
    changed.notify_all();
  }
};

class FakeQueues final : public DeviceQueues {
 public:
  explicit FakeQueues(FakeDevice* device) : device_(device) {
    for (int queue = 0; queue < kQueues; ++queue) {
      threads_.emplace_back([this, queue] { Work(static_cast<Queue>(queue)); });
    }
  }
  ~FakeQueues() override {
    {
      const std::lock_guard lock(device_->mu);
      stop_ = true;
      device_->changed.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  void Put(Queue queue, const std::function<void()>& work) override {
    const std::lock_guard lock(device_->mu);
    Add(queue, [this, queue, work] {
      if (queue == kCompute) Compute();
      work();
      const std::lock_guard counted(device_->mu);
      if (queue == kCopyIn) ++device_->copied_in;
    });
  }
  void After(Queue later, Queue earlier) override {
    const std::lock_guard lock(device_->mu);
    const std::size_t until = put_[earlier];
    Add(later, [this, earlier, until] {
      std::unique_lock held(device_->mu);
      device_->changed.wait(held, [&] { return done_[earlier] >= until; });
    });
  }
  void Finish(Queue queue) override {
    std::unique_lock lock(device_->mu);
    device_->changed.wait(lock, [&] { return done_[queue] == put_[queue]; });
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }
  bool Alive() override { return device_->alive; }

 private:
  void Add(Queue queue, std::function<void()> work) {
    work_[queue].push_back(std::move(work));
    ++put_[queue];
    device_->changed.notify_all();
  }
  void Compute() {
    std::function<void(int)> before;
    int number = 0;
    {
      std::unique_lock lock(device_->mu);
      device_->changed.wait(lock, [&] { return !device_->computing_held; });
      number = ++device_->computed;
      before = device_->before_compute;
    }
    if (before) before(number);
  }
  void Work(Queue queue) {
    std::unique_lock lock(device_->mu);
    while (true) {
      device_->changed.wait(lock, [&] { return stop_ || !work_[queue].empty(); });
      if (work_[queue].empty()) return;
      const std::function<void()> work = std::move(work_[queue].front());
      work_[queue].pop_front();
      lock.unlock();
      std::exception_ptr thrown;
      try {
        work();
      } catch (...) {
        thrown = std::current_exception();
      }
      lock.lock();
      if (thrown) failure_ = thrown;
      ++done_[queue];
      device_->changed.notify_all();
    }
  }

  FakeDevice* const device_;
  // Guarded by device_->mu:
  bool stop_ = false;
  std::deque<std::function<void()>> work_[kQueues];
  std::size_t put_[kQueues] = {};
  std::size_t done_[kQueues] = {};
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace freshet::test
