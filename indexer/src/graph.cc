#include "graph.h"

#include <cmath>

namespace freshet {
namespace {

constexpr std::uint32_t kMaxLevel = 16;
// Without slack a list gets sparser each time the dead leave it: after whole clusters of SIFT-100k had come and gone
// ten times, recall@10 was .006 below a fresh build's, with it .001.
constexpr float kSlackAfterUnlink = 1.1F;
constexpr std::size_t kOffered = 4;  // times the length of a list: what is further is not chosen anyway

[[gnu::always_inline]] inline void StoreLink(const std::uint32_t* at, std::uint32_t value) {
  std::atomic_ref<std::uint32_t>(*const_cast<std::uint32_t*>(at)).store(value, std::memory_order_release);
}

std::uint64_t Mixed(std::uint64_t x) {  // splitmix64, Steele et al. 2014
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

bool Has(const std::vector<std::uint64_t>& bits, std::uint32_t slot) {
  return slot / 64 < bits.size() && (bits[slot / 64] >> (slot % 64) & 1) != 0;
}

// From `entry` to where nothing nearer is linked.
std::uint32_t Descend(const CodeRows& rows, const UpperLevel& level, const std::int8_t* query, CodeHead head,
                      std::uint32_t entry, std::size_t nodes) {
  std::vector<std::uint32_t>& slots = [&]() -> std::vector<std::uint32_t>& {
    thread_local std::vector<std::uint32_t> kept;
    if (kept.size() < 3 * (level.m + 1)) kept.resize(3 * (level.m + 1));
    return kept;
  }();
  std::uint32_t* ids = slots.data() + level.m + 1;
  auto* dots = reinterpret_cast<std::int32_t*>(slots.data() + 2 * (level.m + 1));
  slots[0] = level.SlotOf(entry);
  rows.codes->Dots(query, rows.rows, slots.data(), 1, dots);
  float best = rows.codes->Distance(dots[0], head, rows.heads[slots[0]]);
  for (bool nearer = true; nearer;) {
    nearer = false;
    const std::uint32_t* list = level.LinksOf(entry);
    const std::size_t count = std::min<std::size_t>(LoadLink(list), level.m);
    std::size_t known = 0;
    for (std::size_t i = 1; i <= count; ++i) {
      const std::uint32_t id = LoadLink(list + i);
      if (id >= nodes) continue;
      ids[known] = id;
      slots[known] = level.SlotOf(id);
      const std::int8_t* row = rows.rows + std::size_t{slots[known++]} * rows.codes->row_bytes();
      __builtin_prefetch(row);
      __builtin_prefetch(row + 64);
    }
    rows.codes->Dots(query, rows.rows, slots.data(), known, dots);
    for (std::size_t i = 0; i < known; ++i) {
      const float distance = rows.codes->Distance(dots[i], head, rows.heads[slots[i]]);
      if (distance < best) {
        best = distance;
        entry = ids[i];
        nearer = true;
      }
    }
  }
  return entry;
}

}  // namespace

std::size_t ExpandOf(std::size_t width) { return width < 32 ? 1 : width < 128 ? 2 : 4; }

bool GraphView::Begin(const std::int8_t* query, CodeHead head, std::size_t width, double share, bool widenable,
                      GraphWalk* walk) const {
  if (entry.upper == kNoSlot) return false;
  std::uint32_t at = entry.upper;
  UpperLevel level = upper;
  for (level.level = entry.level; level.level > 0; --level.level) {
    at = Descend(rows, level, query, head, at, upper_nodes);
  }
  walk->Begin(rows, base, query, head, upper.SlotOf(at), nodes, width, ExpandOf(width), widenable, share);
  return true;
}

Graph::Graph(const CodeRows& rows, GraphDead dead, const HnswOptions& options)
    : options_(options),
      rows_(rows),
      dead_(dead),
      links_(options.capacity * (2 * options.m + 1)),
      upper_slots_(options.capacity),
      upper_first_(options.capacity),
      upper_levels_(options.capacity),
      upper_links_(2 * options.capacity * (options.m + 1)) {}

UpperLevel Graph::Above(std::size_t level) const {
  return {upper_links_.get(), options_.m, upper_slots_.get(), upper_first_.get(), level};
}

GraphView Graph::View(const std::atomic<std::size_t>& slots) const {
  GraphView view;
  view.rows = rows_;
  view.base = Base();
  view.upper = Above(1);
  view.entry = Unpack(entry_.load(std::memory_order_acquire));
  // In this order: the entry is below the bounds, and so is the slot of each upper id.
  view.upper_nodes = upper_count_.load(std::memory_order_acquire);
  view.nodes = slots.load(std::memory_order_acquire);
  return view;
}

std::size_t Graph::memory_bytes(std::size_t slots) const {
  const std::size_t uppers = upper_count_;
  return (slots * (2 * options_.m + 1) + uppers * (options_.m + 3)) * sizeof(std::uint32_t);
}

std::uint32_t Graph::DrawLevel() {
  const double uniform = (static_cast<double>(Mixed(options_.seed + drawn_++) >> 11) + 1) / 9007199254740993.0;
  return std::min(kMaxLevel,
                  static_cast<std::uint32_t>(-std::log(uniform) / std::log(static_cast<double>(options_.m))));
}

// One that was unlinked with as many lists, or the next.
std::uint32_t Graph::NewUpper(std::uint32_t slot, std::uint32_t level) {
  const std::lock_guard lock(upper_mu_);
  std::uint32_t upper = upper_count_;
  if (!free_uppers_[level].empty()) {
    upper = free_uppers_[level].back();
    free_uppers_[level].pop_back();
  } else {
    upper_first_[upper] = upper_lists_;
    upper_levels_[upper] = static_cast<std::uint8_t>(level);
    upper_lists_ += level;
    upper_count_ = upper + 1;
  }
  upper_slots_[upper] = slot;
  for (std::uint32_t l = 0; l < level; ++l) StoreLink(Above(l + 1).LinksOf(upper), 0);
  return upper;
}

void Graph::Link(std::uint32_t slot, std::size_t slots) {
  const std::uint32_t level = DrawLevel();
  GraphEntry entry = Unpack(entry_.load(std::memory_order_acquire));
  if (entry.upper == kNoSlot) {
    StoreLink(Base().LinksOf(slot), 0);
    const GraphEntry first{NewUpper(slot, std::max(level, 1U)), std::max(level, 1U)};
    const std::lock_guard lock(upper_mu_);
    entry = Unpack(entry_.load());
    if (entry.upper == kNoSlot) {
      entry_.store(Pack(first), std::memory_order_release);
      return;
    }
    free_uppers_[first.level].push_back(first.upper);  // another thread was first
  }
  const std::int8_t* codes = rows_.rows + std::size_t{slot} * rows_.codes->row_bytes();
  const std::uint32_t upper = level > 0 ? NewUpper(slot, level) : kNoSlot;
  const std::size_t uppers = upper_count_.load(std::memory_order_acquire);
  std::uint32_t at = entry.upper;
  for (std::uint32_t l = entry.level; l > level; --l) {
    at = Descend(rows_, Above(l), codes, rows_.heads[slot], at, uppers);
  }
  thread_local std::array<std::vector<Near>, kMaxLevel + 1> chosen;
  const std::uint32_t top = std::min(level, entry.level);
  for (std::uint32_t l = top; l > 0; --l) Choose(Above(l), upper, at, uppers, &at, &chosen[l]);
  std::uint32_t nearest = kNoSlot;
  Choose(Base(), slot, upper_slots_[at], slots, &nearest, &chosen[0]);
  // All its lists are written before anything leads to it, and the lowest level leads to it first: a walk that came to
  // it from above would find the list of whoever had the slot before.
  for (const Near& other : chosen[0]) (void)Connect(Base(), other.node, slot);
  for (std::uint32_t l = 1; l <= top; ++l) {
    for (const Near& other : chosen[l]) (void)Connect(Above(l), other.node, upper);
  }
  if (level <= entry.level) return;
  const std::lock_guard lock(upper_mu_);
  if (level > Unpack(entry_.load()).level) entry_.store(Pack({upper, level}), std::memory_order_release);
}

void Graph::Relink(std::uint32_t slot, std::size_t slots) {
  const GraphEntry entry = Unpack(entry_.load(std::memory_order_acquire));
  if (entry.upper == kNoSlot) return;
  const std::int8_t* codes = rows_.rows + std::size_t{slot} * rows_.codes->row_bytes();
  std::uint32_t at = entry.upper;
  for (std::uint32_t l = entry.level; l > 0; --l) {
    at = Descend(rows_, Above(l), codes, rows_.heads[slot], at, upper_count_);
  }
  std::uint32_t nearest = kNoSlot;
  thread_local std::vector<Near> chosen;
  Choose(Base(), slot, upper_slots_[at], slots, &nearest, &chosen);
  bool reached = false;
  for (const Near& other : chosen) reached = Connect(Base(), other.node, slot) || reached;
  if (reached || chosen.empty()) return;
  // All of them have better ones, as they had before: the nearest gives up the last of its list.
  const std::uint32_t* list = Base().LinksOf(chosen[0].node);
  const std::lock_guard lock(LockOf(list));
  const std::uint32_t count = LoadLink(list);
  StoreLink(list + std::max(count, 1U), slot);
  if (count == 0) StoreLink(list, 1);
}

// What the node leads to on this level, and into its list.
template <typename Level>
void Graph::Choose(const Level& level, std::uint32_t node, std::uint32_t entry, std::size_t nodes,
                   std::uint32_t* nearest, std::vector<Near>* links) {
  thread_local GraphWalk walk;
  std::vector<Near>& chosen = *links;
  const std::uint32_t slot = level.SlotOf(node);
  const std::int8_t* codes = rows_.rows + std::size_t{slot} * rows_.codes->row_bytes();
  // Where what is near is dead, the walk widens until enough lives.
  for (std::size_t width = options_.ef_construction;; width *= 4) {
    walk.Begin(rows_, level, codes, rows_.heads[slot], entry, nodes, width, 2);
    while (walk.Step(level)) {
    }
    chosen.clear();
    for (std::size_t i = 0; i < walk.size() && chosen.size() < options_.ef_construction; ++i) {
      const std::uint32_t other = NodeOf(walk.pool()[i]);
      if (other != node && !dead_.Is(level.SlotOf(other))) chosen.push_back({DistanceOf(walk.pool()[i]), other});
    }
    if (chosen.size() >= options_.m || walk.size() < width) break;
  }
  // All dead: it must still be reached, and what it hangs on is repaired when the dead are unlinked.
  if (chosen.empty() && walk.size() > 0) {
    for (std::size_t i = 0; i < walk.size() && chosen.empty(); ++i) {
      const std::uint32_t other = NodeOf(walk.pool()[i]);
      if (other != node) chosen.push_back({DistanceOf(walk.pool()[i]), other});
    }
  }
  if (walk.size() > 0) *nearest = NodeOf(walk.pool()[0]);
  Select(level, &chosen, options_.m, options_.slack);
  WriteList(level.LinksOf(node), chosen);
}

void Graph::WriteList(const std::uint32_t* list, const std::vector<Near>& links) {
  for (std::size_t i = 0; i < links.size(); ++i) StoreLink(list + 1 + i, links[i].node);
  StoreLink(list, static_cast<std::uint32_t>(links.size()));
}

// One more link, or the best of all when there is no room. Whether the new one is among them.
template <typename Level>
bool Graph::Connect(const Level& level, std::uint32_t from, std::uint32_t to) {
  thread_local std::vector<Near> all;
  const std::uint32_t* list = level.LinksOf(from);
  const std::lock_guard lock(LockOf(list));
  const std::uint32_t count = LoadLink(list);
  for (std::uint32_t i = 1; i <= count; ++i) {
    if (LoadLink(list + i) == to) return true;
  }
  if (count < level.m) {
    StoreLink(list + 1 + count, to);
    StoreLink(list, count + 1);
    return true;
  }
  all.clear();
  all.push_back({0, to});
  for (std::uint32_t i = 1; i <= count; ++i) {
    const std::uint32_t other = LoadLink(list + i);
    if (!dead_.Is(level.SlotOf(other))) all.push_back({0, other});
  }
  Distances(level, from, &all, all.size());
  Select(level, &all, level.m, options_.slack);
  WriteList(list, all);
  return std::any_of(all.begin(), all.end(), [&](const Near& kept) { return kept.node == to; });
}

// Fills in the distances from `node`; the nearest of them remain, sorted.
template <typename Level>
void Graph::Distances(const Level& level, std::uint32_t node, std::vector<Near>* others, std::size_t most) const {
  thread_local std::vector<std::uint32_t> slots;
  thread_local std::vector<std::int32_t> dots;
  slots.resize(others->size());
  dots.resize(others->size());
  const std::size_t row_bytes = rows_.codes->row_bytes();
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i] = level.SlotOf((*others)[i].node);
    const std::int8_t* row = rows_.rows + std::size_t{slots[i]} * row_bytes;
    for (std::size_t at = 0; at < row_bytes; at += 64) __builtin_prefetch(row + at);
  }
  const std::uint32_t slot = level.SlotOf(node);
  rows_.codes->Dots(rows_.rows + std::size_t{slot} * row_bytes, rows_.rows, slots.data(), slots.size(), dots.data());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    (*others)[i].distance = rows_.codes->Distance(dots[i], rows_.heads[slot], rows_.heads[slots[i]]);
  }
  const auto nearer = [](const Near& a, const Near& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.node < b.node;
  };
  if (others->size() > most) {
    std::nth_element(others->begin(), others->begin() + static_cast<std::ptrdiff_t>(most), others->end(), nearer);
    others->resize(most);
  }
  std::sort(others->begin(), others->end(), nearer);
}

