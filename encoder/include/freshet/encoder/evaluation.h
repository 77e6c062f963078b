// Judging recommendations against held-out interactions.
//
// Place in the flow: `freshet evaluate`; off the stream. Every system, the model and the baselines alike, scores every
// candidate for every user of the judged part, and one code ranks and counts: full ranking, no sampled negatives, ties
// broken by chance and not by the order of a file. What a system may use is the history before the judged part. Recall
// is recommendation recall, but in AnnRecall: that is what an index finds of a model's own ranking. Deterministic by
// seed. Thread-safe: calls share nothing but LibTorch's threads, whose number the first package of a process sets.
// Errors: kConfig, kNotFound, kInvalidArgument (nothing to judge, damaged lists), kCorruption (the model), kIoError.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "freshet/core/metric.h"
#include "freshet/core/status.h"
#include "freshet/encoder/split.h"
#include "freshet/ingest/event_file.h"

namespace freshet {

struct EvaluateOptions {
  std::string items_file;
  std::string interactions_file;
  std::string users_file;     // may be empty
  EventFileSchemas schemas;   // of these files
  std::int64_t until_ms = 0;  // only events before this time are seen at all; 0: all
  SplitOptions split;
  bool judge_validation = false;                            // the validation part instead of the test part
  std::vector<std::pair<std::string, std::string>> models;  // name -> package directory
  std::vector<std::pair<std::string, std::string>> lists;   // name -> file of scores or ranked lists
  std::vector<int> ks = {10, 50, 100};
  std::vector<bool> mask_seen = {true, false};  // a table each
  double recent_fraction = 0.1;                 // of the interactions before the judged part: recent popularity
  double head_fraction = 0.2;                   // of the items by popularity: the head; the rest is the tail
  std::int64_t max_users = 0;                   // of the judged part so many, drawn by chance; 0: all
  int resamples = 1000;                         // of the bootstrap over users; 0: no intervals
  std::uint64_t seed = 1;
  int threads = 1;
  std::string write_lists;  // where to write the first model's ranked lists; empty: nowhere
  int ann_users = 1000;  // of the judged ones, drawn by chance, whose exact rankings an index is held against; 0: none
  Status Validate() const;
};

// A figure with its 95% bootstrap interval over users.
struct Measured {
  double value = 0;
  double low = 0;
  double high = 0;
};

struct SystemResult {
  std::string name;
  std::vector<Measured> metrics;              // as EvaluationSlice::metrics
  std::vector<Measured> ratio_to_popularity;  // the same, over popularity's, resampled in pairs; 0 where that is 0
};

// The users and items that a row is about. Ranks are always those among all candidates.
struct EvaluationSlice {
  std::string name;  // all, warm users, cold users, head items, tail items, cold items, new items
  std::int64_t users = 0;
  std::int64_t interactions = 0;
  std::vector<std::string> metrics;  // recall_at_10, hit_rate_at_10, ndcg_at_10, accuracy_at_10, ..., mrr
  std::vector<SystemResult> systems;
};

struct SystemBreadth {
  std::string name;
  double coverage = 0;         // share of the candidates that anybody gets among the largest K
  double mean_popularity = 0;  // mean number of earlier interactions of what is recommended
};

struct EvaluationTable {
  bool seen_masked = false;
  std::vector<EvaluationSlice> slices;
  std::vector<SystemBreadth> breadth;
};

// Of one model: the share of the exact best K items, by its own vectors, that an index finds among its K. It says
// nothing of whether they are worth recommending.
struct AnnRecall {
  std::string system;
  std::int64_t users = 0;      // asked for
  std::vector<double> recall;  // as EvaluateOptions::ks: the mean over users ...
  std::vector<double> lowest;  // ... and that of the worst one
};

struct EvaluationReport {
  std::int64_t items = 0;
  std::int64_t cold_items = 0;
  std::int64_t train_interactions = 0;
  std::int64_t history_interactions = 0;  // before the judged part
  std::int64_t judged_interactions = 0;
  std::int64_t judged_users = 0;  // theirs ...
  std::int64_t drawn_users = 0;   // ... of whom so many were drawn for the tables; all, without a limit
  // Interactions left out, whichever part they would belong to: of items that are not in the file, or were deleted by
  // then; of items that are dated behind the judged part.
  std::int64_t unknown_items = 0;
  std::int64_t later_items = 0;
  std::vector<std::string> warnings;  // of both: what it is and what to do
  std::vector<EvaluationTable> tables;
  std::vector<AnnRecall> ann;  // of each model that embeds users; empty where no index was given
  double seconds = 0;
};

// For each row of `queries` the numbers of at most `k` rows of `items` that an index finds nearest by `metric`, best
// first. Rows are of `dim` floats, prepared. An index: this layer knows none.
using SearchIndex = std::function<Result<std::vector<std::vector<std::int32_t>>>(
    std::span<const float> items, std::span<const float> queries, int dim, Metric metric, int k)>;

// Without `search` no index is judged.
[[nodiscard]] Result<EvaluationReport> Evaluate(
    const EvaluateOptions& options, const std::function<void(double fraction, const std::string&)>& progress,
    const SearchIndex& search = nullptr);

}  // namespace freshet
