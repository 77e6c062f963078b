// Similarity, popularity and recency as one score.
#include <algorithm>
#include <cmath>
#include <limits>

#include "freshet/core/strings.h"
#include "recall_query.h"

namespace freshet {
namespace {

constexpr std::size_t kMinPool = 200;
constexpr std::size_t kPoolPerResult = 4;
constexpr double kHourMs = 3'600'000;
constexpr std::size_t kDeadlineEvery = 256;

float ToFloat(double value) {
  constexpr double kMost = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -kMost, kMost));
}

}  // namespace

Status CheckWeights(const BlendWeights& weights) {
  const auto check = [](double weight, const char* name) {
    // Written so that NaN does not pass.
    if (std::fabs(weight) <= kMaxWeight) return Status::Ok();
    return InvalidArgument(StrCat("/weights/", name, ": must be between -1000000 and 1000000"));
  };
  FRESHET_TRY(check(weights.similarity, "similarity"));
  FRESHET_TRY(check(weights.popularity, "popularity"));
  FRESHET_TRY(check(weights.recency, "recency"));
  if (!(weights.half_life_hours > 0 && weights.half_life_hours <= kMaxHalfLifeHours)) {
    return InvalidArgument("/weights/half_life_hours: must be above 0, and at most a hundred years");
  }
  return Status::Ok();
}

std::size_t BlendPool(std::size_t k) { return std::max(kPoolPerResult * k, kMinPool); }

Status RecallService::Blend(const RecallRequest& request, const Query& query, std::vector<RecallHit>* hits) const {
  const BlendWeights& weights = *request.weights;
  std::vector<std::string> ids;
  ids.reserve(hits->size());
  for (const RecallHit& hit : *hits) ids.push_back(hit.id);
  std::vector<double> counts(ids.size(), 0.0);
  std::vector<double> recencies(ids.size(), 0.0);
  if (weights.popularity != 0) counts = replica_->CountsOf(ids);
  if (weights.recency != 0) {
    FRESHET_ASSIGN(recencies, Recencies(weights, query, ids));
  }
  for (std::size_t i = 0; i < hits->size(); ++i) {
    RecallHit& hit = (*hits)[i];
    const double popularity = std::log1p(counts[i]);
    if (request.explain) hit.parts = ScoreParts{hit.score, ToFloat(popularity), ToFloat(recencies[i])};
    hit.score = ToFloat(weights.similarity * static_cast<double>(hit.score) + weights.popularity * popularity +
                        weights.recency * recencies[i]);
  }
  if (request.score_threshold) {
    std::erase_if(*hits, [&](const RecallHit& hit) { return hit.score < *request.score_threshold; });
  }
  return Status::Ok();
}

// 1 for what is new, half of it a half-life ago, 0 where nothing is known.
Result<std::vector<double>> RecallService::Recencies(const BlendWeights& weights, const Query& query,
                                                     const std::vector<std::string>& ids) const {
  // The log's time where it is known: a log of last year is then as new as it was.
  const std::int64_t now_ms = query.as_of_ms > 0 ? query.as_of_ms : clock_->WallMs();
  const auto recency = [&](std::int64_t at_ms) {
    const double age_ms = std::max(0.0, static_cast<double>(now_ms) - static_cast<double>(at_ms));
    return std::exp2(-age_ms / (weights.half_life_hours * kHourMs));
  };
  std::vector<double> recencies(ids.size(), 0.0);
  if (!weights.recency_of.empty()) {
    FRESHET_TRY(replica_->catalog().CheckFilterable(weights.recency_of));
    const auto values = replica_->catalog().ValuesOf(ids, weights.recency_of);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      for (const FilterValue& value : values[i]) {
        const auto* text = std::get_if<std::string>(&value);
        const auto at_us = text != nullptr ? ParseTimestampUs(*text) : std::nullopt;
        if (at_us) recencies[i] = std::max(recencies[i], recency(*at_us / 1000));
      }
    }
    return recencies;
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i % kDeadlineEvery == 0) FRESHET_TRY(CheckDeadline(query, "while blending"));
    FRESHET_ASSIGN(const std::optional<std::int64_t> at_ms, replica_->GetChangedMs(ids[i]));
    if (at_ms) recencies[i] = recency(*at_ms);
  }
  return recencies;
}

}  // namespace freshet
