#include <algorithm>
#include <array>
#include <bit>
#include <optional>

#include "code_scan.h"
#include "freshet/indexer/effort.h"
#include "scoring.h"
#include "search_view.h"

namespace freshet {
namespace {

// What a search costs, about, in nanoseconds at 128 dimensions; only the ratios matter.
constexpr double kStepNs = 550;         // of a walk through the graph, for each candidate of its width
constexpr double kTestLabelNs = 1;      // a scan, for each row that is live
constexpr double kTestBitNs = 0.02;     // where it is known what matches
constexpr double kScanRowNs = 16;       // and for each of those that may be returned, where they lie together
constexpr double kScanRowApartNs = 27;  // ... and far from each other
// Where less of what is near the query matches than this part of what does elsewhere, a walk misses some of what is
// further away: a scan, which does not, may cost so much more.
constexpr double kFar = 0.5;
constexpr double kScanIsWorth = 2;
// Behind a list that ends a walk may soon be over: until it has cost this part of a scan it goes on.
constexpr double kTried = 0.25;
constexpr double kMostMatch = 0.75;  // of the rows
constexpr std::size_t kFilterSamples = 128;
constexpr std::size_t kFilterWords = 4096;  // of 64 rows each, where what matches is known
constexpr std::size_t kFirstSamples = 32;
constexpr std::size_t kRescoredAtLeast = 32;
// Times k: far from the query rows lie closer to each other than codes can tell.
constexpr std::size_t kScanRescores = 2;
constexpr std::size_t kMostBehind = 4096;  // more rows than those, at most, for what lies before the best
constexpr double kWiden = 0.5;             // of a search that came short, at most
constexpr std::size_t kTogether = 8;       // queries of a batch

// How many rows at most may not be returned, free slots among them; kUnknown: any number.
std::size_t RefusedAtMost(const SearchView& view, const SearchOptions& options) {
  if (!options.attributes.empty()) return LabelFilter::kUnknown;
  const std::size_t refused = options.filter == nullptr ? 0 : options.filter->RefusesAtMost();
  return refused > view.used ? LabelFilter::kUnknown : refused + view.dead_count;
}

// About how many of the graph's nodes may be returned, from a sample, or since not many can be refused.
double MatchingShare(const SearchView& view, const SearchOptions& options) {
  if (options.exact || (!IsFiltered(options) && view.dead_count == 0)) return 1;
  if (options.filter != nullptr && view.used > 0) {
    const std::size_t refused = RefusedAtMost(view, options);
    const double share = 1 - static_cast<double>(std::min(refused, view.used)) / static_cast<double>(view.used);
    if (share >= kMostMatch) return share;
  }
  std::size_t nodes = 0;
  std::size_t matching = 0;
  if (view.allowed != nullptr && options.attributes.empty()) {
    const std::size_t words = std::min((view.used + 63) / 64, view.allowed->size());
    const std::size_t step = words / kFilterWords + 1;
    for (std::size_t w = 0; w < words; w += step) {
      const std::uint64_t live = view.LiveOf(w * 64);
      nodes += static_cast<std::size_t>(std::popcount(live));
      matching += static_cast<std::size_t>(std::popcount(live & (*view.allowed)[w]));
    }
    return static_cast<double>(matching) / static_cast<double>(std::max<std::size_t>(nodes, 1));
  }
  if (options.scan) return 1;
  const auto look = [&](std::size_t samples) {
    for (std::size_t i = 0; i < samples; ++i) {
      const std::size_t slot = i * view.used / samples;
      if (!view.IsNode(slot)) continue;
      ++nodes;
      if (!view.IsDead(slot) && view.Admits(slot, options)) ++matching;
    }
  };
  // Where nearly all of a few match, more of them would only cost: a search that comes short goes on.
  look(std::min(view.used, kFirstSamples));
  if (4 * matching < 3 * nodes) look(std::min(view.used, kFilterSamples));
  return static_cast<double>(matching) / static_cast<double>(std::max<std::size_t>(nodes, 1));
}

std::vector<Hit> ScanAll(const SearchView& view, const float* query, const SearchOptions& options) {
  TopK top(options);
  if (!IsFiltered(options)) {
    for (std::size_t slot = 0; slot < view.used; ++slot) {
      if (!view.IsDead(slot)) top.Offer(view.labels[slot], view.Score(query, slot));
    }
    return top.Take();
  }
  // What may not be returned is asked for before it is scored, as a label costs less to look at than a row; or, where
  // what matches is known, of what is good enough. Some slots ahead, so that rows far from each other are on their way.
  SearchOptions allowed = options;
  if (view.allowed == nullptr) allowed.filter = nullptr;
  TopK of_allowed(allowed);
  constexpr std::size_t kAhead = 8;
  std::array<std::uint32_t, kAhead> coming{};
  std::size_t count = 0;
  const auto score = [&](std::uint32_t slot) { of_allowed.Offer(view.labels[slot], view.Score(query, slot)); };
  for (std::size_t slot = 0; slot < view.used; ++slot) {
    if (view.IsDead(slot)) continue;
    const bool known = view.allowed != nullptr;
    if (known ? !view.HasBit(slot) || !view.HasFitting(slot, options.attributes) : !view.Admits(slot, options))
      continue;
    std::uint32_t& place = coming[count % kAhead];
    if (count++ >= kAhead) score(place);
    place = static_cast<std::uint32_t>(slot);
    view.Prefetch(place);
  }
  for (std::size_t i = 0; i < std::min(count, kAhead); ++i) score(coming[i]);
  return of_allowed.Take();
}

// One query on its way. A search allocates little once this is warm.
class Asking {
 public:
  // False: a scan is cheaper.
  bool Begin(const SearchView& view, const float* query, const SearchOptions& options, double share) {
    view_ = &view;
    query_ = query;
    options_ = &options;
    const std::size_t rows = view.used - view.dead_count;
    const std::size_t wanted = EffortOf(options.ef, options.k, rows);
    // The codes put nearly everything in its place: a few more than k are enough to score exactly.
    rescored_ = std::min(wanted, options.k + std::max(options.k / 4, kRescoredAtLeast));
    share_ = share;
    refused_ = RefusedAtMost(view, options);
    expected_ = WalkWidth(options.ef, options.k, rows, share);
    const Int8Codes& codes = *view.graph.rows.codes;
    codes_.resize(codes.row_bytes());
    head_ = codes.Encode(query, codes_.data(), nullptr);
    seen_ = matched_ = 0;
    if (options.scan || IsScanCheaper(expected_)) return false;
    const bool widenable = IsFiltered(options) || view.dead_count > 0;
    // Of k candidates, which there must be, only the nearest `ef` are expanded.
    const double expanded =
        options.ef > 0 && options.ef < options.k ? static_cast<double>(options.ef) / static_cast<double>(options.k) : 1;
    // Where fewer match, as if all did: how many of those near the query do says how far to go on, if at all.
    const auto width = share < kMostMatch ? wanted : static_cast<std::size_t>(expected_);
    return view.graph.Begin(codes_.data(), head_, width, expanded, widenable, &walk_);
  }
  // One round of the walk; false when it is over.
  bool Step() { return walk_.Step(view_->graph.base); }
  // After the walk: false when it came short and goes on, wider; `scan` when that would cost more than a scan.
  bool Collect(bool* scan) {
    matching_.clear();
    const SearchView& view = *view_;
    const std::size_t size = walk_.size();
    constexpr std::size_t kAhead = 8;
    // The k-th that may be returned is about the `reach`-th of all at the furthest: the codes misplace more where what
    // is before it is more, dead and excluded ones too.
    std::size_t reach = 0;
    std::size_t needed = 0;  // of them, at least
    std::size_t i = 0;
    for (; i < size && (matching_.size() < rescored_ || i < reach); ++i) {
      if (i + kAhead < size) {
        const std::uint32_t ahead = NodeOf(walk_.pool()[i + kAhead]);
        __builtin_prefetch(view.next_same + ahead);
        view.PrefetchAdmits(ahead, *options_);
      }
      for (std::uint32_t slot = NodeOf(walk_.pool()[i]); slot != kNoSlot; slot = view.NextSame(slot)) {
        if (view.IsDead(slot)) continue;
        if (view.Admits(slot, *options_)) matching_.push_back(slot);
      }
      if (reach == 0 && matching_.size() >= options_->k) {
        reach = i + 1 + std::min((i + 1) / 4, (i + 1) * (rescored_ - options_->k) / options_->k);
        needed = (i + 1 + reach) / 2;
      }
    }
    furthest_ = i > 0 && matching_.size() >= rescored_ ? walk_.pool()[i - 1] | 1 : ~std::uint64_t{0};
    const std::size_t enough = options_->k + (rescored_ - options_->k) / 2;
    if (matching_.size() >= enough && (size >= needed || size < walk_.width())) return true;
    // Dead or excluded ones gather where the query looks, or few match at all: then the search goes on, to where about
    // enough should be by what was met last. Where nothing is left to be met, what is missing cannot be reached.
    const double seen = static_cast<double>(size - seen_);
    const double met = static_cast<double>(matching_.size() - std::min(matching_.size(), matched_));
    const double missing = matching_.size() < enough ? static_cast<double>(enough - matching_.size()) : 0;
    const double more = missing == 0 ? static_cast<double>(needed - size) : missing * seen / std::max(met, 0.5);
    const auto width = static_cast<double>(walk_.width());
    const double most = std::max(kWiden * static_cast<double>(size), expected_ - width);
    const double next = std::clamp(more, 0.125 * static_cast<double>(size), most) + 1;
    // Behind a list of what is excluded, all may match: there only the next piece is looked at.
    const bool far = missing > 0 && met < kFar * share_ * seen;
    const std::size_t unmatched = size - std::min(size, matching_.size());
    *scan = size < walk_.width() || (!IsFiltered(*options_) && view.dead_count == 0) ||
            IsGoingOnWorse(more, next, missing, unmatched, far);
    if (*scan) {
      // What lies before the best that may be returned lets the codes misplace them more, as above.
      const std::size_t before = refused_ != LabelFilter::kUnknown ? std::max(refused_, unmatched) : unmatched;
      rescored_ = std::max(rescored_, options_->k + std::min(before / 4, kMostBehind));
      return true;
    }
    walk_.Widen(static_cast<std::size_t>(width + next));
    seen_ = size;
    matched_ = matching_.size();
    return false;
  }
  // `fresh` by their codes first, so that only those are scored exactly that the graph would have brought up too.
  std::vector<Hit> Finish(const std::vector<std::uint32_t>& fresh) {
    if (!fresh.empty()) AddFresh(fresh);
    const SearchView& view = *view_;
    constexpr std::size_t kAhead = 16;
    for (std::size_t i = 0; i < std::min(kAhead, matching_.size()); ++i) view.Prefetch(matching_[i]);
    std::vector<Hit> hits;
    hits.reserve(matching_.size());
    for (std::size_t i = 0; i < matching_.size(); ++i) {
      if (i + kAhead < matching_.size()) view.Prefetch(matching_[i + kAhead]);
      hits.push_back({view.labels[matching_[i]], view.Score(query_, matching_[i])});
    }
    return BestOf(std::move(hits), *options_);
  }
  // Instead of all of it, where Begin() or Collect() says so.
  [[nodiscard]] std::vector<Hit> Scan() const {
    return ScanCodes(*view_, query_, *options_, std::max(rescored_, kScanRescores * options_->k));
  }

