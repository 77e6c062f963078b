// Many readers, or one writer for a short slice; neither starves.
//
// A reader that comes while a writer writes or waits is let in when that writer's slice ends, before the next one: so a
// reader waits for one slice at most, and a writer for the searches that were under way. std::shared_mutex promises
// neither: a writer that locks again at once keeps the readers out, or steady readers the writer.
// Works with std::shared_lock and std::unique_lock. REQUIRES: one writer thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace freshet {

class SliceLock {
 public:
  void lock_shared() {
    std::unique_lock lock(mu_);
    if (!writing_ && !writer_waits_) {
      ++active_;
      return;
    }
    ++waiting_;
    const std::uint64_t slice = slices_;
    readers_.wait(lock, [&] { return slices_ != slice; });  // unlock() has counted us as active
  }
  void unlock_shared() {
    const std::lock_guard lock(mu_);
    if (--active_ == 0 && writer_waits_) writer_.notify_one();
  }
  void lock() {
    std::unique_lock lock(mu_);
    writer_waits_ = true;
    writer_.wait(lock, [&] { return active_ == 0; });
    writer_waits_ = false;
    writing_ = true;
  }
  void unlock() {
    const std::lock_guard lock(mu_);
    writing_ = false;
    active_ += waiting_;
    waiting_ = 0;
    ++slices_;
    readers_.notify_all();
  }

 private:
  std::mutex mu_;
  std::condition_variable readers_;
  std::condition_variable writer_;
  // Guarded by mu_:
  std::size_t active_ = 0;   // readers that are in, or let in
  std::size_t waiting_ = 0;  // readers that wait for the slice to end
  std::uint64_t slices_ = 0;
  bool writing_ = false;
  bool writer_waits_ = false;
};

}  // namespace freshet
