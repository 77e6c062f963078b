#include "freshet/core/fault.h"

#include <unistd.h>
#include <csignal>
#include <cstdlib>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

struct Fault {
  std::string point;
  std::string action;
  long long sleep_ms = 0;
  long long passes_left = 1;
};

std::atomic<bool> g_armed{false};
std::mutex g_mu;
std::vector<Fault> g_faults;  // guarded by g_mu

}  // namespace

Status ArmFaults(std::string_view plan) {
  std::vector<Fault> faults;
  for (const std::string& part : Split(plan, ',')) {
    if (Trim(part).empty()) continue;
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos) return ConfigError(StrCat("fault `", part, "` is not point=action[@N]"));
    Fault fault;
    fault.point = Trim(std::string_view(part).substr(0, equals));
    fault.action = Trim(std::string_view(part).substr(equals + 1));
    if (const std::size_t at = fault.action.find('@'); at != std::string::npos) {
      const auto passes = ParseInt(std::string_view(fault.action).substr(at + 1));
      if (!passes || *passes < 1) return ConfigError(StrCat("fault `", part, "`: N must be a positive number"));
      fault.passes_left = *passes;
      fault.action.resize(at);
    }
    if (fault.action.rfind("sleep:", 0) == 0) {
      const auto ms = ParseInt(std::string_view(fault.action).substr(6));
      if (!ms || *ms < 0) return ConfigError(StrCat("fault `", part, "`: sleep wants milliseconds"));
      fault.sleep_ms = *ms;
      fault.action = "sleep";
    }
    if (fault.action != "kill" && fault.action != "error" && fault.action != "stop" && fault.action != "sleep") {
      return ConfigError(StrCat("fault `", part, "`: action must be kill, error, stop or sleep:MS"));
    }
    faults.push_back(std::move(fault));
  }
  const std::lock_guard lock(g_mu);
  g_faults = std::move(faults);
  g_armed = !g_faults.empty();
  return Status::Ok();
}

Status ArmFaultsFromEnvironment() {
  const char* plan = std::getenv("FRESHET_FAULTS");
  return plan == nullptr ? Status::Ok() : ArmFaults(plan).Prefixed("FRESHET_FAULTS");
}

Status FaultPoint(std::string_view name) {
  if (!g_armed.load(std::memory_order_relaxed)) return Status::Ok();
  std::string action;
  long long sleep_ms = 0;
  {
    const std::lock_guard lock(g_mu);
    for (Fault& fault : g_faults) {
      if (fault.point != name || fault.passes_left == 0) continue;
      if (--fault.passes_left > 0) continue;
      action = fault.action;
      sleep_ms = fault.sleep_ms;
    }
  }
  if (action == "kill") {
    ::kill(::getpid(), SIGKILL);
    std::this_thread::sleep_for(std::chrono::hours(1));  // the signal is on its way
  }
  if (action == "sleep") std::this_thread::sleep_for(std::chrono::milliseconds(sleep_ms));
  if (action == "error") return Unavailable(StrCat("injected at ", name));
  if (action == "stop") return Internal(StrCat("injected at ", name));
  return Status::Ok();
}

}  // namespace freshet
