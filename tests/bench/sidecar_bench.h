// freshet_bench sidecar: the index called directly, RecallService, HTTP with JSON and with the binary body, in one run.
// freshet_bench filters: recall and latency by selectivity and by correlation of the filter with the query.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench.h"
#include "freshet/core/status.h"

namespace freshet::bench {

struct SidecarBenchOptions {
  std::string directory = "/tmp";  // a directory of its own is made beneath it, and removed
  std::string keep;                // or this one, which stays: the next run need not build the index again
  std::size_t vectors = 1'000'000;
  int dim = 128;
  std::size_t queries = 1'000;
  std::vector<std::size_t> ks = {100, 500};
  std::size_t rounds = 5;
  std::size_t calls = 1'000;    // of each contender in a round
  std::size_t connections = 2;  // that ask at once, where throughput is measured
  std::uint64_t seed = 42;
  bool quick = false;
};

[[nodiscard]] Result<Report> RunSidecarBench(const SidecarBenchOptions& options);
[[nodiscard]] Result<Report> RunFiltersBench(const SidecarBenchOptions& options);

}  // namespace freshet::bench
