// Parts of freshet_bench index that look at ours alone.
#pragma once

#include <string>
#include <vector>

#include "bench.h"
#include "freshet/core/status.h"
#include "freshet/indexer/index.h"
#include "freshet_test/vectors.h"

namespace freshet::bench {

struct IndexPartOptions {
  std::string set;  // of the data, as rows name it
  std::vector<std::size_t> ks;
  std::size_t rounds = 5;
  std::uint64_t seed = 42;
};

// What an exclusion list costs: labels at random, and the hard case, the very best of each query, which has to find
// what lies behind them; that one beside a search for so many more results, which has to come as far.
Status MeasureExclusions(const Index& index, const test::VectorSet& queries, const IndexPartOptions& options,
                         Report* report);

// Searches with the re-rank rows out of memory: what is mapped from files of `directory` is written back and dropped
// before each one.
Status MeasurePaging(const Index& index, const test::VectorSet& queries, const std::string& directory,
                     const IndexPartOptions& options, Report* report);

}  // namespace freshet::bench
