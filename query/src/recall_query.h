// A request made searchable: what recall_service.cc resolves and recall_search.cc and recall_diverse.cc look for.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "freshet/indexer/label_filters.h"
#include "freshet/query/recall_service.h"

namespace freshet {

// Descending score, equal ones by ascending id.
inline bool BetterRecall(const RecallHit& a, const RecallHit& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

// Of weights. Errors: kInvalidArgument.
Status CheckWeights(const BlendWeights& weights);
// How many of the most similar are blended.
[[nodiscard]] std::size_t BlendPool(std::size_t k);

// Of `rerank`, which must be there. Errors: kInvalidArgument.
Status CheckRerank(const RecallRequest& request);

struct RecallService::Query {
  std::vector<float> vector;
  std::vector<std::string> seen;
  std::unordered_set<std::string_view> excluded_ids;  // into the request and into `seen`
  ExcludedLabels excluded_labels;
  std::string degraded;
  bool popular = false;  // there is no vector: nothing is known of the user
  std::int64_t deadline_us = 0;
  std::int64_t as_of_ms = 0;
  std::size_t k = 0;                     // how many the search should bring: more than are asked for, to blend
  std::optional<float> score_threshold;  // of similarities
  UserContext user;                      // for the re-ranker; empty where it is not a user who asks
  bool rerank = false;                   // it is to run
  bool rerank_failed = false;            // it was asked for, and did not
  std::int64_t rerank_us = 0;            // spent in it
  bool fell_short = false;               // a search brought fewer than are asked for, though more were live
  Explanation explanation;
};

}  // namespace freshet
