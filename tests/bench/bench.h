// What the benchmarks of freshet_bench share: options, rows, goals, and their two forms of output (a table, or one JSON
// object). A goal that does not hold is printed as such; the exit status only says whether the benchmark ran.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "freshet/core/status.h"

namespace freshet::bench {

struct Row {
  std::string name;
  bool is_peer = false;
  std::vector<std::pair<std::string, std::string>> params;
  std::vector<std::pair<std::string, double>> metrics;  // the unit is in the name
};

struct Goal {
  std::string name;
  double goal = 0;
  double value = 0;
  bool at_most = false;  // otherwise at least
  [[nodiscard]] bool Holds() const { return at_most ? value <= goal : value >= goal; }
};

struct Report {
  std::string benchmark;
  std::vector<Row> rows;
  std::vector<Goal> goals;
};

// A directory of this process's own beneath `parent`, removed at the end.
class Directory {
 public:
  explicit Directory(const std::string& parent);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  const std::string path;
};

[[nodiscard]] std::string ToJson(const Report& report);
[[nodiscard]] std::string ToTable(const Report& report);

[[nodiscard]] double Median(std::vector<double> values);
[[nodiscard]] double Seconds();  // monotonic
void Pause(double seconds);      // a pace, not a wait for something
// Processor time, which other work on the machine does not disturb as much: of this thread, of this process.
[[nodiscard]] double CpuSeconds();
[[nodiscard]] double ProcessCpuSeconds();
// A field of /proc/self/status: VmRSS, RssAnon (what nothing but swap can drop), RssFile, RssShmem.
[[nodiscard]] double ResidentMb(const std::string& field);
// Before a reading of that: what was freed and the allocator keeps goes back to the system, else a contender lives in
// what the one before it has left, and seems to need nothing.
void GiveBackFreed();

}  // namespace freshet::bench
