// The best K items for this user now: the query path without a protocol.
//
// Place in the flow: the right end; HTTP calls it, a C++ recommender may call it directly. Thread-safe: any number of
// threads. Reads one Replica (index + store) and runs only the user tower. One embedding space per answer: a user tower
// of another space than the replica's is refused. Errors: kInvalidArgument (the message starts with the field's JSON
// pointer), kNotFound (an unknown item), kUnavailable (no user tower, space mismatch), kDeadlineExceeded. A user
// of whom nothing is known gets the popular items, marked as degraded, without a tower too.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/encoder/reranker.h"
#include "freshet/store/replica.h"

namespace freshet {

inline constexpr std::size_t kMaxK = 1000;
inline constexpr std::size_t kMaxExcludeIds = 4096;
inline constexpr std::size_t kMaxEf = 10'000;
inline constexpr std::int64_t kMaxTimeoutMs = 60'000;
inline constexpr std::size_t kMaxExamples = 100;     // `items`, and `negative`
inline constexpr std::size_t kMaxHistory = 1000;     // of an override
inline constexpr std::size_t kMaxPerAttributes = 4;  // `max_per`
inline constexpr std::size_t kMaxScoreIds = 1000;
inline constexpr std::size_t kMaxRerankCandidates = 4 * kMaxK;
inline constexpr double kMaxWeight = 1e6;
inline constexpr double kMaxHalfLifeHours = 24.0 * 366 * 100;

// score = similarity * s + popularity * ln(1 + p) + recency * 2^(-age / half-life), in place of s alone. s: the
// similarity. p: the decayed count of interactions (see Popularity). The age is that at the answer's `as_of`.
struct BlendWeights {
  double similarity = 1;
  double popularity = 0;
  double recency = 0;
  // An attribute that holds an RFC 3339 timestamp; items without one have no recency. Empty: when the item last
  // changed, by log time.
  std::string recency_of;
  double half_life_hours = 24 * 7;
};

// The best `candidates` of the recall are scored once more, and the best k of them answered.
struct RerankOptions {
  std::size_t candidates = 0;  // k to kMaxRerankCandidates; 0: 4 k, at least 200
};

struct RecallRequest {
  // Exactly one of user, item, items, vector:
  std::optional<std::string> user;        // may be nothing when features or history are given: a user whom nobody knows
  std::optional<Features> user_features;  // in place of what is stored
  std::optional<std::vector<HistoryEntry>> user_history;  // in place of what is stored; oldest first
  std::optional<std::string> item;
  std::vector<std::string> items;     // like these ...
  std::vector<std::string> negative;  // ... and not like those. REQUIRES item or items
  std::optional<std::vector<float>> vector;
  std::size_t k = 100;
  std::optional<Filter> filter;
  std::vector<std::pair<std::string, std::size_t>> max_per;  // attribute, and how many of each of its values
  std::vector<std::string> exclude_ids;
  bool exclude_seen = false;  // REQUIRES user
  std::size_t ef = 0;
  bool exact = false;
  bool with_attributes = false;
  std::optional<float> score_threshold;  // of the blended score where there are weights
  // The best by the weighted sum among the 4 k (at least 200) most similar. Popular items are answered as they are.
  std::optional<BlendWeights> weights;
  // By the package's re-ranker. REQUIRES no weights. Score thresholds are of the recall's scores. Where it fails, or
  // there is none, the recall's order is answered, marked as degraded. Popular items are answered as they are.
  std::optional<RerankOptions> rerank;
  bool explain = false;
  std::int64_t min_as_of_ms = 0;  // waits for an answer at least this fresh, within the deadline
  std::int64_t timeout_ms = 0;    // from the call on; 0: none
  std::int64_t deadline_us = 0;   // monotonic; 0: none. The earlier of the two holds
};

// What a blended score is the weighted sum of.
struct ScoreParts {
  float similarity = 0;
  float popularity = 0;
  float recency = 0;
};

struct RecallHit {
  std::string id;
  float score = 0;
  Attributes attributes;                 // where asked for
  std::optional<ScoreParts> parts = {};  // with weights, where an explanation is asked for
  std::optional<float> similarity = {};  // re-ranked, likewise: the recall's score
};

// How an answer came about.
struct Explanation {
  std::string path;                     // "graph", "scan", "set" (see Planner in recall_search.cc), "popularity"
  std::size_t live = 0;                 // items
  std::size_t matching = 0;             // what is left of them after the filter and the exclusions
  std::size_t candidates = 0;           // scored and looked at
  std::size_t searches = 0;             // more than one: repeated with more room, or for `max_per`
  std::optional<std::size_t> reranked;  // with `rerank`: how many were scored once more
  std::vector<std::pair<std::string, double>> stage_ms;
};

struct RecallResponse {
  std::vector<RecallHit> results;   // descending score, each id once, min(k, live matching)
  std::uint64_t index_version = 0;  // sequence
  std::string model_version;        // embedding space id
  std::int64_t as_of_ms = 0;
  double took_ms = 0;
  // Empty, or why the answer is less than it could be: not re-ranked as was asked ("rerank", which goes before
  // what follows), not personal ("popularity", "no_history"), or short of k because the search for other values was
  // given up ("max_per", which goes before "no_history").
  std::string degraded;
  std::optional<Explanation> explanation;
};

struct ItemView {
  std::string id;
  bool live = false;  // may be in answers
  // Why not: "partition_elsewhere" (another engine of the group owns it), "not_visible_yet" (committed this moment).
  // Empty where it is live. What is unknown or deleted is kNotFound: of a deleted item nothing is kept.
  std::string not_live;
  std::uint64_t sequence = 0;                // of its last change: its answers' index_version is at least that
  std::optional<std::int64_t> changed_ms{};  // log time of that
  Attributes attributes;
  std::optional<std::vector<float>> vector;  // while it is live
  std::uint64_t index_version = 0;
};

struct UserView {
  std::string id;
  UserState state;
  std::uint64_t index_version = 0;
};

struct ScoreResponse {
  RecallResponse answer;             // the ids that are live, by descending score
  std::vector<std::string> unknown;  // the others, in the order they were given
};

// What one answer may take.
struct RecallLimits {
  std::size_t max_attribute_bytes = std::size_t{32} << 20;  // of all its results, estimated; more: kInvalidArgument
};

class RecallService {
 public:
  // `user_encoder` may be null: then vector and item queries, and users of whom nothing is known. All outlive the
  // service, as does `reranker`, which may be null too.
  RecallService(const Replica* replica, const UserEncoder* user_encoder, const Clock* clock, Metrics* metrics,
                const RecallLimits& limits = {}, const Reranker* reranker = nullptr);
  // A `min_as_of_ms` that is not reached yet blocks the caller; who does not want that asks as_of_ms() first.
  [[nodiscard]] Result<RecallResponse> Recall(const RecallRequest& request) const;
  // How fresh an answer would be now; 0: not known yet.
  [[nodiscard]] std::int64_t as_of_ms() const { return replica_->as_of_ms(); }
  // What is stored of one item. Errors: kInvalidArgument (not an id), kNotFound.
  [[nodiscard]] Result<ItemView> GetItem(std::string_view item_id) const;

