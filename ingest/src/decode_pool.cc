#include "decode_pool.h"

#include <algorithm>
#include <system_error>

namespace freshet {
namespace {

constexpr std::size_t kSlice = 8;  // records: about ten microseconds
constexpr std::size_t kWorthOffering = 4 * kSlice;

}  // namespace

DecodePool::DecodePool(std::size_t threads) {
  try {
    for (std::size_t i = 1; i < threads; ++i) helpers_.emplace_back([this] { Help(); });
  } catch (const std::system_error&) {
    // The system has no more threads for us: those there are do it all.
  }
}

DecodePool::~DecodePool() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
    offered_.notify_all();
  }
  for (std::thread& helper : helpers_) helper.join();
}

void DecodePool::Run(std::size_t count, const Work& work) {
  if (helpers_.empty() || count < kWorthOffering) {
    for (std::size_t i = 0; i < count; ++i) work(i);
    return;
  }
  {
    const std::lock_guard lock(mu_);
    next_ = 0;
    work_ = &work;
    count_ = count;
    offered_.notify_all();
  }
  Share(work, count);
  std::unique_lock lock(mu_);
  work_ = nullptr;  // who wakes up only now has come too late
  left_.wait(lock, [&] { return helping_ == 0; });
}

void DecodePool::Share(const Work& work, std::size_t count) {
  for (std::size_t begin = next_.fetch_add(kSlice); begin < count; begin = next_.fetch_add(kSlice)) {
    const std::size_t end = std::min(begin + kSlice, count);
    for (std::size_t i = begin; i < end; ++i) work(i);
  }
}

void DecodePool::Help() {
  std::unique_lock lock(mu_);
  for (;;) {
    offered_.wait(lock, [&] { return stop_ || (work_ != nullptr && next_.load() < count_); });
    if (stop_) return;
    const Work& work = *work_;
    const std::size_t count = count_;
    ++helping_;
    lock.unlock();
    Share(work, count);
    lock.lock();
    if (--helping_ == 0) left_.notify_one();
  }
}

}  // namespace freshet