// Keeps what is nearer to the node than to all that was kept before it, by a slack (algorithm 4 of the paper; the slack
// is DiskANN's alpha).
template <typename Level>
void Graph::Select(const Level& level, std::vector<Near>* sorted, std::size_t most, float slack) const {
  constexpr std::size_t kChunk = 4;
  if (sorted->size() < most) return;
  thread_local std::vector<std::uint32_t> kept;
  kept.clear();
  const std::size_t row_bytes = rows_.codes->row_bytes();
  if (options_.metric == Metric::kInnerProduct) slack = 1;
  std::size_t out = 0;
  for (std::size_t i = 0; i < sorted->size() && out < most; ++i) {
    const Near candidate = (*sorted)[i];
    const std::uint32_t slot = level.SlotOf(candidate.node);
    bool keep = true;
    for (std::size_t begin = 0; begin < kept.size() && keep; begin += kChunk) {
      const std::size_t count = std::min(kChunk, kept.size() - begin);
      std::int32_t dots[kChunk];
      rows_.codes->Dots(rows_.rows + std::size_t{slot} * row_bytes, rows_.rows, kept.data() + begin, count, dots);
      for (std::size_t j = 0; j < count; ++j) {
        const float between = rows_.codes->Distance(dots[j], rows_.heads[slot], rows_.heads[kept[begin + j]]);
        keep = keep && between * slack >= candidate.distance;
      }
    }
    if (!keep) continue;
    kept.push_back(slot);
    (*sorted)[out++] = candidate;
  }
  sorted->resize(out);
}

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

