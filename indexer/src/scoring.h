// What both index kinds share: scores, query checks and the top-k of a scan. Thread-safe.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "distance.h"
#include "freshet/core/status.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index.h"

namespace freshet {

// Higher is better: the inner product for cosine and ip, minus the squared distance for l2.
class Scorer {
 public:
  Scorer(Metric metric, int dim)
      : l2_(metric == Metric::kL2),
        dim_(static_cast<std::size_t>(dim)),
        kernel_(l2_ ? SquaredL2Kernel() : DotKernel()) {}
  [[nodiscard]] float operator()(const float* a, const float* b) const {
    const float value = kernel_(a, b, dim_);
    return l2_ ? -value : value;
  }

 private:
  bool l2_;
  std::size_t dim_;
  DistanceKernel kernel_;
};

struct BetterHit {  // a type, so that sorting inlines it
  bool operator()(const Hit& a, const Hit& b) const {
    return a.score != b.score ? a.score > b.score : a.label < b.label;
  }
};

inline Status CheckQuery(std::span<const float> query, int dim) {
  if (query.size() != static_cast<std::size_t>(dim)) {
    return InvalidArgument(StrCat("the query has ", query.size(), " dimensions, the index ", dim));
  }
  for (const float x : query) {
    if (!std::isfinite(x)) return InvalidArgument("the query holds a number that is not finite");
  }
  return Status::Ok();
}

// `given`: what is for `rows` rows of `words`. Nothing is nothing asked for, or all zero.
inline Status CheckAttributes(std::span<const std::uint64_t> given, std::size_t rows, std::size_t words) {
  if (given.empty() || given.size() == rows * words) return Status::Ok();
  return InvalidArgument(StrCat(given.size(), " words of attributes, not ", rows, " rows of ", words));
}
inline Status CheckMasks(const AttributeMasks& masks, std::size_t words) {
  for (const std::span<const std::uint64_t> mask : {masks.all_of, masks.any_of, masks.none_of}) {
    FRESHET_TRY(CheckAttributes(mask, 1, words));
  }
  return Status::Ok();
}
// REQUIRES: CheckMasks() is well. `row`: one row's words.
[[nodiscard]] inline bool Fits(const std::uint64_t* row, const AttributeMasks& masks) {
  for (std::size_t i = 0; i < masks.all_of.size(); ++i) {
    if ((masks.all_of[i] & ~row[i]) != 0) return false;
  }
  for (std::size_t i = 0; i < masks.none_of.size(); ++i) {
    if ((masks.none_of[i] & row[i]) != 0) return false;
  }
  if (masks.any_of.empty()) return true;
  std::uint64_t common = 0;
  for (std::size_t i = 0; i < masks.any_of.size(); ++i) common |= masks.any_of[i] & row[i];
  return common != 0;
}

// Rows of `dim`.
inline Status CheckQueries(std::span<const float> queries, int dim) {
  const auto width = static_cast<std::size_t>(dim);
  if (queries.size() % width != 0) return InvalidArgument(StrCat("the queries are not rows of ", dim));
  for (std::size_t begin = 0; begin < queries.size(); begin += width) {
    FRESHET_TRY(CheckQuery(queries.subspan(begin, width), dim));
  }
  return Status::Ok();
}

// The best k of `hits`, sorted. REQUIRES: each is live and allowed by the filter.
[[nodiscard]] inline std::vector<Hit> BestOf(std::vector<Hit> hits, const SearchOptions& options) {
  if (options.score_threshold) {
    std::erase_if(hits, [&](const Hit& hit) { return hit.score < *options.score_threshold; });
  }
  if (hits.size() > options.k) {
    std::nth_element(hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(options.k), hits.end(), BetterHit());
    hits.resize(options.k);
  }
  std::sort(hits.begin(), hits.end(), BetterHit());
  return hits;
}

// The best k of what is offered, without keeping more than k.
class TopK {
 public:
  explicit TopK(const SearchOptions& options) : options_(options) {}
  // REQUIRES: the label is live.
  void Offer(Label label, float score) {
    const Hit hit{label, score};
    if (options_.score_threshold && score < *options_.score_threshold) return;
    if (heap_.size() == options_.k && (heap_.empty() || !BetterHit()(hit, heap_.front()))) return;
    if (options_.filter != nullptr && !options_.filter->Allows(label)) return;
    heap_.push_back(hit);
    std::push_heap(heap_.begin(), heap_.end(), BetterHit());
    if (heap_.size() > options_.k) {
      std::pop_heap(heap_.begin(), heap_.end(), BetterHit());
      heap_.pop_back();
    }
  }
  [[nodiscard]] std::vector<Hit> Take() {
    std::sort(heap_.begin(), heap_.end(), BetterHit());
    return std::move(heap_);
  }

 private:
  const SearchOptions& options_;
  std::vector<Hit> heap_;  // the worst on top
};

}  // namespace freshet
