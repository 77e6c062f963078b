// The records of a chunk, decoded by several threads.
//
// Place in the flow: owned by IngestStage, whose thread calls Run() and does its share of the work. Work that is long
// enough to be worth it is offered to the helpers, slice by slice; what they have not taken the caller does, so that a
// helper that gets no processor costs nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace freshet {

class DecodePool {
 public:
  // Of index i of what there is to do. Called on several threads at once, for each i once; must not throw.
  using Work = std::function<void(std::size_t)>;

  // `threads`: with the caller's. Fewer where the system gives no more.
  explicit DecodePool(std::size_t threads);
  ~DecodePool();
  DecodePool(const DecodePool&) = delete;
  DecodePool& operator=(const DecodePool&) = delete;

  // work(0) to work(count - 1), in any order. Returns when all have returned. One caller.
  void Run(std::size_t count, const Work& work);

 private:
  void Help();
  void Share(const Work& work, std::size_t count);

  std::atomic<std::size_t> next_{0};  // of the round at hand: the first index that nobody has taken

  std::mutex mu_;
  std::condition_variable offered_;
  std::condition_variable left_;
  // Guarded by mu_:
  const Work* work_ = nullptr;  // null: nothing is offered
  std::size_t count_ = 0;
  std::size_t helping_ = 0;  // helpers in the round at hand
  bool stop_ = false;

  std::vector<std::thread> helpers_;
};

}  // namespace freshet
