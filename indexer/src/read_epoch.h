// Tells a writer when every reader that was there is gone, without ever holding one up.
//
// Readers count themselves into one of two counters, which Synchronize() swaps and then waits for (as sleepable RCU
// does, McKenney 2006). Readers: any number of threads. Synchronize: one thread at a time.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace freshet {

class ReadEpoch {
 public:
  class Reader {
   public:
    explicit Reader(const ReadEpoch& epoch) : epoch_(epoch), side_(epoch.Enter()) {}
    ~Reader() { epoch_.readers_[side_].count.fetch_sub(1); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

   private:
    const ReadEpoch& epoch_;
    std::size_t side_;
  };

  // Returns when every Reader that was there at the call is gone. Without a bound: who gave up would free what they
  // look at. What reads is a search or a piece of an audit, which end, provided that their filter returns (index.h);
  // who waits for the worker meanwhile has a bound of its own.
  void Synchronize() {
    const std::size_t old = epoch_.fetch_add(1) % 2;
    while (readers_[old].count.load() != 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

 private:
  [[nodiscard]] std::size_t Enter() const {
    while (true) {
      const std::size_t side = epoch_.load() % 2;
      readers_[side].count.fetch_add(1);
      // A swap in between may have missed us: then we count on the other side.
      if (epoch_.load() % 2 == side) return side;
      readers_[side].count.fetch_sub(1);
    }
  }

  struct alignas(64) Counter {
    std::atomic<std::size_t> count{0};
  };
  mutable std::array<Counter, 2> readers_;
  std::atomic<std::uint64_t> epoch_{0};
};

}  // namespace freshet