 private:
  [[nodiscard]] bool IsScanCheaper(double width) const {
    const auto live = static_cast<double>(view_->used - view_->dead_count);
    const double row_ns = share_ * kScanRowNs + (1 - share_) * kScanRowApartNs;
    return width * kStepNs > live * ((view_->allowed != nullptr ? kTestBitNs : kTestLabelNs) + share_ * row_ns);
  }
  // Whether a walk that came short should give way to a scan. `more` candidates are wanted by what was met last, of
  // which `next` come next; so many that may be returned are `missing`, and so many of the pool may not.
  [[nodiscard]] bool IsGoingOnWorse(double more, double next, double missing, std::size_t unmatched, bool far) const {
    const auto width = static_cast<double>(walk_.width());
    if (refused_ == LabelFilter::kUnknown) {
      return IsScanCheaper((far ? kScanIsWorth : 1) * (share_ < kMostMatch ? std::max(more, next) : width + next));
    }
    // Behind what is refused yet, all match.
    const double behind = missing + static_cast<double>(refused_ - std::min(refused_, unmatched));
    return IsScanCheaper(width + std::min(std::max(more, next), behind)) && IsScanCheaper((width + next) / kTried);
  }
  // The best of the fresh rows into matching_, each slot once: one may have been linked meanwhile.
  void AddFresh(const std::vector<std::uint32_t>& fresh) {
    constexpr std::size_t kPiece = 64;
    const SearchView& view = *view_;
    const CodeRows& rows = view.graph.rows;
    const std::size_t row_bytes = rows.codes->row_bytes();
    keys_.clear();
    for (std::size_t begin = 0; begin < fresh.size(); begin += kPiece) {
      const std::size_t count = std::min(kPiece, fresh.size() - begin);
      std::array<std::int32_t, kPiece> dots;
      rows.codes->Dots(codes_.data(), rows.rows, fresh.data() + begin, count, dots.data());
      const std::size_t end = std::min(begin + 2 * kPiece, fresh.size());
      for (std::size_t i = begin + count; i < end; ++i) {
        const std::int8_t* row = rows.rows + std::size_t{fresh[i]} * row_bytes;
        for (std::size_t at = 0; at < row_bytes; at += 64) __builtin_prefetch(row + at);
        __builtin_prefetch(rows.heads + fresh[i]);
      }
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t slot = fresh[begin + i];
        const std::uint64_t key = CandidateKey(rows.codes->Distance(dots[i], head_, rows.heads[slot]), slot);
        if (key > furthest_ || view.IsDead(slot)) continue;
        if (view.Admits(slot, *options_)) keys_.push_back(key);
      }
    }
    if (keys_.size() > rescored_) {
      std::nth_element(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(rescored_), keys_.end());
      keys_.resize(rescored_);
    }
    for (const std::uint64_t key : keys_) matching_.push_back(NodeOf(key));
    std::sort(matching_.begin(), matching_.end());
    matching_.erase(std::unique(matching_.begin(), matching_.end()), matching_.end());
  }
  const SearchView* view_ = nullptr;
  const float* query_ = nullptr;
  const SearchOptions* options_ = nullptr;
  std::size_t rescored_ = 0;
  double share_ = 1;                             // of the nodes match
  std::size_t refused_ = LabelFilter::kUnknown;  // of the rows, at most
  double expected_ = 0;                          // as wide as a walk should have to be
  std::vector<std::int8_t> codes_;
  CodeHead head_;
  GraphWalk walk_;
  std::vector<std::uint32_t> matching_;
  std::uint64_t furthest_ = 0;  // a fresh row beyond this candidate is none; no bound while there are too few
  std::vector<std::uint64_t> keys_;
  std::size_t seen_ = 0;     // of the walk's pool, when it was last too narrow
  std::size_t matched_ = 0;  // and of them, those that may be returned
};

}  // namespace

std::vector<Hit> SearchGraph(const SearchView& view, const std::vector<std::uint32_t>& fresh, const float* query,
                             const SearchOptions& options) {
  thread_local Asking asking;
  if (options.exact) return ScanAll(view, query, options);
  bool scan = !asking.Begin(view, query, options, MatchingShare(view, options));
  while (!scan) {
    while (asking.Step()) {
    }
    if (asking.Collect(&scan)) break;
  }
  return scan ? asking.Scan() : asking.Finish(fresh);
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
  const double share = MatchingShare(view, options);
  std::size_t next = 0;
  // Puts the next query that needs no scan into a lane; false when none is left.
  const auto fill = [&](Lane* lane) {
    for (; next < count; ++next) {
      const float* query = queries.data() + next * dim;
      if (!options.exact && lane->asking.Begin(view, query, options, share)) {
        lane->query = next++;
        return true;
      }
      answers[next] = options.exact ? ScanAll(view, query, options) : lane->asking.Scan();
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
      answers[lane.query] = scan ? lane.asking.Scan() : lane.asking.Finish(fresh);
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
