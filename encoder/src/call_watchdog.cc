#include "call_watchdog.h"

#include <cstdlib>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr int kLooks = 10;  // at a call, within its limit
constexpr int kExitPermanent = 1;

}  // namespace

CallWatchdog::CallWatchdog(std::chrono::milliseconds limit, std::function<void()> expired)
    : limit_(limit), expired_(std::move(expired)), thread_([this] { Run(); }) {}

CallWatchdog::~CallWatchdog() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
  }
  stopped_.notify_all();
  thread_.join();
}

void CallWatchdog::Run() {
  std::unique_lock lock(mu_);
  while (!stopped_.wait_for(lock, limit_ / kLooks, [this] { return stop_; })) {
    for (Call* call = calls_; call != nullptr; call = call->next_) {
      // The first look may come right after the call began, so it does not count.
      if (--call->looks_left_ >= 0) continue;
      lock.unlock();
      expired_();
      return;
    }
  }
}

CallWatchdog::Call::Call(CallWatchdog* watchdog, int limits) : watchdog_(watchdog), looks_left_(limits * kLooks) {
  const std::lock_guard lock(watchdog_->mu_);
  next_ = watchdog_->calls_;
  if (next_ != nullptr) next_->previous_ = this;
  watchdog_->calls_ = this;
}

CallWatchdog::Call::~Call() {
  const std::lock_guard lock(watchdog_->mu_);
  if (next_ != nullptr) next_->previous_ = previous_;
  (previous_ != nullptr ? previous_->next_ : watchdog_->calls_) = next_;
}

void EndForModel(const std::string& model, std::chrono::milliseconds limit) {
  LogError("encoder", "the model does not come back, and a script that runs cannot be interrupted: the process ends",
           {{"model", model}, {"waited_seconds", StrCat(static_cast<double>(limit.count()) / 1000)}});
  // No destructors: they would wait for the call. What is stored survives this as it does a kill.
  std::_Exit(kExitPermanent);
}

void EndForDevice(const std::string& model, const std::string& reason) {
  LogError("encoder", "the device failed and works no more in this process, which therefore ends",
           {{"model", model}, {"reason", reason}});
  // No destructors: they would ask the device for its memory back.
  std::_Exit(kExitPermanent);
}

}  // namespace freshet
