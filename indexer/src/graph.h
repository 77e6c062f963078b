// The graph: hierarchical navigable small world (Malkov and Yashunin, arXiv 1603.09320) over int8 codes.
//
// Nodes of level 0 are slots, numbers below the capacity; the rows belong to the caller and are written before their
// slot is linked. Levels above are a graph of their own over upper ids, which know their slots.
// Thread-safety: any number of searches, at any time, without a lock (graph_walk.h); Link from any number of threads;
// Relink and Unlink beside searches, but not beside Link. A slot that was unlinked may be written again only when
// every search that was under way then is over: that is the caller's to know.
// Deterministic with one linking thread and one seed. Errors: std::bad_alloc; what was called may then be called again.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "freshet/indexer/index.h"
#include "graph_walk.h"
#include "upper_lists.h"

namespace freshet {

// Which slots are dead for the graph: they may be passed through, but nothing new is linked to them. A slot on which
// copies of its vector hang is not, whatever it is itself.
struct GraphDead {
  const std::uint64_t* bits = nullptr;       // by slot
  const std::uint32_t* next_same = nullptr;  // by slot, 0 where there is none
  [[nodiscard]] bool Is(std::uint32_t slot) const {
    return (std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(bits[slot / 64]))
                    .load(std::memory_order_relaxed) >>
                (slot % 64) &
            1) != 0 &&
           LoadLink(next_same + slot) == 0;
  }
};

// Where a walk begins: an upper id and its level; none in an empty graph.
struct GraphEntry {
  std::uint32_t upper = kNoSlot;
  std::uint32_t level = 0;
};

// What a search reads, in memory or in a mapped file.
struct GraphView {
  CodeRows rows;
  BaseLevel base{};
  UpperLevel upper{};
  GraphEntry entry;
  std::size_t nodes = 0;        // above every slot there is
  std::size_t upper_nodes = 0;  // above every upper id

  // The upper id whose slot a search of level 0 begins at. REQUIRES: not empty.
  [[nodiscard]] std::uint32_t Descend(const std::int8_t* query, CodeHead head) const;
  // Walks down to level 0 and begins there; false when the graph is empty. The query outlives the walk.
  bool Begin(const std::int8_t* query, CodeHead head, std::size_t width, double share, bool widenable,
             GraphWalk* walk) const;
};
// How many candidates a walk of this width expands at once.
[[nodiscard]] std::size_t ExpandOf(std::size_t width);

class Graph {
 public:
  Graph(const CodeRows& rows, GraphDead dead, const HnswOptions& options);

  // `slots` is above every slot that was ever linked.
  [[nodiscard]] GraphView View(const std::atomic<std::size_t>& slots) const;
  // A new node. REQUIRES: all of its row is written. On an error nothing leads to it.
  void Link(std::uint32_t slot, std::size_t slots);
  // One that is there and that nothing leads to: its links are chosen anew, and it is linked to again. `other` is any
  // other node, or kNoSlot: where to look from if no level above leads anywhere else.
  void Relink(std::uint32_t slot, std::size_t slots, std::uint32_t other = kNoSlot);

  // No list leads to what is in `gone` (a bitmap by slot) any more: each list that does is replaced by the best of what
  // remains of it and of what those led to (as FreshDiskANN consolidates, arXiv 2105.09613). First Unlink for each slot
  // that is not gone itself, then the same above, in slices, between which nodes may be linked: BeginUnlinkAbove,
  // UnlinkAbove until it returns false, FinishUnlinkAbove. When the searches of that time are over, FreeAbove makes
  // room. Unlink returns whether the slot leads nowhere now.
  bool Unlink(std::uint32_t slot, const std::vector<std::uint64_t>& gone);
  void BeginUnlinkAbove();
  // At most `most` upper ids.
  bool UnlinkAbove(const std::vector<std::uint64_t>& gone, std::size_t most);
  // Chooses another entry if it must; `live` is any slot that remains, or kNoSlot.
  void FinishUnlinkAbove(const std::vector<std::uint64_t>& gone, std::uint32_t live);
  void FreeAbove(const std::vector<std::uint64_t>& gone) noexcept;