void Graph::UnlinkAbove(const std::vector<std::uint64_t>& gone, std::uint32_t live) {
  const std::uint32_t uppers = upper_count_;
  for (std::uint32_t upper = 0; upper < uppers; ++upper) {
    if (upper_slots_[upper] == kNoSlot || Has(gone, upper_slots_[upper])) continue;
    for (std::uint32_t l = 1; l <= upper_levels_[upper]; ++l) (void)UnlinkList(Above(l), upper, gone);
  }
  const GraphEntry entry = Unpack(entry_.load());
  if (entry.upper != kNoSlot && Has(gone, upper_slots_[entry.upper])) {
    GraphEntry best;
    for (std::uint32_t upper = 0; upper < uppers; ++upper) {
      if (upper_slots_[upper] == kNoSlot || Has(gone, upper_slots_[upper])) continue;
      if (best.upper == kNoSlot || upper_levels_[upper] > best.level) best = {upper, upper_levels_[upper]};
    }
    if (best.upper == kNoSlot && live != kNoSlot) best = {NewUpper(live, 1), 1};
    entry_.store(Pack(best), std::memory_order_release);
  }
}

void Graph::FreeAbove(const std::vector<std::uint64_t>& gone) {
  const std::lock_guard lock(upper_mu_);
  const std::uint32_t uppers = upper_count_;
  for (std::uint32_t upper = 0; upper < uppers; ++upper) {
    if (upper_slots_[upper] == kNoSlot || !Has(gone, upper_slots_[upper])) continue;
    upper_slots_[upper] = kNoSlot;
    free_uppers_[upper_levels_[upper]].push_back(upper);
  }
}

std::vector<Graph::Upper> Graph::Uppers(GraphEntry* entry) {
  const std::lock_guard lock(upper_mu_);
  std::vector<Upper> uppers(upper_count_);
  for (std::uint32_t upper = 0; upper < uppers.size(); ++upper) {
    if (upper_slots_[upper] != kNoSlot) uppers[upper] = {upper_slots_[upper], upper_levels_[upper]};
  }
  *entry = Unpack(entry_.load());
  return uppers;
}

void Graph::PutLinks(std::uint32_t slot, const std::uint32_t* list) {
  std::copy_n(list, 2 * options_.m + 1, links_.get() + std::size_t{slot} * (2 * options_.m + 1));
}

void Graph::PutUpper(Upper upper, const std::uint32_t* lists) {
  const std::uint32_t id = NewUpper(upper.slot, upper.level);
  std::copy_n(lists, upper.level * (options_.m + 1),
              upper_links_.get() + std::size_t{upper_first_[id]} * (options_.m + 1));
}

}  // namespace freshet
