// Candidates scored once more by the re-ranker of the model package.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "recall_query.h"

namespace freshet {
namespace {

constexpr std::size_t kDeadlineEvery = 256;
constexpr double kHourMs = 3'600'000;
constexpr std::int64_t kLogEveryUs = 10'000'000;

}  // namespace

Status CheckRerank(const RecallRequest& request) {
  if (request.weights) return InvalidArgument("/rerank: goes without `weights`: one of them makes the scores");
  const std::size_t candidates = request.rerank->candidates;
  if (candidates == 0 || (candidates >= request.k && candidates <= kMaxRerankCandidates)) return Status::Ok();
  return InvalidArgument(
      StrCat("/rerank/candidates: must be between `k` (", request.k, ") and ", kMaxRerankCandidates));
}

bool RecallService::PrepareReranking(const RecallRequest& request, Query* query) const {
  if (!request.rerank || query->popular) return false;
  if (reranker_ == nullptr) {
    GiveUpReranking("the model package has no re-ranker", query);
  } else if (reranker_->space_id() != replica_->space_id() || reranker_->dim() != replica_->dim()) {
    GiveUpReranking(StrCat("the re-ranker is of embedding space ", reranker_->space_id(), ", the items are of ",
                           replica_->space_id()),
                    query);
  } else {
    query->rerank = true;
  }
  return query->rerank;
}

void RecallService::GiveUpReranking(const std::string& reason, Query* query) const {
  query->rerank = false;
  query->rerank_failed = true;
  query->explanation.reranked = 0;
  rerank_failures_.Add();
  const std::int64_t now_us = clock_->MonotonicUs();
  std::int64_t last_us = rerank_logged_us_;
  if (last_us != 0 && now_us - last_us < kLogEveryUs) return;
  if (!rerank_logged_us_.compare_exchange_strong(last_us, now_us)) return;  // another thread says it
  LogWarning("query", "not re-ranked: the recall's order is answered", {{"reason", reason}});
}

// What the catalog no longer knows is gone, and what has no vector goes with it.
Result<std::vector<RerankCandidate>> RecallService::CandidatesOf(const Query& query,
                                                                 std::vector<RecallHit>* hits) const {
  // The log's time where it is known, as for recency.
  const std::int64_t now_ms = query.as_of_ms > 0 ? query.as_of_ms : clock_->WallMs();
  const bool with_features = reranker_->reads_features();
  std::vector<RerankCandidate> candidates;
  std::vector<std::string> ids;
  candidates.reserve(hits->size());
  for (std::size_t i = 0; i < hits->size(); ++i) {
    if (i % kDeadlineEvery == 0) FRESHET_TRY(CheckDeadline(query, "while reading candidates"));
    const std::string& id = (*hits)[i].id;
    FRESHET_ASSIGN(std::optional<std::vector<float>> vector, replica_->GetVector(id));
    if (!vector) continue;
    if (vector->size() != query.vector.size()) return Corruption("a stored vector has another dimension");
    RerankCandidate& one = candidates.emplace_back();
    one.item.item_id = id;
    one.item.vector = std::move(*vector);
    one.similarity = (*hits)[i].score;
    FRESHET_ASSIGN(const std::optional<std::int64_t> changed_ms, replica_->GetChangedMs(id));
    if (changed_ms) {
      const double age_ms = static_cast<double>(now_ms) - static_cast<double>(*changed_ms);
      one.age_hours = static_cast<float>(std::max(0.0, age_ms) / kHourMs);
    }
    if (with_features) {
      FRESHET_ASSIGN(const std::optional<Attributes> attributes, replica_->GetAttributes(id));
      if (attributes) one.item.features = FeaturesOfAttributes(*attributes);
    }
    ids.push_back(id);
  }
  const std::vector<double> counts = replica_->CountsOf(ids);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].popularity = static_cast<float>(std::log1p(counts[i]));
  }
  std::size_t at = 0;
  std::erase_if(*hits, [&](const RecallHit& hit) { return at == ids.size() || hit.id != ids[at] || (++at, false); });
  return candidates;
}

Status RecallService::Rerank(const RecallRequest& request, Query* query, std::vector<RecallHit>* hits) const {
  const std::int64_t begin_us = clock_->MonotonicUs();
  FRESHET_ASSIGN(const std::vector<RerankCandidate> candidates, CandidatesOf(*query, hits));
  std::vector<float> scores(candidates.size());
  const Status scored = reranker_->Score(query->user, query->vector, candidates, scores);
  query->rerank_us += clock_->MonotonicUs() - begin_us;
  FRESHET_TRY(CheckDeadline(*query, "while re-ranking"));
  if (!scored.ok()) {
    GiveUpReranking(scored.ToString(), query);
    return Status::Ok();
  }
  query->explanation.reranked = query->explanation.reranked.value_or(0) + scores.size();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (request.explain) (*hits)[i].similarity = (*hits)[i].score;
    (*hits)[i].score = scores[i];
  }
  return Status::Ok();
}

}  // namespace freshet
