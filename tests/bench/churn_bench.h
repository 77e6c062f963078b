// freshet_bench churn: what recall and memory become when vectors come and go, beside a fresh build of the same live
// rows, hnswlib with mark-delete, and hnswlib with replace_deleted; and how long a search takes during maintenance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench.h"
#include "freshet/core/status.h"
#include "freshet_test/vectors.h"

namespace freshet::bench {

struct ChurnBenchOptions {
  std::string data = "synthetic";  // or the directory of SIFT-100k
  std::string runbooks;            // a directory; empty: none of them
  std::string only;                // plans whose name holds this
  std::size_t rows = 100'000;
  std::size_t queries = 2000;
  std::size_t live = 20'000;  // of the turnovers and the drift
  std::size_t turnovers = 10;
  std::size_t fresh_every = 5;  // long plans are beside a fresh build at each such search
  std::size_t ef_at_10 = 64;
  std::size_t ef_at_100 = 200;
  std::uint64_t seed = 42;
  std::string svg;  // a file to be written
  bool peer = true;
  bool latency = true;
  bool quick = false;
};

[[nodiscard]] Result<Report> RunChurnBench(const ChurnBenchOptions& options);

// Part of it (churn_latency.cc): p99 of one search, alone and during linking, consolidation and a rebuild.
Status MeasureLatency(const test::VectorSet& base, const test::VectorSet& queries, bool quick, Report* report);

}  // namespace freshet::bench
