// Ends the process when a call into a model does not come back.
//
// Place in the flow: around every call into TorchScript, loading included (torch_tower.cc). A script that runs cannot
// be interrupted, and a thread that stays in one would hold its stage, its query and the end of the process for good; a
// process that ends is seen and started again. Thread-safe: any number of calls at once, each watched by itself.
// Durations are counted in looks at the calls, not read from a clock: a process that was stopped, or a machine that was
// suspended, for longer than the limit has done nothing wrong.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace freshet {

class CallWatchdog {
 public:
  // `expired` is called once, on the watchdog's thread, when a call has lasted for `limit` (at most a tenth longer).
  CallWatchdog(std::chrono::milliseconds limit, std::function<void()> expired);
  ~CallWatchdog();  // REQUIRES: no call is watched
  CallWatchdog(const CallWatchdog&) = delete;
  CallWatchdog& operator=(const CallWatchdog&) = delete;

  // A call that is watched from here to the end of its scope. `limits`: how many times the limit it may take.
  class Call {
   public:
    explicit Call(CallWatchdog* watchdog, int limits = 1);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    friend class CallWatchdog;
    CallWatchdog* const watchdog_;
    // Guarded by watchdog_->mu_:
    int looks_left_;
    Call* previous_ = nullptr;
    Call* next_ = nullptr;
  };

 private:
  void Run();

  const std::chrono::milliseconds limit_;
  const std::function<void()> expired_;
  std::mutex mu_;
  std::condition_variable stopped_;
  // Guarded by mu_:
  bool stop_ = false;
  Call* calls_ = nullptr;  // a list through the callers' stacks: watching allocates nothing
  std::thread thread_;
};

// What a tower's watchdog does: says which model it was, and ends the process with the exit code of permanent errors.
[[noreturn]] void EndForModel(const std::string& model, std::chrono::milliseconds limit);
// Likewise for a device that an error has left unusable for the rest of the process.
[[noreturn]] void EndForDevice(const std::string& model, const std::string& reason);

}  // namespace freshet
