#include "graph.h"

#include <cmath>

namespace freshet {
namespace {

constexpr std::uint32_t kMaxLevel = UpperLists::kMaxLevel;

[[gnu::always_inline]] inline void StoreLink(const std::uint32_t* at, std::uint32_t value) {
  std::atomic_ref<std::uint32_t>(*const_cast<std::uint32_t*>(at)).store(value, std::memory_order_release);
}

std::uint64_t Mixed(std::uint64_t x) {  // splitmix64, Steele et al. 2014
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// From `entry` to where nothing nearer is linked.
std::uint32_t Nearer(const CodeRows& rows, const UpperLevel& level, const std::int8_t* query, CodeHead head,
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

std::uint32_t GraphView::Descend(const std::int8_t* query, CodeHead head) const {
  std::uint32_t at = entry.upper;
  UpperLevel level = upper;
  for (level.level = entry.level; level.level > 0; --level.level) {
    at = Nearer(rows, level, query, head, at, upper_nodes);
  }
  return at;
}

bool GraphView::Begin(const std::int8_t* query, CodeHead head, std::size_t width, double share, bool widenable,
                      GraphWalk* walk) const {
  if (entry.upper == kNoSlot) return false;
  const std::uint32_t begin = upper.SlotOf(Descend(query, head));
  walk->Begin(rows, base, query, head, begin, nodes, width, ExpandOf(width), widenable, share);
  return true;
}

Graph::Graph(const CodeRows& rows, GraphDead dead, const HnswOptions& options)
    : options_(options),
      rows_(rows),
      dead_(dead),
      links_(options.capacity * (2 * options.m + 1)),
      uppers_(options.capacity, options.m) {}

GraphView Graph::View(const std::atomic<std::size_t>& slots) const {
  GraphView view;
  view.rows = rows_;
  view.base = Base();
  view.upper = uppers_.Level(1);
  view.entry = Unpack(entry_.load(std::memory_order_acquire));
  // In this order: the entry is below the bounds, and so is the slot of each upper id.
  view.upper_nodes = uppers_.count();
  view.nodes = slots.load(std::memory_order_acquire);
  return view;
}

std::size_t Graph::memory_bytes(std::size_t slots) const {
  return (slots * (2 * options_.m + 1) + uppers_.count() * (options_.m + 3)) * sizeof(std::uint32_t);
}

Graph::Scratch& Graph::ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

void Graph::Scratch::Reserve(std::size_t links) {
  all.reserve(links + 1);
  slots.reserve(links + 1);
  dots.reserve(links + 1);
  kept.reserve(links + 1);
}

std::uint32_t Graph::DrawLevel() {
  const double uniform = (static_cast<double>(Mixed(options_.seed + drawn_++) >> 11) + 1) / 9007199254740993.0;
  return std::min(kMaxLevel,
                  static_cast<std::uint32_t>(-std::log(uniform) / std::log(static_cast<double>(options_.m))));
}

// What the first node of a graph is reached by; false: another thread was first.
bool Graph::LinkFirst(std::uint32_t slot, std::uint32_t level) {
  StoreLink(Base().LinksOf(slot), 0);
  std::uint32_t upper = uppers_.Take(slot, &level);
  if (upper == kNoSlot) {
    level = 1;
    upper = uppers_.TakeEntry(slot);
  }
  std::uint64_t none = Pack(GraphEntry{});
  if (entry_.compare_exchange_strong(none, Pack({upper, level}))) return true;
  uppers_.GiveBack(upper);
  return false;
}

void Graph::Link(std::uint32_t slot, std::size_t slots) {
  std::uint32_t level = DrawLevel();
  ThreadScratch().Reserve(2 * options_.m);
  if (Unpack(entry_.load()).upper == kNoSlot && LinkFirst(slot, std::max(level, 1U))) return;
  const GraphEntry entry = Unpack(entry_.load(std::memory_order_acquire));
  const std::int8_t* codes = rows_.rows + std::size_t{slot} * rows_.codes->row_bytes();
  const std::uint32_t upper = uppers_.Take(slot, &level);
  const std::size_t uppers = uppers_.count();
  std::uint32_t at = entry.upper;
  thread_local std::array<std::vector<Near>, kMaxLevel + 1> chosen;
  const std::uint32_t top = std::min(level, entry.level);
  try {
    for (std::uint32_t l = entry.level; l > level; --l) {
      at = Nearer(rows_, uppers_.Level(l), codes, rows_.heads[slot], at, uppers);
    }
    for (std::uint32_t l = top; l > 0; --l) Choose(uppers_.Level(l), upper, at, uppers, &at, &chosen[l]);
    std::uint32_t nearest = kNoSlot;
    Choose(Base(), slot, uppers_.SlotOf(at), slots, &nearest, &chosen[0]);
  } catch (...) {
    if (upper != kNoSlot) uppers_.GiveBack(upper);
    throw;
  }
  // From here on nothing fails. All its lists are written before anything leads to it, and the lowest level leads to it
  // first: a walk that came to it from above would find the list of whoever had the slot before.
  for (const Near& other : chosen[0]) (void)Connect(Base(), other.node, slot);
  for (std::uint32_t l = 1; l <= top; ++l) {
    for (const Near& other : chosen[l]) (void)Connect(uppers_.Level(l), other.node, upper);
  }
  std::uint64_t known = entry_.load();
  while (level > Unpack(known).level && !entry_.compare_exchange_weak(known, Pack({upper, level}))) {
  }
}

// The slot of a node that is linked to this one above level 0, or kNoSlot.
std::uint32_t Graph::BesideUpper(std::uint32_t upper) const {
  for (std::uint32_t l = 1; l <= uppers_.LevelOf(upper); ++l) {
    const std::uint32_t* list = uppers_.Level(l).LinksOf(upper);
    if (LoadLink(list) > 0) return uppers_.SlotOf(LoadLink(list + 1));
  }
  return kNoSlot;
}

void Graph::Relink(std::uint32_t slot, std::size_t slots, std::uint32_t other) {
  const GraphEntry entry = Unpack(entry_.load(std::memory_order_acquire));
  if (entry.upper == kNoSlot) return;
  const std::int8_t* codes = rows_.rows + std::size_t{slot} * rows_.codes->row_bytes();
  std::uint32_t at = entry.upper;
  for (std::uint32_t l = entry.level; l > 0; --l) {
    at = Nearer(rows_, uppers_.Level(l), codes, rows_.heads[slot], at, uppers_.count());
  }
  ThreadScratch().Reserve(2 * options_.m);
  // From itself, which leads nowhere, it would see nothing.
  std::uint32_t begin = uppers_.SlotOf(at);
  if (begin == slot) begin = BesideUpper(at);
  if (begin == kNoSlot) begin = uppers_.SlotOf(entry.upper);
  if (begin == slot) begin = other;
  if (begin == kNoSlot) return;
  std::uint32_t nearest = kNoSlot;
  thread_local std::vector<Near> chosen;
  Choose(Base(), slot, begin, slots, &nearest, &chosen);
  bool reached = false;
  for (const Near& near : chosen) reached = Connect(Base(), near.node, slot) || reached;
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
  std::vector<Near>& all = ThreadScratch().all;
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
  std::vector<std::uint32_t>& slots = ThreadScratch().slots;
  std::vector<std::int32_t>& dots = ThreadScratch().dots;
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
  std::vector<std::uint32_t>& kept = ThreadScratch().kept;
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

// For graph_unlink.cc.
template void Graph::Distances(const BaseLevel& level, std::uint32_t node, std::vector<Near>* others,
                               std::size_t most) const;
template void Graph::Distances(const UpperLevel& level, std::uint32_t node, std::vector<Near>* others,
                               std::size_t most) const;
template void Graph::Select(const BaseLevel& level, std::vector<Near>* sorted, std::size_t most, float slack) const;
template void Graph::Select(const UpperLevel& level, std::vector<Near>* sorted, std::size_t most, float slack) const;

std::vector<Graph::Upper> Graph::Uppers(GraphEntry* entry) const {
  // The entry first: it is among those that are there after it was read.
  *entry = Unpack(entry_.load());
  return uppers_.All();
}

void Graph::PutLinks(std::uint32_t slot, const std::uint32_t* list) {
  std::copy_n(list, 2 * options_.m + 1, links_.get() + std::size_t{slot} * (2 * options_.m + 1));
}

bool Graph::PutUpper(Upper upper, const std::uint32_t* lists) {
  const std::uint32_t id = uppers_.Put(upper.slot, upper.level);
  if (id != kNoSlot) std::copy_n(lists, upper.level * (options_.m + 1), uppers_.ListsOf(id));
  return id != kNoSlot;
}

}  // namespace freshet
