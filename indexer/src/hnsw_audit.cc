// Whether the graph is as good as it should be: what cannot be reached, and what a sample of searches misses.
#include <algorithm>
#include <random>

#include "hnsw_index.h"

namespace freshet {
namespace {

bool TestAndSet(std::vector<std::uint64_t>* bits, std::size_t i) {
  std::uint64_t& word = (*bits)[i / 64];
  const std::uint64_t bit = std::uint64_t{1} << (i % 64);
  const bool was = (word & bit) != 0;
  word |= bit;
  return was;
}

// The slots that links lead to from the entry, through the levels above and then below.
std::vector<std::uint64_t> Reached(const GraphView& view) {
  std::vector<std::uint64_t> reached((view.nodes + 63) / 64);
  if (view.entry.upper == kNoSlot || view.entry.upper >= view.upper_nodes) return reached;
  std::vector<std::uint32_t> open;
  const auto visit = [&](std::uint32_t slot) {
    if (slot < view.nodes && !TestAndSet(&reached, slot)) open.push_back(slot);
  };
  UpperLevel level = view.upper;
  std::vector<std::uint32_t> above = {view.entry.upper};  // reached on this level or a higher one
  std::vector<std::uint64_t> seen((view.upper_nodes + 63) / 64);
  TestAndSet(&seen, view.entry.upper);
  for (level.level = view.entry.level; level.level > 0; --level.level) {
    for (std::size_t i = 0; i < above.size(); ++i) {
      const std::uint32_t* list = level.LinksOf(above[i]);
      const std::size_t count = std::min<std::size_t>(LoadLink(list), level.m);
      for (std::size_t j = 1; j <= count; ++j) {
        const std::uint32_t other = LoadLink(list + j);
        if (other < view.upper_nodes && !TestAndSet(&seen, other)) above.push_back(other);
      }
    }
  }
  for (const std::uint32_t upper : above) visit(view.upper.SlotOf(upper));
  while (!open.empty()) {
    const std::uint32_t slot = open.back();
    open.pop_back();
    const std::uint32_t* list = view.base.LinksOf(slot);
    const std::size_t count = std::min<std::size_t>(LoadLink(list), view.base.m);
    for (std::size_t j = 1; j <= count; ++j) visit(LoadLink(list + j));
  }
  return reached;
}

}  // namespace

Result<IndexHealth> HnswIndex::Audit(const AuditOptions& options) {
  IndexHealth health;
  std::vector<std::uint32_t> unreachable;
  std::vector<std::vector<float>> probes;
  std::shared_ptr<Segment> audited;
  FRESHET_TRY(Guarded("to audit it", [&] {
    audited = Current();
    const std::shared_ptr<Segment>& segment = audited;
    const ReadEpoch::Reader reader(segment->epoch());
    // Nodes of before: what is linked meanwhile may be reached by lists that were looked at already.
    const std::size_t used = segment->used();
    const std::vector<std::uint64_t> nodes = segment->NodeBits(used);
    const std::vector<std::uint64_t> reached = Reached(segment->View().graph);
    std::vector<std::uint32_t> live;
    for (std::uint32_t slot = 0; slot < used; ++slot) {
      if ((nodes[slot / 64] >> (slot % 64) & 1) == 0 || segment->graph().IsDead(slot)) continue;
      live.push_back(slot);
      if ((reached[slot / 64] >> (slot % 64) & 1) == 0) unreachable.push_back(slot);
    }
    health.nodes = live.size();
    std::mt19937_64 random(options.seed);
    for (std::size_t i = 0; i < options.probes && !live.empty(); ++i) {
      const std::uint32_t slot = live[random() % live.size()];
      std::vector<float>& probe = probes.emplace_back(static_cast<std::size_t>(options_.dim));
      segment->reranker().Get(segment->RerankRow(slot), segment->CodesOf(slot), segment->HeadOf(slot).scale,
                              probe.data());
    }
  }));
  health.unreachable = unreachable.size();
  std::size_t wanted = 0;
  std::size_t found = 0;
  for (const std::vector<float>& probe : probes) {
    SearchOptions search;
    search.k = options.k;
    FRESHET_ASSIGN(const std::vector<Hit> hits, Search(probe, search));
    search.exact = true;
    FRESHET_ASSIGN(const std::vector<Hit> exact, Search(probe, search));
    wanted += exact.size();
    // By score: of equal ones either is right.
    for (const Hit& hit : hits) found += !exact.empty() && hit.score >= exact.back().score ? 1 : 0;
  }
  health.recall = wanted == 0 ? 1 : std::min(1.0, static_cast<double>(found) / static_cast<double>(wanted));
  {
    const std::lock_guard lock(writer_mu_);
    // Slots of a segment that was replaced since say nothing of the new one.
    if (audited == segment_) relink_.insert(relink_.end(), unreachable.begin(), unreachable.end());
    health.rebuilding = health.recall < options_.min_recall && unreachable.empty() && health.nodes >= 1000;
    wants_rebuild_ = wants_rebuild_ || health.rebuilding;
  }
  work_.notify_one();
  return health;
}

}  // namespace freshet
