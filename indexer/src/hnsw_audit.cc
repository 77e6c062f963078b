// Whether the graph is as good as it should be: what cannot be reached, and what a sample of searches misses.
#include <algorithm>
#include <cmath>
#include <random>

#include "hnsw_index.h"

namespace freshet {
namespace {

constexpr std::size_t kInDoubt = 8;      // times as many probes
constexpr std::size_t kFewNodes = 1000;  // are not worth a rebuild

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
  explicit Reach(const GraphView& view) : view_(view), seen_((view.nodes + 63) / 64), led_to_((view.nodes + 63) / 64) {}

  // Where a search for the row at `slot` enters, and on from there.
  void EnterFor(std::uint32_t slot) {
    if (view_.entry.upper >= view_.upper_nodes || slot >= view_.nodes) return;
    const CodeRows& rows = view_.rows;
    const std::int8_t* codes = rows.rows + std::size_t{slot} * rows.codes->row_bytes();
    Visit(view_.upper.SlotOf(view_.Descend(codes, rows.heads[slot])));
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
    }
  }
  [[nodiscard]] bool Has(std::uint32_t slot) const { return Bit(led_to_, slot); }

 private:
  void Visit(std::uint32_t slot) {
    if (slot < view_.nodes && !TestAndSet(&seen_, slot)) open_.push_back(slot);
  }

  const GraphView& view_;
  std::vector<std::uint64_t> seen_;    // by slot
  std::vector<std::uint64_t> led_to_;  // by slot: from what was seen
  std::vector<std::uint32_t> open_;
};

// The live nodes among `nodes`, and of them, those that are not reached.
void FindUnreachable(const Segment& segment, const std::vector<std::uint64_t>& nodes, std::size_t used,
                     std::vector<std::uint32_t>* live, std::vector<std::uint32_t>* unreachable) {
  const GraphView view = segment.View().graph;
  Reach reach(view);
  GraphEntry entry;
  for (const Graph::Upper& upper : segment.graph().Uppers(&entry)) {
    if (upper.slot < used && Bit(nodes, upper.slot)) reach.EnterFor(upper.slot);
  }
  std::size_t count = 0;
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    if (!Bit(nodes, slot)) continue;
    ++count;
    if (segment.graph().IsDead(slot)) continue;
    live->push_back(slot);
    if (!reach.Has(slot)) unreachable->push_back(slot);
  }
  for (const std::uint32_t slot : *unreachable) reach.EnterFor(slot);
  std::erase_if(*unreachable, [&](std::uint32_t slot) { return reach.Has(slot); });
  if (count == 1) unreachable->clear();  // there is nothing that could lead to it
}

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

// Of each probe: the share of what an exact search finds. By score: of equal ones either is right.
Status HnswIndex::ProbeRecall(const AuditOptions& options, std::span<const std::vector<float>> probes,
                              std::vector<double>* recalls) const {
  for (const std::vector<float>& probe : probes) {
    SearchOptions search;
    search.k = options.k;
    FRESHET_ASSIGN(const std::vector<Hit> hits, Search(probe, search));
    search.exact = true;
    FRESHET_ASSIGN(const std::vector<Hit> exact, Search(probe, search));
    if (exact.empty()) continue;
    std::size_t found = 0;
    for (const Hit& hit : hits) found += hit.score >= exact.back().score ? 1 : 0;
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
  std::vector<std::uint32_t> unreachable;
  std::vector<std::vector<float>> probes;
  const Segment* audited = nullptr;
  bool linked_again = false;  // what the last audit found
  {
    const std::lock_guard lock(writer_mu_);
    linked_again = relink_.empty() && !has_relinks_;
  }
  {
    const ReadEpoch::Reader reader(epoch_);
    const Segment& segment = *current_.load(std::memory_order_acquire);
    audited = &segment;
    // Nodes of before: what is linked meanwhile may be reached by lists that were looked at already.
    const std::size_t used = segment.used();
    const std::vector<std::uint64_t> nodes = segment.NodeBits(used);
    std::vector<std::uint32_t> live;
    FindUnreachable(segment, nodes, used, &live, &unreachable);
    health->nodes = live.size();
    std::mt19937_64 random(options.seed);
    for (std::size_t i = 0; i < kInDoubt * options.probes && !live.empty(); ++i) {
      const std::uint32_t slot = live[random() % live.size()];
      std::vector<float>& probe = probes.emplace_back(static_cast<std::size_t>(options_.dim));
      segment.reranker().Get(segment.RerankRow(slot), segment.CodesOf(slot), segment.HeadOf(slot).scale, probe.data());
    }
  }
  health->unreachable = unreachable.size();
  // A few tell that recall is good. Where they do not, more are asked: a rebuild is not begun on a few.
  std::vector<double> recalls;
  const std::span<const std::vector<float>> all(probes);
  const std::size_t few = std::min(options.probes, probes.size());
  FRESHET_TRY(ProbeRecall(options, all.first(few), &recalls));
  if (EstimateOf(recalls).mean < options_.min_recall) {
    FRESHET_TRY(ProbeRecall(options, all.subspan(few), &recalls));
  }
  const RecallEstimate recall = EstimateOf(recalls);
  health->recall = recall.mean;
  std::string because =
      StrCat("recall ", recall.mean, " of ", recalls.size(), " probes, at least ", options_.min_recall, " is wanted");
  const std::lock_guard lock(writer_mu_);
  // Slots of a segment that was replaced since say nothing of the new one.
  if (audited != segment_.get()) return Status::Ok();
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
