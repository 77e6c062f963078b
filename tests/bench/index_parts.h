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

// Queries one by one and in batches, with one thread and with two.
Status MeasureBatches(const Index& index, const std::string& name, const test::VectorSet& queries,
                      const IndexPartOptions& options, Report* report);

// An index file, mapped: the time to open it, the first query, what each of four processes has of its pages, batches.
Status MeasureMapped(const std::string& path, const test::VectorSet& queries, const IndexPartOptions& options,
                     Report* report);

// The exact kind, beside a plain sum over the same bytes.
Status MeasureFlat(const test::VectorSet& base, Metric metric, const test::VectorSet& queries,
                   const IndexPartOptions& options, Report* report);

// Rows that are added to a half of them: alone and beside hnswlib, while searches go on, and the time of each Insert.
Status MeasureLiveAdds(const test::VectorSet& base, const test::VectorSet& queries, const HnswOptions& hnsw, bool peer,
                       const IndexPartOptions& options, Report* report);

// An index file opened twice, with its re-rank rows in memory and in a file of `directory`: memory, and recall beside.
Status MeasureResident(const std::string& file, const std::string& directory, HnswOptions hnsw,
                       const test::VectorSet& queries, const std::vector<std::vector<Label>>& truth,
                       const IndexPartOptions& options, Report* report);

// Synthetic sets of these sizes, each in clusters of 500: what a query costs at one recall, and the line through the
// logarithms of the sizes.
Status MeasureGrowth(const std::vector<std::size_t>& sizes, int dim, std::size_t query_count, HnswOptions hnsw,
                     const IndexPartOptions& options, Report* report);

}  // namespace freshet::bench
