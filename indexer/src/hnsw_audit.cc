// Whether the graph is as good as it should be: what cannot be reached, and what a sample of searches misses.
#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <thread>

#include "hnsw_index.h"

namespace freshet {
namespace {

constexpr std::size_t kInDoubt = 8;      // times as many probes
constexpr std::size_t kFewNodes = 1000;  // are not worth a rebuild
// A piece of the audit's work, and what steps of it cost, about, in nanoseconds.
constexpr std::size_t kPieceNs = 1'000'000;
constexpr std::size_t kDescentNs = 5'000;
constexpr std::size_t kListNs = 500;
constexpr std::size_t kRowNs = 50;
constexpr std::size_t kRowsOfPiece = 8192;

bool TestAndSet(std::vector<std::uint64_t>* bits, std::size_t i) {
  std::uint64_t& word = (*bits)[i / 64];
  const std::uint64_t bit = std::uint64_t{1} << (i % 64);
  const bool was = (word & bit) != 0;
  word |= bit;
  return was;
}

bool Bit(const std::vector<std::uint64_t>& bits, std::size_t i) { return (bits[i / 64] >> (i % 64) & 1) != 0; }

// What searches find their way to on level 0: from where they enter it, along links. A search descends and enters at
// one node; which ones those are is found out by descending to each node that is above, and to each that is not reached
// from those. A node that is entered but that no link leads to is not reached: every other search passes it by.
class Reach {
 public:
  // `did` is told what a step costs, about, in nanoseconds; its error ends the walk.
  Reach(const GraphView& view, const std::function<Status(std::size_t)>& did)
      : view_(view), did_(did), seen_((view.nodes + 63) / 64), led_to_((view.nodes + 63) / 64) {}

  // Where a search for the row at `slot` enters, and on from there.
  Status EnterFor(std::uint32_t slot) {
    if (view_.entry.upper >= view_.upper_nodes || slot >= view_.nodes) return Status::Ok();
    const CodeRows& rows = view_.rows;
    const std::int8_t* codes = rows.rows + std::size_t{slot} * rows.codes->row_bytes();
    Visit(view_.upper.SlotOf(view_.Descend(codes, rows.heads[slot])));
    FRESHET_TRY(did_(kDescentNs));
    while (!open_.empty()) {
      const std::uint32_t at = open_.back();
      open_.pop_back();
      const std::uint32_t* list = view_.base.LinksOf(at);
      const std::size_t count = std::min<std::size_t>(LoadLink(list), view_.base.m);
      for (std::size_t i = 1; i <= count; ++i) {
        const std::uint32_t other = LoadLink(list + i);
        if (other >= view_.nodes) continue;
        TestAndSet(&led_to_, other);
        Visit(other);
      }
      FRESHET_TRY(did_(kListNs));
    }
    return Status::Ok();
  }
  [[nodiscard]] bool Has(std::uint32_t slot) const { return Bit(led_to_, slot); }

 private:
  void Visit(std::uint32_t slot) {
    if (slot < view_.nodes && !TestAndSet(&seen_, slot)) open_.push_back(slot);
  }

  const GraphView view_;
  const std::function<Status(std::size_t)>& did_;
  std::vector<std::uint64_t> seen_;    // by slot
  std::vector<std::uint64_t> led_to_;  // by slot: from what was seen
  std::vector<std::uint32_t> open_;
};

// Two standard errors above the mean: a bound that is passed by is passed in earnest.
RecallEstimate EstimateOf(const std::vector<double>& recalls) {
  if (recalls.empty()) return {};
  const auto count = static_cast<double>(recalls.size());
  double sum = 0;
  double squares = 0;
  for (const double recall : recalls) {
    sum += recall;
    squares += recall * recall;
  }
  const double mean = sum / count;
  const double variance = std::max(0.0, squares / count - mean * mean);
  return {mean, std::min(1.0, mean + 2 * std::sqrt(variance / count))};
}

}  // namespace

// The pieces that an audit does its work in.
class HnswIndex::Pieces {
 public:
  Pieces(HnswIndex* index, const std::function<bool()>& between) : index_(index), between_(between) {}
  // So much was done, in nanoseconds, about. Errors: kCancelled. REQUIRES: no lock is held, nor an epoch.
  Status Did(std::size_t ns) {
    done_ += ns;
    if (done_ < kPieceNs) return Status::Ok();
    done_ = 0;
    if (!between_) {
      std::this_thread::yield();
      return Status::Ok();
    }
    {
      // What waits for a slot waits until the audit holds none any more.
      const std::lock_guard lock(index_->writer_mu_);
      if (index_->slot_waits_ > 0) return Status::Ok();
    }
    return between_() ? Status::Ok() : Cancelled("the audit was stopped");
  }