  // What is known of a user. Errors: kInvalidArgument, kNotFound.
  [[nodiscard]] Result<UserView> GetUser(std::string_view user_id) const;
  // The scores of these items for a request's target, whoever found them; its k, filter and exclusions are not looked
  // at.
  [[nodiscard]] Result<ScoreResponse> Score(const RecallRequest& request, const std::vector<std::string>& ids) const;

 private:
  struct Query;  // the request made searchable
  Status Begin(const RecallRequest& request, std::int64_t start_us, Query* query, RecallResponse* response) const;
  Status Resolve(const RecallRequest& request, Query* query) const;
  Status ResolveItems(const RecallRequest& request, Query* query) const;
  Status AddVector(const std::string& item, const std::string& pointer, float weight, Query* query) const;
  Status CheckSpace() const;  // of the user tower, which is there
  Status ResolveUser(const RecallRequest& request, Query* query) const;
  Status ResolveVector(const RecallRequest& request, Query* query) const;
  void Exclude(const RecallRequest& request, Query* query) const;
  Status ReadAttributes(const Query& query, std::vector<RecallHit>* results) const;

  // recall_diverse.cc:
  Status SearchPopular(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const;
  Status SearchDiverse(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const;

  // recall_search.cc:
  Status Search(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const;
  Status SearchBest(const RecallRequest& request, const Filter* filter, Query* query,
                    std::vector<RecallHit>* results) const;
  Status SearchSimilar(const RecallRequest& request, const Filter* filter, Query* query,
                       std::vector<RecallHit>* results) const;
  Status SearchFiltered(const RecallRequest& request, const Filter& filter, Query* query,
                        std::vector<RecallHit>* results) const;
  Status SearchUnfiltered(const RecallRequest& request, Query* query, std::vector<RecallHit>* results) const;
  Status ScoreSet(const Catalog::Selection& selection, const Filter& filter, Query* query,
                  std::vector<RecallHit>* results) const;
  Result<std::vector<Hit>> SearchIndex(const SearchOptions& options, Query* query) const;
  Result<std::size_t> SearchOnce(const SearchOptions& options, const Filter* filter, Query* query,
                                 std::vector<RecallHit>* hits) const;
  [[nodiscard]] float ScoreOf(const std::vector<float>& query, const std::vector<float>& item) const;
  [[nodiscard]] std::size_t Expected(const Query& query) const;
  Status CheckDeadline(const Query& query, const char* stage) const;

  // recall_blend.cc: from similarities to blended scores. REQUIRES: request.weights.
  Status Blend(const RecallRequest& request, const Query& query, std::vector<RecallHit>* hits) const;
  Result<std::vector<double>> Recencies(const BlendWeights& weights, const Query& query,
                                        const std::vector<std::string>& ids) const;

  // recall_rerank.cc: from the recall's scores to the re-ranker's. REQUIRES: PrepareReranking(). Where it fails, the
  // scores stay, and the query says so.
  Status Rerank(const RecallRequest& request, Query* query, std::vector<RecallHit>* hits) const;
  Result<std::vector<RerankCandidate>> CandidatesOf(const Query& query, std::vector<RecallHit>* hits) const;
  // Whether to re-rank; notes where it was asked for and cannot be.
  bool PrepareReranking(const RecallRequest& request, Query* query) const;
  void GiveUpReranking(const std::string& reason, Query* query) const;

  const Replica* const replica_;
  const UserEncoder* const user_encoder_;
  const Reranker* const reranker_;
  const Clock* const clock_;
  const RecallLimits limits_;
  Histogram& seconds_;
  Histogram& resolve_seconds_;
  Histogram& search_seconds_;
  Histogram& rerank_seconds_;
  Histogram& attributes_seconds_;
  Counter& short_answers_;
  Counter& degraded_;
  Counter& rerank_failures_;
  mutable std::atomic<std::int64_t> rerank_logged_us_{0};  // when a failure was last told
};

}  // namespace freshet
