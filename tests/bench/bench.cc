#include "bench.h"

#include <dlfcn.h>
#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet::bench {
namespace {

std::string Field(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    const std::size_t begin = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::string Simd() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni") != 0) return "avx512-vnni";
  if (__builtin_cpu_supports("avx512f") != 0) return "avx512";
  if (__builtin_cpu_supports("avx2") != 0) return "avx2";
#endif
  return "baseline";
}

double ClockSeconds(clockid_t clock) {
  timespec now{};
  (void)clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string Short(double value) {
  char text[32];
  (void)std::snprintf(text, sizeof(text),
                      value >= 1000 || value == static_cast<double>(static_cast<long>(value)) ? "%.0f" : "%.4g", value);
  return text;
}

}  // namespace

Directory::Directory(const std::string& parent) : path(StrCat(parent, "/freshet-bench-", ::getpid())) {
  std::filesystem::create_directories(path);
}
Directory::~Directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

std::string ToJson(const Report& report) {
  JsonWriter out;
  out.BeginObject().Key("benchmark").String(report.benchmark);
  out.Key("machine").BeginObject();
  out.Key("cpu").String(Field("/proc/cpuinfo", "model name"));
  out.Key("cores").Uint(std::thread::hardware_concurrency());
  out.Key("simd").String(Simd());
  const std::string memory = Field("/proc/meminfo", "MemTotal");
  out.Key("memory_gb").Double(memory.empty() ? 0 : std::stod(memory) / (1024 * 1024));
  out.EndObject();
  out.Key("rows").BeginArray();
  for (const Row& row : report.rows) {
    out.BeginObject().Key("name").String(row.name).Key("is_peer").Bool(row.is_peer);
    out.Key("params").BeginObject();
    for (const auto& [name, value] : row.params) out.Key(name).String(value);
    out.EndObject().Key("metrics").BeginObject();
    for (const auto& [name, value] : row.metrics) out.Key(name).Double(value);
    out.EndObject().EndObject();
  }
  out.EndArray().Key("goals").BeginArray();
  for (const Goal& goal : report.goals) {
    out.BeginObject().Key("name").String(goal.name).Key("goal").Double(goal.goal).Key("value").Double(goal.value);
    out.Key("holds").Bool(goal.Holds()).EndObject();
  }
  out.EndArray().EndObject();
  return out.Take();
}

std::string ToTable(const Report& report) {
  std::string text;
  for (const Row& row : report.rows) {
    text += row.name + (row.is_peer ? " (peer)" : "");
    for (const auto& [name, value] : row.params) text += "  " + name + "=" + value;
    for (const auto& [name, value] : row.metrics) text += "  " + name + " " + Short(value);
    text += "\n";
  }
  for (const Goal& goal : report.goals) {
    text += std::string(goal.Holds() ? "holds     " : "NOT HELD  ") + goal.name + ": " + Short(goal.value) +
            (goal.at_most ? " (at most " : " (at least ") + Short(goal.goal) + ")\n";
  }
  return text;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void Pause(double seconds) {
  std::mutex mu;
  std::unique_lock lock(mu);
  std::condition_variable().wait_for(lock, std::chrono::duration<double>(seconds));
}

double CpuSeconds() { return ClockSeconds(CLOCK_THREAD_CPUTIME_ID); }
double ProcessCpuSeconds() { return ClockSeconds(CLOCK_PROCESS_CPUTIME_ID); }

double ResidentMb(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stod(line.substr(field.size() + 1)) * 1024 / 1e6;
  }
  return 0;
}

void GiveBackFreed() {
  (void)malloc_trim(0);
  using Control = int (*)(const char*, void*, std::size_t*, void*, std::size_t);
  const auto control = reinterpret_cast<Control>(::dlsym(RTLD_DEFAULT, "mallctl"));
  if (control == nullptr) return;  // the allocator is not jemalloc
  (void)control("thread.tcache.flush", nullptr, nullptr, nullptr, 0);
  (void)control("arena.4096.purge", nullptr, nullptr, nullptr, 0);  // MALLCTL_ARENAS_ALL
}

}  // namespace freshet::bench
