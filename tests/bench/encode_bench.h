// freshet_bench encode: the towers of a package, as the query path and the encode stage call them.
#pragma once

#include <cstdint>
#include <string>

#include "bench.h"
#include "freshet/core/status.h"

namespace freshet::bench {

struct EncodeBenchOptions {
  std::string directory = "/tmp";  // a directory of its own is made beneath it, and removed
  int items = 4000;
  int dim = 64;
  int history = 50;
  int queries = 2000;  // a round
  std::size_t rounds = 5;
  std::uint64_t seed = 42;
  bool quick = false;
};

// A small training makes each package; its weights do not matter for speed.
[[nodiscard]] Result<Report> RunEncodeBench(const EncodeBenchOptions& options);

}  // namespace freshet::bench
