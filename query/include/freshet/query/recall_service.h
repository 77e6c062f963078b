// The best K items for this user now: the query path without a protocol.
//
// Place in the flow: the right end; HTTP calls it, a C++ recommender may call it directly. Thread-safe: any number of
// threads. Reads one Replica (index + store) and runs only the user tower. One embedding space per answer: a user tower
// of another space than the replica's is refused. Errors: kInvalidArgument (the message starts with the field's JSON
// pointer), kNotFound (an unknown item), kUnavailable (no user tower, space mismatch), kDeadlineExceeded. An unknown
// user is answered, marked as degraded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/encoder/encoder.h"
#include "freshet/store/replica.h"

namespace freshet {

inline constexpr std::size_t kMaxK = 1000;
inline constexpr std::size_t kMaxExcludeIds = 4096;
inline constexpr std::size_t kMaxEf = 10'000;
inline constexpr std::int64_t kMaxTimeoutMs = 60'000;

struct RecallRequest {
  // Exactly one of:
  std::optional<std::string> user;
  std::optional<std::string> item;
  std::optional<std::vector<float>> vector;
  std::size_t k = 100;
  std::vector<std::string> exclude_ids;
  bool exclude_seen = false;  // REQUIRES user
  std::size_t ef = 0;
  bool exact = false;
  bool with_attributes = false;
  std::optional<float> score_threshold;
  std::int64_t timeout_ms = 0;   // from the call on; 0: none
  std::int64_t deadline_us = 0;  // monotonic; 0: none. The earlier of the two holds
};

struct RecallHit {
  std::string id;
  float score = 0;
  Attributes attributes;  // where asked for
};

struct RecallResponse {
  std::vector<RecallHit> results;   // descending score, each id once, min(k, live matching)
  std::uint64_t index_version = 0;  // sequence
  std::string model_version;        // embedding space id
  std::int64_t as_of_ms = 0;
  double took_ms = 0;
  std::string degraded;  // empty, or why the answer is not personal: "unknown_user", "no_history"
};

struct ItemView {
  std::string id;
  bool live = false;  // may be in answers
  Attributes attributes;
  std::uint64_t index_version = 0;
};

class RecallService {
 public:
  // `user_encoder` may be null (vector and item queries only). All outlive the service.
  RecallService(const Replica* replica, const UserEncoder* user_encoder, const Clock* clock, Metrics* metrics);
  [[nodiscard]] Result<RecallResponse> Recall(const RecallRequest& request) const;
  // What is stored of one item. Errors: kInvalidArgument (not an id), kNotFound.
  [[nodiscard]] Result<ItemView> GetItem(std::string_view item_id) const;

 private:
  struct Query;  // the request made searchable
  Status ResolveItem(const RecallRequest& request, Query* query) const;
  Status ResolveUser(const RecallRequest& request, Query* query) const;
  Status ResolveVector(const RecallRequest& request, Query* query) const;
  void Exclude(const RecallRequest& request, Query* query) const;
  Status Search(const RecallRequest& request, const Query& query, RecallResponse* response) const;
  Result<std::size_t> SearchOnce(const SearchOptions& options, const Query& query, std::vector<RecallHit>* hits) const;
  [[nodiscard]] std::size_t Expected(const RecallRequest& request, const Query& query) const;
  Status CheckDeadline(const Query& query, const char* stage) const;

  const Replica* const replica_;
  const UserEncoder* const user_encoder_;
  const Clock* const clock_;
  Histogram& seconds_;
  Counter& short_answers_;
  Counter& degraded_;
};

}  // namespace freshet
