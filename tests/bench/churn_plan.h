// What happens to an index in `freshet_bench churn`, step by step, the same for every contender.
//
// Labels are fresh numbers, never reused: a row that comes back, or a tag whose vector is replaced, gets a new one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/indexer/index.h"

namespace freshet::bench {

struct ChurnStep {
  enum class Kind { kInsert, kDelete, kSearch };
  Kind kind = Kind::kSearch;
  std::vector<Label> labels;
};

struct ChurnPlan {
  std::string name;
  std::vector<ChurnStep> steps;
  std::vector<std::uint32_t> row_of;  // by label: which vector it has
  std::size_t live = 0;               // at the end
  std::size_t max_live = 0;
  std::size_t max_slots = 0;  // that reusing the slots of the dead needs, when each step is done as it is written
};

// A runbook of the NeurIPS'23 streaming track: the first data set of the file, scaled so that its points are `rows`.
[[nodiscard]] Result<ChurnPlan> ReadRunbook(const std::string& path, const std::string& name, std::size_t rows);

// At most `live` rows (but for the size of a group) are live; whole groups die, picked at random, and others come,
// until `times` * `live` rows have. A search after each `live`. `group_of` by row.
[[nodiscard]] ChurnPlan Turnover(const std::string& name, const std::vector<std::uint32_t>& group_of, std::size_t live,
                                 std::size_t times, std::uint64_t seed);

// The rows in their order, again and again: the newest `live` of them are live.
[[nodiscard]] ChurnPlan Drift(const std::string& name, std::size_t rows, std::size_t live, std::size_t times);

}  // namespace freshet::bench