 private:
  HnswIndex* const index_;
  const std::function<bool()>& between_;
  std::size_t done_ = 0;
};

// The live nodes there are now, and of them, those that are not reached. REQUIRES: no slot is freed meanwhile.
Status HnswIndex::FindUnreachable(const Segment& segment, Pieces* pieces, std::vector<std::uint32_t>* live,
                                  std::vector<std::uint32_t>* unreachable) {
  const std::function<Status(std::size_t)> did = [pieces](std::size_t ns) { return pieces->Did(ns); };
  // Nodes of before: what is linked meanwhile may be reached by lists that were looked at already.
  const std::size_t used = segment.used();
  const std::vector<std::uint64_t> nodes = segment.NodeBits(used);
  Reach reach(segment.View().graph, did);
  GraphEntry entry;
  for (const Graph::Upper& upper : segment.graph().Uppers(&entry)) {
    if (upper.slot < used && Bit(nodes, upper.slot)) FRESHET_TRY(reach.EnterFor(upper.slot));
  }
  std::size_t count = 0;
  live->clear();
  unreachable->clear();
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    if (!Bit(nodes, slot)) continue;
    ++count;
    if (segment.graph().IsDead(slot)) continue;
    live->push_back(slot);
    if (!reach.Has(slot)) unreachable->push_back(slot);
  }
  for (const std::uint32_t slot : *unreachable) FRESHET_TRY(reach.EnterFor(slot));
  std::erase_if(*unreachable, [&](std::uint32_t slot) { return reach.Has(slot); });
  if (count == 1) unreachable->clear();  // there is nothing that could lead to it
  return Status::Ok();
}

// The scores of the best k rows of all, best first. Rows that come meanwhile may be left out, and those that go are.
// Where the segment is replaced, there are none.
Status HnswIndex::BestOfAll(const Segment& segment, const std::vector<float>& probe, std::size_t k, Pieces* pieces,
                            std::vector<float>* scores) const {
  struct Row {
    std::uint32_t slot = 0;
    Label label = 0;
  };
  std::vector<std::pair<float, Row>> best;
  const auto better = [](const auto& a, const auto& b) { return a.first > b.first; };
  const auto keep = [&](std::size_t most) {
    if (best.size() <= most) return;
    std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(most), best.end(), better);
    best.resize(most);
  };
  const std::size_t used = segment.used();
  scores->clear();
  for (std::size_t begin = 0; begin < used; begin += kRowsOfPiece) {
    const std::size_t end = std::min(begin + kRowsOfPiece, used);
    {
      const ReadEpoch::Reader reader(epoch_);
      if (current_.load(std::memory_order_acquire) != &segment) return Status::Ok();
      const SearchView view = segment.View();
      for (std::size_t slot = begin; slot < end; ++slot) {
        if (view.IsDead(slot)) continue;
        best.emplace_back(view.Score(probe.data(), slot), Row{static_cast<std::uint32_t>(slot), view.labels[slot]});
        if (best.size() >= 4 * k) keep(2 * k);  // some may go
      }
    }
    FRESHET_TRY(pieces->Did((end - begin) * kRowNs));
  }
  const ReadEpoch::Reader reader(epoch_);
  if (current_.load(std::memory_order_acquire) != &segment) return Status::Ok();
  std::erase_if(best, [&](const auto& row) {
    return segment.IsDead(row.second.slot) || segment.label(row.second.slot) != row.second.label;
  });
  keep(k);
  for (const auto& row : best) scores->push_back(row.first);
  std::sort(scores->begin(), scores->end(), std::greater<>());
  return Status::Ok();
}

// Of each probe: the share of what an exact search finds. By score: of equal ones either is right.
Status HnswIndex::ProbeRecall(const Segment& segment, const AuditOptions& options,
                              std::span<const std::vector<float>> probes, Pieces* pieces,
                              std::vector<double>* recalls) const {
  std::vector<float> exact;
  for (const std::vector<float>& probe : probes) {
    FRESHET_TRY(BestOfAll(segment, probe, options.k, pieces, &exact));
    if (exact.empty()) continue;
    SearchOptions search;
    search.k = options.k;
    FRESHET_ASSIGN(const std::vector<Hit> hits, Search(probe, search));
    std::size_t found = 0;
    for (const Hit& hit : hits) found += hit.score >= exact.back() ? 1 : 0;
    recalls->push_back(std::min(1.0, static_cast<double>(found) / static_cast<double>(exact.size())));
  }
  return Status::Ok();
}

