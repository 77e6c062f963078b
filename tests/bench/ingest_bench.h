// freshet_bench ingest: from Apache Kafka to typed events, beside kcat and a bare poll loop.
#pragma once

#include <cstdint>

#include "bench.h"
#include "freshet/core/status.h"

namespace freshet::bench {

struct IngestBenchOptions {
  std::int64_t records = 1'000'000;
  std::int32_t partitions = 4;
  std::size_t rounds = 5;
  bool quick = false;
};

// Starts a broker of its own (deploy/kafka/broker). kcat's row is left out, with a message, where there is no kcat.
[[nodiscard]] Result<Report> RunIngestBench(const IngestBenchOptions& options);

// Calls of operator new in this process so far.
[[nodiscard]] std::uint64_t Allocations();

}  // namespace freshet::bench
