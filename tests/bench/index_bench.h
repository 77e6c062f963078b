// freshet_bench index: our index beside plain hnswlib.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench.h"
#include "freshet/core/status.h"
#include "freshet/indexer/index.h"

namespace freshet::bench {

struct IndexBenchOptions {
  std::string data = "synthetic";
  std::size_t vectors = 200'000;
  std::size_t clusters = 2'000;  // of the synthetic vectors; fewer where a cluster would have less than 100
  float slack = HnswOptions().slack;
  std::size_t queries = 500;
  int dim = 128;
  std::size_t rounds = 5;
  std::size_t build_threads = 1;  // that link
  std::uint64_t seed = 42;
  std::vector<std::size_t> ks = {10, 100, 500};
  bool peer = true;
  bool curves = true;               // recall beside speed; otherwise only the other parts
  std::string rerank_dir;           // the re-rank rows lie in a file there
  std::vector<std::size_t> growth;  // sizes of synthetic sets; then nothing else is measured
  bool kinds = true;                // `mapped`, `flat`, batches
  bool exclusions = true;
  bool live = true;                // rows that are added while others are searched
  bool resident = true;            // memory, with the re-rank rows in a file too
  std::string export_to;           // a directory for base.fbin and query.fbin; then nothing is measured
  std::string directory = "/tmp";  // for the index file
  bool quick = false;
};

[[nodiscard]] Result<Report> RunIndexBench(const IndexBenchOptions& options);

}  // namespace freshet::bench
