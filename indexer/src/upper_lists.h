// The levels above level 0: who is there, under which upper id, and the room of its lists.
//
// An id keeps the room that it was first taken with; given back, it is taken again by a slot that needs no more. The
// room is bounded: where a level's share is used up (levels are drawn by chance, and what is given back is of one
// height each), a slot gets fewer levels than it drew, or none, and is a node of level 0 alone.
// Thread-safety: Take, TakeEntry, GiveBack and All from any thread; what is read of an id that a list leads to, without
// a lock. An id is given back only when no search can be at it. Errors: std::bad_alloc.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "graph_walk.h"

namespace freshet {

inline constexpr std::uint32_t kNoSlot = ~std::uint32_t{0};

class UpperLists {
 public:
  static constexpr std::uint32_t kMaxLevel = 16;

  // `m` links a list, for a graph of at most `capacity` slots.
  UpperLists(std::size_t capacity, std::size_t m);

  // Lists there may be, of all ids together.
  [[nodiscard]] static std::size_t RoomOf(std::size_t capacity) { return 2 * capacity + kReserve; }

  // An id for the slot, its lists of levels 1 to *level empty; as many levels as there is room for, *level says how
  // many. kNoSlot, and *level 0: for none.
  [[nodiscard]] std::uint32_t Take(std::uint32_t slot, std::uint32_t* level);
  // One of level 1 for what a search is to begin at, which must be somewhere: some room is kept for it.
  [[nodiscard]] std::uint32_t TakeEntry(std::uint32_t slot);
  // The next id, at just this level: for files, before anything was given back. kNoSlot: no room.
  [[nodiscard]] std::uint32_t Put(std::uint32_t slot, std::uint32_t level);
  void GiveBack(std::uint32_t id) noexcept;

  // From now on, what is taken is kept in mind; false: no more.
  void Watch(bool on);
  // One of those, each once; false: there is none.
  [[nodiscard]] bool NextWatched(std::uint32_t* id);

  struct Upper {
    std::uint32_t slot = kNoSlot;
    std::uint32_t level = 0;
  };
  // Of one moment, by id.
  [[nodiscard]] std::vector<Upper> All() const;

  [[nodiscard]] UpperLevel Level(std::size_t level) const {
    return {links_.get(), m_, slots_.get(), first_.get(), level};
  }
  // Above every id.
  [[nodiscard]] std::uint32_t count() const { return count_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint32_t SlotOf(std::uint32_t id) const { return slots_[id]; }
  [[nodiscard]] std::uint32_t LevelOf(std::uint32_t id) const { return levels_[id]; }
  // Of an id that was put: its lists, level 1 first.
  [[nodiscard]] std::uint32_t* ListsOf(std::uint32_t id) { return links_.get() + std::size_t{first_[id]} * (m_ + 1); }

 private:
  static constexpr std::size_t kReserve = 64;  // of ids, and of lists, for entries alone

  // REQUIRES for all: mu_.
  [[nodiscard]] std::uint32_t TakeFree(std::uint32_t room);
  [[nodiscard]] std::uint32_t Append(std::uint32_t room, std::size_t kept);
  void Begin(std::uint32_t id, std::uint32_t slot, std::uint32_t level);
  void MakeRoomToWatch();

  const std::size_t m_;
  const std::size_t ids_;
  const std::size_t lists_;
  Buffer<std::uint32_t> slots_;  // by id; kNoSlot: given back
  Buffer<std::uint32_t> first_;  // by id: its list of level 1, in links_
  Buffer<std::uint8_t> levels_;  // by id
  Buffer<std::uint8_t> rooms_;   // by id: how many lists it has room for
  Buffer<std::uint32_t> links_;  // lists of {count, m ids}, those of an id one after another
  std::atomic<std::uint32_t> count_{0};

  mutable std::mutex mu_;
  // Guarded by mu_:
  std::size_t used_lists_ = 0;
  std::array<std::vector<std::uint32_t>, kMaxLevel + 1> free_;  // by room; with capacity for every id of that room
  std::array<std::size_t, kMaxLevel + 1> of_room_{};            // ids
  bool watching_ = false;
  std::vector<std::uint32_t> watched_;
};

}  // namespace freshet
