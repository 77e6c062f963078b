#include "code_scan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "scoring.h"

namespace freshet {
namespace {

constexpr std::size_t kPiece = 16;  // rows that are scored at once
constexpr std::size_t kAhead = 32;  // that are on their way meanwhile: as many as are scored are sent for, all the time

// The best so far by their codes, in no order. What is further than the furthest is none.
class BestKeys {
 public:
  explicit BestKeys(std::size_t most) : most_(most) { keys_.reserve(2 * most + kPiece); }
  [[nodiscard]] float furthest() const { return furthest_; }
  // At most kPiece of them before a Trim().
  void Add(std::uint64_t key) { keys_.push_back(key); }
  void Trim() {
    if (keys_.size() >= 2 * most_) Cut();
  }
  [[nodiscard]] const std::vector<std::uint64_t>& Take() {
    if (keys_.size() > most_) Cut();
    return keys_;
  }

 private:
  void Cut() {
    const auto last = keys_.begin() + static_cast<std::ptrdiff_t>(most_ - 1);
    std::nth_element(keys_.begin(), last, keys_.end());
    furthest_ = DistanceOf(*last);
    keys_.resize(most_);
  }

  std::size_t most_;
  std::vector<std::uint64_t> keys_;
  float furthest_ = std::numeric_limits<float>::infinity();
};

class CodeScan {
 public:
  CodeScan(const SearchView& view, const float* query, const SearchOptions& options, bool asks, std::size_t rescored)
      : view_(view),
        rows_(view.graph.rows),
        options_(options),
        asks_(asks && view.allowed != nullptr),
        codes_(rows_.codes->row_bytes()),
        best_(rescored) {
    head_ = rows_.codes->Encode(query, codes_.data(), nullptr);
  }

  void Run() {
    for (std::size_t base = 0; base < view_.used; base += 64) {
      // All of a word before any of it is scored: branches that are guessed wrong would cost more than the asking.
      const std::uint64_t allowed =
          view_.FittingOf(view_.AllowedOf(options_.filter, base, view_.LiveOf(base)), base, options_.attributes);
      for (std::uint64_t word = allowed; word != 0; word &= word - 1) {
        Next(static_cast<std::uint32_t>(base + static_cast<std::size_t>(std::countr_zero(word))));
      }
    }
    while (scored_ < met_) Score(std::min(kPiece, met_ - scored_));
  }
  [[nodiscard]] const std::vector<std::uint64_t>& Best() { return best_.Take(); }

 private:
  void Next(std::uint32_t slot) {
    coming_[met_++ % coming_.size()] = slot;
    const std::size_t row_bytes = rows_.codes->row_bytes();
    const std::int8_t* row = rows_.rows + std::size_t{slot} * row_bytes;
    for (std::size_t byte = 0; byte < std::min<std::size_t>(row_bytes, 512); byte += 64) __builtin_prefetch(row + byte);
    __builtin_prefetch(rows_.heads + slot);
    if (met_ - scored_ == kAhead) Score(kPiece);
  }
  // The first `count` of those that wait, of one piece.
  void Score(std::size_t count) {
    const std::uint32_t* slots = coming_.data() + scored_ % coming_.size();
    std::array<std::int32_t, kPiece> dots;
    rows_.codes->Dots(codes_.data(), rows_.rows, slots, count, dots.data());
    // First the distances alone: seldom is one of them near enough.
    std::array<float, kPiece> distances;
    const Int8Codes codes = *rows_.codes;
    const CodeHead head = head_;
    const CodeHead* heads = rows_.heads;
    for (std::size_t i = 0; i < count; ++i) distances[i] = codes.Distance(dots[i], head, heads[slots[i]]);
    const float furthest = best_.furthest();
    for (std::size_t i = 0; i < count; ++i) {
      if (distances[i] > furthest) continue;
      if (!asks_ || view_.Admits(slots[i], options_)) best_.Add(CandidateKey(distances[i], slots[i]));
    }
    best_.Trim();
    scored_ += count;
  }

  const SearchView& view_;
  const CodeRows& rows_;
  const SearchOptions& options_;
  const bool asks_;
  std::vector<std::int8_t> codes_;
  CodeHead head_;
  BestKeys best_;
  std::array<std::uint32_t, kAhead> coming_{};  // a ring
  std::size_t met_ = 0;
  std::size_t scored_ = 0;  // of them; a multiple of kPiece until the end
};

// Of what is known to match the filter is asked where it `asks`: of what comes to be among the best, else of the best
// alone, and `refused` tells how many of those it does not allow.
std::vector<Hit> Scan(const SearchView& view, const float* query, const SearchOptions& options, bool asks,
                      std::size_t most, std::size_t* refused) {
  CodeScan scan(view, query, options, asks, most);
  scan.Run();
  const std::vector<std::uint64_t>& best = scan.Best();
  for (std::size_t i = 0; i < std::min(kAhead, best.size()); ++i) view.Prefetch(NodeOf(best[i]));
  std::vector<Hit> hits;
  hits.reserve(best.size());
  for (std::size_t i = 0; i < best.size(); ++i) {
    if (i + kAhead < best.size()) view.Prefetch(NodeOf(best[i + kAhead]));
    const std::uint32_t slot = NodeOf(best[i]);
    if (view.allowed != nullptr && !asks && !view.Admits(slot, options)) continue;
    hits.push_back({view.labels[slot], view.Score(query, slot)});
  }
  *refused = best.size() - hits.size();
  return hits;
}

}  // namespace

std::vector<Hit> ScanCodes(const SearchView& view, const float* query, const SearchOptions& options,
                           std::size_t rescored) {
  const std::size_t most =
      std::clamp<std::size_t>(std::max(rescored, options.k), 1, std::max<std::size_t>(view.used, 1));
  std::size_t refused = 0;
  std::vector<Hit> hits = Scan(view, query, options, false, most, &refused);
  // What is known to match mostly still does, and is not excluded; else others take those places.
  if (refused > (most - std::min(options.k, most)) / 2) {
    hits = Scan(view, query, options, true, most, &refused);
  }
  return BestOf(std::move(hits), options);
}

}  // namespace freshet