  // For files and audits: what is above level 0 now, by upper id, and the lists, by upper id and level.
  using Upper = UpperLists::Upper;
  [[nodiscard]] std::vector<Upper> Uppers(GraphEntry* entry) const;
  [[nodiscard]] bool IsDead(std::uint32_t slot) const { return dead_.Is(slot); }
  [[nodiscard]] const std::uint32_t* Links(std::uint32_t slot) const { return Base().LinksOf(slot); }
  [[nodiscard]] const std::uint32_t* UpperLinks(std::uint32_t upper, std::size_t level) const {
    return uppers_.Level(level).LinksOf(upper);
  }
  // What a file held, in order of the upper ids. REQUIRES: validated; no search yet. False: more than there is room
  // for.
  void PutLinks(std::uint32_t slot, const std::uint32_t* list);
  [[nodiscard]] bool PutUpper(Upper upper, const std::uint32_t* lists);
  void PutEntry(GraphEntry entry) { entry_.store(Pack(entry)); }

  [[nodiscard]] std::size_t memory_bytes(std::size_t slots) const;

 private:
  static std::uint64_t Pack(GraphEntry entry) { return std::uint64_t{entry.level} << 32 | entry.upper; }
  static GraphEntry Unpack(std::uint64_t packed) {
    return {static_cast<std::uint32_t>(packed), static_cast<std::uint32_t>(packed >> 32)};
  }
  struct Near {
    float distance = 0;
    std::uint32_t node = 0;
  };
  // What Connect, Distances and Select work with: each thread's own. Reserve() makes room for what Connect needs, after
  // which it cannot fail: what is half linked to would be there for good.
  struct Scratch {
    std::vector<Near> all;
    std::vector<std::uint32_t> slots;
    std::vector<std::int32_t> dots;
    std::vector<std::uint32_t> kept;
    void Reserve(std::size_t links);
  };
  static Scratch& ThreadScratch();
  [[nodiscard]] std::uint32_t DrawLevel();
  [[nodiscard]] std::uint32_t BesideUpper(std::uint32_t upper) const;
  bool LinkFirst(std::uint32_t slot, std::uint32_t level);
  template <typename Level>
  void Choose(const Level& level, std::uint32_t node, std::uint32_t entry, std::size_t nodes, std::uint32_t* nearest,
              std::vector<Near>* links);
  template <typename Level>
  bool Connect(const Level& level, std::uint32_t from, std::uint32_t to);
  template <typename Level>
  void Distances(const Level& level, std::uint32_t node, std::vector<Near>* others, std::size_t most) const;
  template <typename Level>
  void Select(const Level& level, std::vector<Near>* sorted, std::size_t most, float slack) const;
  template <typename Level>
  bool UnlinkList(const Level& level, std::uint32_t node, const std::vector<std::uint64_t>& gone);
  static void WriteList(const std::uint32_t* list, const std::vector<Near>& links);
  [[nodiscard]] BaseLevel Base() const { return {links_.get(), 2 * options_.m}; }
  [[nodiscard]] std::mutex& LockOf(const std::uint32_t* list) {
    return locks_[reinterpret_cast<std::uintptr_t>(list) / 64 % locks_.size()];
  }

  const HnswOptions options_;
  const CodeRows rows_;
  const GraphDead dead_;
  Buffer<std::uint32_t> links_;  // by slot: {count, 2 m slots}
  UpperLists uppers_;
  std::atomic<std::uint64_t> entry_{Pack(GraphEntry{})};
  std::atomic<std::uint64_t> drawn_{0};
  std::array<std::mutex, 1024> locks_;  // of a list, while it is changed
  std::uint32_t next_above_ = 0;        // of UnlinkAbove: the next upper id it looks at, below end_above_
  std::uint32_t end_above_ = 0;
};

}  // namespace freshet
