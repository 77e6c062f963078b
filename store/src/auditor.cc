#include "freshet/store/auditor.h"

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {

Auditor::Auditor(Applier* applier, Metrics* metrics)
    : applier_(applier),
      audits_(metrics->GetCounter("freshet_audits_total", "Comparisons of index and store that came to their end")),
      failures_(metrics->GetCounter("freshet_audit_failures_total",
                                    "Comparisons of index and store that could not be made; see the log")),
      store_differences_(metrics->GetCounter(
          "freshet_audit_store_differences_total",
          "Numbers of the store that contradict each other, in all audits; other than 0 is a defect")),
      unreachable_(metrics->GetCounter("freshet_index_unreachable_total",
                                       "Live items that an audit could not reach in the graph, linked again")),
      probe_recall_(
          metrics->GetGauge("freshet_index_probe_recall", "Of the last audit's sampled searches beside exact ones")) {}

void Auditor::Start(std::chrono::milliseconds interval) {
  thread_ = std::thread([this, interval] { Run(interval); });
}

void Auditor::Stop() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

bool Auditor::Wait(std::chrono::microseconds time) {
  std::unique_lock lock(mu_);
  return !wake_.wait_for(lock, time, [this] { return stop_; });
}

void Auditor::Run(std::chrono::milliseconds interval) {
  while (Wait(interval)) {
    const Status compared = CompareAll();
    if (compared.ok()) {
      audits_.Add();
    } else if (compared.code() == Code::kCancelled) {
      return;
    } else {
      failures_.Add();
      LogError("store", "the audit failed", {{"reason", compared.ToString()}});
    }
    AskIndex();
  }
}

AuditPace Auditor::Pace() {
  AuditPace pace;
  pace.wait = [this](std::chrono::microseconds time) { return Wait(time); };
  return pace;
}

Status Auditor::CompareAll() {
  const AuditPace pace = Pace();
  const Status index = applier_->AuditAndRepair(pace).status();  // counts and tells what it repairs
  if (index.code() == Code::kCancelled) return index;
  FRESHET_ASSIGN(const StoreCheck store, applier_->AuditStore(pace));
  if (store.differences > 0) {
    store_differences_.Add(static_cast<double>(store.differences));
    LogError("store",
             "numbers of the store contradict each other; `freshet store verify` tells more once it is stopped",
             {{"differences", StrCat(store.differences)}, {"first", store.examples.front()}});
  }
  return index;
}

void Auditor::AskIndex() {
  const auto health = applier_->AuditIndex(Pace());
  if (health.status().code() == Code::kCancelled) return;
  if (!health.ok()) {
    failures_.Add();
    LogError("index", "the audit failed", {{"reason", health.status().ToString()}});
    return;
  }
  unreachable_.Add(static_cast<double>(health->unreachable));
  probe_recall_.Set(health->recall);
  if (health->unreachable == 0 && !health->rebuilding) return;
  LogWarning("index",
             health->rebuilding ? StrCat("it is rebuilt: ", health->because)
                                : "items that searches could not reach are linked again",
             {{"unreachable", StrCat(health->unreachable)}, {"recall", StrCat(health->recall)}});
}

}  // namespace freshet
