// Whether the changelog is this engine's alone.
//
// Place in the flow: private to engine.cc, beside the publisher. Followers order what they read by the store's epoch,
// then by sequence, and drop what an older store says. So of two engines that publish to the same topics the older one
// would speak to nobody, and its items would be dropped from every sidecar, without a word anywhere. It asks what
// stands at the ends of the changelog, at start and every now and then: what comes from a newer store ends this engine.
// That also fences off an engine that was replaced by a new one while it ran. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/status.h"
#include "freshet/deploy/config.h"

namespace freshet {

// Errors: kFailedPrecondition where a newer store than that of `epoch` publishes. That it cannot be asked is no error.
[[nodiscard]] Status CheckChangelogIsOurs(const Config& config, std::uint64_t epoch, const Clock* clock,
                                          std::chrono::milliseconds timeout);

class ChangelogWatch {
 public:
  // All outlive the watch.
  ChangelogWatch(const Config& config, std::uint64_t epoch, const Clock* clock)
      : config_(config), epoch_(epoch), clock_(clock) {}
  ~ChangelogWatch() { Stop(); }
  ChangelogWatch(const ChangelogWatch&) = delete;
  ChangelogWatch& operator=(const ChangelogWatch&) = delete;

  void Start();
  void Stop();
  // kFailedPrecondition once a newer store publishes.
  [[nodiscard]] Status status() const;

 private:
  void Run();

  const Config& config_;
  const std::uint64_t epoch_;
  const Clock* const clock_;
  std::thread thread_;
  mutable std::mutex mu_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mu_
  Status status_;          // guarded by mu_
};

}  // namespace freshet
