// The slow audit: index and store are compared while everything goes on.
//
// Place in the flow: beside the Applier, on a thread of its own; owned by engine and sidecar. Every so often it
// compares the index with the store, the store's numbers with each other, and asks the index whether searches reach all
// of it. A difference of index and store is repaired from the store; all are counted and logged. It takes at most about
// a tenth of one core, and a page of rows of memory. Errors: an audit that fails is counted, logged, and due again.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/store/applier.h"

namespace freshet {

class Auditor {
 public:
  // Both outlive it.
  Auditor(Applier* applier, Metrics* metrics);
  ~Auditor() { Stop(); }
  Auditor(const Auditor&) = delete;
  Auditor& operator=(const Auditor&) = delete;

  // The first audit begins after `interval`. Called once.
  void Start(std::chrono::milliseconds interval);
  // Ends one that is under way. Any thread.
  void Stop();

 private:
  void Run(std::chrono::milliseconds interval);
  // False once it is to stop.
  bool Wait(std::chrono::microseconds time);
  AuditPace Pace();
  Status CompareAll();
  void AskIndex();

  Applier* const applier_;
  Counter& audits_;
  Counter& failures_;
  Counter& store_differences_;
  Counter& unreachable_;
  Gauge& probe_recall_;
  std::thread thread_;
  std::mutex mu_;
  std::condition_variable wake_;
  bool stop_ = false;  // guarded by mu_
};

}  // namespace freshet