Result<IndexHealth> HnswIndex::Audit(const AuditOptions& options) {
  IndexHealth health;
  FRESHET_TRY(Guarded("to audit it", [&] { return AuditInto(options, &health); }));
  work_.notify_one();
  return health;
}

Status HnswIndex::AuditInto(const AuditOptions& options, IndexHealth* health) {
  // As a cut does: meanwhile no slot is freed, so that the graph is walked in pieces.
  class Pin {
   public:
    explicit Pin(HnswIndex* index) : index_(index) {}
    ~Pin() { index_->Unpin(); }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

   private:
    HnswIndex* const index_;
  };
  std::vector<std::uint32_t> unreachable;
  std::vector<std::vector<float>> probes;
  std::shared_ptr<const Segment> audited;
  bool linked_again = false;  // what the last audit found
  Pieces pieces(this, options.between);
  {
    {
      const std::lock_guard lock(writer_mu_);
      ++pins_;
      audited = segment_;
      linked_again = relink_.empty() && !has_relinks_;
    }
    const Pin pin(this);
    std::vector<std::uint32_t> live;
    FRESHET_TRY(FindUnreachable(*audited, &pieces, &live, &unreachable));
    if (!unreachable.empty()) {
      // Links that were replaced under the walk may have hidden something: it is none that is reached the next time.
      std::vector<std::uint32_t> again;
      FRESHET_TRY(FindUnreachable(*audited, &pieces, &live, &again));
      std::erase_if(unreachable,
                    [&](std::uint32_t slot) { return !std::binary_search(again.begin(), again.end(), slot); });
    }
    health->nodes = live.size();
    std::mt19937_64 random(options.seed);
    for (std::size_t i = 0; i < kInDoubt * options.probes && !live.empty(); ++i) {
      const std::uint32_t slot = live[random() % live.size()];
      std::vector<float>& probe = probes.emplace_back(static_cast<std::size_t>(options_.dim));
      audited->reranker().Get(audited->RerankRow(slot), audited->CodesOf(slot), audited->HeadOf(slot).scale,
                              probe.data());
    }
  }
  health->unreachable = unreachable.size();
  // A few tell that recall is good. Where they do not, more are asked: a rebuild is not begun on a few.
  std::vector<double> recalls;
  const std::span<const std::vector<float>> all(probes);
  const std::size_t few = std::min(options.probes, probes.size());
  FRESHET_TRY(ProbeRecall(*audited, options, all.first(few), &pieces, &recalls));
  if (EstimateOf(recalls).mean < options_.min_recall) {
    FRESHET_TRY(ProbeRecall(*audited, options, all.subspan(few), &pieces, &recalls));
  }
  const RecallEstimate recall = EstimateOf(recalls);
  health->recall = recall.mean;
  std::string because =
      StrCat("recall ", recall.mean, " of ", recalls.size(), " probes, at least ", options_.min_recall, " is wanted");
  const std::lock_guard lock(writer_mu_);
  // Slots of a segment that was replaced since say nothing of the new one.
  if (audited != segment_) return Status::Ok();
  relink_ = std::move(unreachable);
  const double lost =
      static_cast<double>(relink_.size()) / static_cast<double>(std::max<std::size_t>(health->nodes, 1));
  told_.unreachable = lost;
  if (health->nodes < kFewNodes || wants_rebuild_ || rebuilding_) return Status::Ok();
  health->rebuilding = policy_.IsWorthItForReach(Clock::now(), lost, options_.max_unreachable, linked_again);
  if (health->rebuilding) {
    because = StrCat(relink_.size(), " of ", health->nodes, " nodes cannot be reached, linked again or not; at most ",
                     options_.max_unreachable, " of them are wanted");
  } else if (lost <= (1 - options_.min_recall) / 2) {
    // Above that, what cannot be reached may be the cause; it is linked again first.
    health->rebuilding = policy_.IsWorthIt(Clock::now(), recall, options_.min_recall);
  }
  if (!health->rebuilding) return Status::Ok();
  health->because = because;
  WantRebuild(true, std::move(because));
  return Status::Ok();
}

}  // namespace freshet
