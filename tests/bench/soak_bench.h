// freshet_bench soak: an engine and a sidecar as processes, for as long as asked, under updates, snapshots and queries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "bench.h"
#include "freshet/core/status.h"

namespace freshet::bench {

struct SoakOptions {
  std::string directory = "/tmp";  // a directory of its own is made beneath it, and removed
  double minutes = 30;
  std::size_t items = 20'000;
  int dim = 64;
  std::size_t updates_per_second = 1'000;
  std::size_t queries_per_second = 100;
  std::uint64_t seed = 42;
  bool embedded = false;  // the embedded broker, which keeps its log in memory, in place of Apache Kafka
  bool quick = false;
};

[[nodiscard]] Result<Report> RunSoakBench(const SoakOptions& options);

}  // namespace freshet::bench
