#include <algorithm>
#include <array>
#include <optional>

#include "scoring.h"
#include "search_view.h"

namespace freshet {
namespace {

// A graph search jumps about in memory, a scan does not: beyond this share of the live rows the scan is cheaper.
constexpr std::size_t kScanFactor = 16;
constexpr std::size_t kFilterSamples = 128;
constexpr std::size_t kRescoredAtLeast = 32;
constexpr std::size_t kTogether = 8;  // queries of a batch

// About how many of the graph's nodes may be returned, from a sample.
double MatchingShare(const SearchView& view, const LabelFilter* filter) {
  if (filter == nullptr && view.dead_count == 0) return 1;
  const std::size_t samples = std::min(view.used, kFilterSamples);
  std::size_t nodes = 0;
  std::size_t matching = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    const std::size_t slot = i * view.used / samples;
    if (!view.IsNode(slot)) continue;
    ++nodes;
    if (!view.IsDead(slot) && (filter == nullptr || filter->Allows(view.labels[slot]))) ++matching;
  }
  return static_cast<double>(matching) / static_cast<double>(std::max<std::size_t>(nodes, 1));
}

std::vector<Hit> ScanAll(const SearchView& view, const float* query, const SearchOptions& options) {
  TopK top(options);
  for (std::size_t slot = 0; slot < view.used; ++slot) {
    if (!view.IsDead(slot)) top.Offer(view.labels[slot], view.Score(query, slot));
  }
  return top.Take();
}

// One query on its way. A search allocates little once this is warm.
class Asking {
 public:
  // False: a scan is cheaper.
  bool Begin(const SearchView& view, const float* query, const SearchOptions& options, double share) {
    view_ = &view;
    query_ = query;
    options_ = &options;
    const std::size_t wanted =
        options.ef > 0 ? std::max(options.ef, options.k) : std::max(options.k + options.k / 2, std::size_t{64});
    width_ = static_cast<double>(wanted) / std::max(share, 1e-9);
    // The codes put nearly everything in its place: a few more than k are enough to score exactly.
    rescored_ = std::min(wanted, options.k + std::max(options.k / 4, kRescoredAtLeast));
    const Int8Codes& codes = *view.graph.rows.codes;
    codes_.resize(codes.row_bytes());
    head_ = codes.Encode(query, codes_.data(), nullptr);
    return Walk();
  }
  // One round of the walk; false when it is over.
  bool Step() { return walk_.Step(view_->graph.base); }
  // After the walk: false when it came short and walks again, wider; `scan` when that would cost more than a scan.
  bool Collect(bool* scan) {
    matching_.clear();
    const SearchView& view = *view_;
    for (std::size_t i = 0; i < walk_.size() && matching_.size() < rescored_; ++i) {
      for (std::uint32_t slot = NodeOf(walk_.pool()[i]); slot != kNoSlot; slot = view.NextSame(slot)) {
        if (view.IsDead(slot)) continue;
        if (options_->filter == nullptr || options_->filter->Allows(view.labels[slot])) matching_.push_back(slot);
      }
    }
    // Dead or excluded ones gather where the query looks: then the search widens.
    if (matching_.size() >= options_->k + (rescored_ - options_->k) / 2) return true;
    width_ *= 2;
    *scan = !Walk();
    return *scan;
  }
  std::vector<Hit> Finish(const std::vector<std::uint32_t>& fresh) {
    if (!fresh.empty()) {
      std::erase_if(matching_,
                    [&](std::uint32_t slot) { return std::binary_search(fresh.begin(), fresh.end(), slot); });
    }
    const SearchView& view = *view_;
    constexpr std::size_t kAhead = 8;
    for (std::size_t i = 0; i < std::min(kAhead, matching_.size()); ++i) Prefetch(matching_[i]);
    std::vector<Hit> hits;
    hits.reserve(matching_.size());
    for (std::size_t i = 0; i < matching_.size(); ++i) {
      if (i + kAhead < matching_.size()) Prefetch(matching_[i + kAhead]);
      hits.push_back({view.labels[matching_[i]], view.Score(query_, matching_[i])});
    }
    TopK top(*options_);
    top.Fill(std::move(hits));
    for (const std::uint32_t slot : fresh) {
      if (!view.IsDead(slot)) top.Offer(view.labels[slot], view.Score(query_, slot));
    }
    return top.Take();
  }

 private:
  bool Walk() {
    const SearchView& view = *view_;
    const auto live = static_cast<double>(view.used - view.dead_count);
    if (width_ * kScanFactor > live) return false;
    return view.graph.Begin(codes_.data(), head_, static_cast<std::size_t>(width_), &walk_);
  }
  void Prefetch(std::size_t slot) const {
    const std::size_t row_bytes = view_->reranker->row_bytes();
    const std::byte* row = view_->rerank_rows + slot * row_bytes;
    for (std::size_t at = 0; at < std::min<std::size_t>(row_bytes, 512); at += 64) __builtin_prefetch(row + at);
    __builtin_prefetch(view_->labels + slot);
  }

  const SearchView* view_ = nullptr;
  const float* query_ = nullptr;
  const SearchOptions* options_ = nullptr;
  double width_ = 0;
  std::size_t rescored_ = 0;
  std::vector<std::int8_t> codes_;
  CodeHead head_;
  GraphWalk walk_;
  std::vector<std::uint32_t> matching_;
};

}  // namespace

std::vector<Hit> SearchGraph(const SearchView& view, const std::vector<std::uint32_t>& fresh, const float* query,
                             const SearchOptions& options) {
  thread_local Asking asking;
  bool scan = options.exact || !asking.Begin(view, query, options, MatchingShare(view, options.filter));
  while (!scan) {
    while (asking.Step()) {
    }
    if (asking.Collect(&scan)) break;
  }
  return scan ? ScanAll(view, query, options) : asking.Finish(fresh);
}

std::vector<std::vector<Hit>> SearchGraphMany(const SearchView& view, const std::vector<std::uint32_t>& fresh,
                                              std::span<const float> queries, std::size_t dim,
                                              const SearchOptions& options) {
  struct Lane {
    Asking asking;
    std::size_t query = 0;
  };
  thread_local std::array<Lane, kTogether> lanes;
  const std::size_t count = queries.size() / dim;
  std::vector<std::vector<Hit>> answers(count);
  const double share = MatchingShare(view, options.filter);
  std::size_t next = 0;
  // Puts the next query that needs no scan into a lane; false when none is left.
  const auto fill = [&](Lane* lane) {
    for (; next < count; ++next) {
      const float* query = queries.data() + next * dim;
      if (!options.exact && lane->asking.Begin(view, query, options, share)) {
        lane->query = next++;
        return true;
      }
      answers[next] = ScanAll(view, query, options);
    }
    return false;
  };
  std::size_t busy = 0;
  while (busy < kTogether && fill(&lanes[busy])) ++busy;
  std::array<std::size_t, kTogether> order{};
  for (std::size_t i = 0; i < kTogether; ++i) order[i] = i;
  while (busy > 0) {
    for (std::size_t i = 0; i < busy;) {
      Lane& lane = lanes[order[i]];
      bool scan = false;
      if (lane.asking.Step() || !lane.asking.Collect(&scan)) {
        ++i;
        continue;
      }
      const float* query = queries.data() + lane.query * dim;
      answers[lane.query] = scan ? ScanAll(view, query, options) : lane.asking.Finish(fresh);
      if (fill(&lane)) {
        ++i;
      } else {
        std::swap(order[i], order[--busy]);
      }
    }
  }
  return answers;
}

}  // namespace freshet
