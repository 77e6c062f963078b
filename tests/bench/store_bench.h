// freshet_bench store: commits beside raw RocksDB. freshet_bench restore: snapshots, and restores beside building the
// same graph anew.
#pragma once

#include <cstdint>
#include <string>

#include "bench.h"
#include "freshet/core/status.h"

namespace freshet::bench {

struct StoreBenchOptions {
  std::string directory = "/tmp";  // a directory of its own is made beneath it, and removed
  std::size_t vectors = 1'000'000;
  int dim = 128;
  std::size_t batch = 256;
  std::size_t rounds = 5;
  std::size_t ef_construction = 200;
  std::uint64_t seed = 42;
  bool peer = true;
  bool quick = false;
};

[[nodiscard]] Result<Report> RunStoreBench(const StoreBenchOptions& options);
[[nodiscard]] Result<Report> RunRestoreBench(const StoreBenchOptions& options);

}  // namespace freshet::bench
