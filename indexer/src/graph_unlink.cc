// How the dead leave the graph, see graph.h.
#include <algorithm>

#include "graph.h"

namespace freshet {
namespace {

// Without slack a list gets sparser each time the dead leave it: after whole clusters of SIFT-100k had come and gone
// ten times, recall@10 was .006 below a fresh build's, with it .001.
constexpr float kSlackAfterUnlink = 1.1F;
constexpr std::size_t kOffered = 4;  // times the length of a list: what is further is not chosen anyway

bool Has(const std::vector<std::uint64_t>& bits, std::uint32_t slot) {
  return slot / 64 < bits.size() && (bits[slot / 64] >> (slot % 64) & 1) != 0;
}

}  // namespace

bool Graph::Unlink(std::uint32_t slot, const std::vector<std::uint64_t>& gone) {
  return UnlinkList(Base(), slot, gone);
}

template <typename Level>
bool Graph::UnlinkList(const Level& level, std::uint32_t node, const std::vector<std::uint64_t>& gone) {
  thread_local std::vector<std::uint32_t> offered;  // some more than once
  thread_local std::vector<Near> all;
  const std::uint32_t* list = level.LinksOf(node);
  const std::uint32_t count = LoadLink(list);
  bool touched = false;
  for (std::uint32_t i = 1; i <= count; ++i) touched = touched || Has(gone, level.SlotOf(LoadLink(list + i)));
  if (!touched) return false;
  offered.clear();
  const auto offer = [&](std::uint32_t other) {
    if (other != node && !Has(gone, level.SlotOf(other))) offered.push_back(other);
  };
  for (std::uint32_t i = 1; i <= count; ++i) offer(LoadLink(list + i));
  // Through the dead, and through the dead behind them while nothing lives.
  std::vector<std::uint32_t> behind;
  for (std::uint32_t i = 1; i <= count; ++i) {
    if (Has(gone, level.SlotOf(LoadLink(list + i)))) behind.push_back(LoadLink(list + i));
  }
  for (std::size_t i = 0; i < behind.size() && (i < count || (offered.empty() && i < 4096)); ++i) {
    const std::uint32_t* next = level.LinksOf(behind[i]);
    const std::uint32_t next_count = LoadLink(next);
    for (std::uint32_t j = 1; j <= next_count; ++j) {
      const std::uint32_t other = LoadLink(next + j);
      offer(other);
      if (Has(gone, level.SlotOf(other)) && std::find(behind.begin(), behind.end(), other) == behind.end()) {
        behind.push_back(other);
      }
    }
  }
  std::sort(offered.begin(), offered.end());
  offered.erase(std::unique(offered.begin(), offered.end()), offered.end());
  all.clear();
  for (const std::uint32_t other : offered) all.push_back({0, other});
  Distances(level, node, &all, kOffered * level.m);
  Select(level, &all, level.m, std::max(kSlackAfterUnlink, options_.slack));
  WriteList(list, all);
  return all.empty();
}

void Graph::BeginUnlinkAbove() {
  uppers_.Watch(true);
  next_above_ = 0;
  end_above_ = uppers_.count();
}

bool Graph::UnlinkAbove(const std::vector<std::uint64_t>& gone, std::size_t most) {
  const auto unlink = [&](std::uint32_t upper) {
    if (uppers_.SlotOf(upper) == kNoSlot || Has(gone, uppers_.SlotOf(upper))) return;
    for (std::uint32_t l = 1; l <= uppers_.LevelOf(upper); ++l) (void)UnlinkList(uppers_.Level(l), upper, gone);
  };
  for (; most > 0 && next_above_ < end_above_; --most) unlink(next_above_++);
  if (next_above_ < end_above_) return true;
  // Then what was linked meanwhile: where all that is near is going, it hung on that.
  std::uint32_t upper = kNoSlot;
  for (; most > 0; --most) {
    if (!uppers_.NextWatched(&upper)) return false;
    unlink(upper);
  }
  return true;
}

void Graph::FinishUnlinkAbove(const std::vector<std::uint64_t>& gone, std::uint32_t live) {
  const GraphEntry entry = Unpack(entry_.load());
  if (entry.upper != kNoSlot && Has(gone, uppers_.SlotOf(entry.upper))) {
    GraphEntry best;
    const std::uint32_t uppers = uppers_.count();
    for (std::uint32_t upper = 0; upper < uppers; ++upper) {
      if (uppers_.SlotOf(upper) == kNoSlot || Has(gone, uppers_.SlotOf(upper))) continue;
      if (best.upper == kNoSlot || uppers_.LevelOf(upper) > best.level) best = {upper, uppers_.LevelOf(upper)};
    }
    if (best.upper == kNoSlot && live != kNoSlot) best = {uppers_.TakeEntry(live), 1};
    entry_.store(Pack(best), std::memory_order_release);
  }
  uppers_.Watch(false);
}

void Graph::FreeAbove(const std::vector<std::uint64_t>& gone) noexcept {
  const std::uint32_t uppers = uppers_.count();
  for (std::uint32_t upper = 0; upper < uppers; ++upper) {
    if (uppers_.SlotOf(upper) != kNoSlot && Has(gone, uppers_.SlotOf(upper))) uppers_.GiveBack(upper);
  }
}

}  // namespace freshet
