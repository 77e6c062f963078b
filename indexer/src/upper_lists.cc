#include "upper_lists.h"

#include <algorithm>
#include <new>

namespace freshet {

UpperLists::UpperLists(std::size_t capacity, std::size_t m)
    : m_(m),
      ids_(capacity + kReserve),
      lists_(RoomOf(capacity)),
      slots_(ids_),
      first_(ids_),
      levels_(ids_),
      rooms_(ids_),
      links_(lists_ * (m + 1)) {}

std::uint32_t UpperLists::TakeFree(std::uint32_t room) {
  if (free_[room].empty()) return kNoSlot;
  const std::uint32_t id = free_[room].back();
  free_[room].pop_back();
  return id;
}

std::uint32_t UpperLists::Append(std::uint32_t room, std::size_t kept) {
  const std::uint32_t id = count_.load(std::memory_order_relaxed);
  if (id + kept >= ids_ || used_lists_ + room + kept > lists_) return kNoSlot;
  std::vector<std::uint32_t>& free = free_[room];
  // So that giving back never needs memory.
  if (free.capacity() <= of_room_[room]) free.reserve(2 * of_room_[room] + 16);
  ++of_room_[room];
  first_[id] = static_cast<std::uint32_t>(used_lists_);
  rooms_[id] = static_cast<std::uint8_t>(room);
  used_lists_ += room;
  count_.store(id + 1, std::memory_order_release);
  return id;
}

void UpperLists::Begin(std::uint32_t id, std::uint32_t slot, std::uint32_t level) {
  slots_[id] = slot;
  levels_[id] = static_cast<std::uint8_t>(level);
  for (std::uint32_t l = 1; l <= level; ++l) {
    std::atomic_ref(links_[(std::size_t{first_[id]} + l - 1) * (m_ + 1)]).store(0, std::memory_order_release);
  }
  if (watching_) watched_.push_back(id);
}

void UpperLists::MakeRoomToWatch() {
  if (watching_ && watched_.size() == watched_.capacity()) watched_.reserve(2 * watched_.size() + 64);
}

std::uint32_t UpperLists::Take(std::uint32_t slot, std::uint32_t* level) {
  const std::lock_guard lock(mu_);
  MakeRoomToWatch();
  for (; *level > 0; --*level) {
    std::uint32_t id = TakeFree(*level);
    if (id == kNoSlot) id = Append(*level, kReserve);
    for (std::uint32_t room = *level + 1; id == kNoSlot && room <= kMaxLevel; ++room) id = TakeFree(room);
    if (id == kNoSlot) continue;
    Begin(id, slot, *level);
    return id;
  }
  return kNoSlot;
}

std::uint32_t UpperLists::TakeEntry(std::uint32_t slot) {
  const std::lock_guard lock(mu_);
  MakeRoomToWatch();
  std::uint32_t id = kNoSlot;
  for (std::uint32_t room = 1; id == kNoSlot && room <= kMaxLevel; ++room) id = TakeFree(room);
  if (id == kNoSlot) id = Append(1, 0);
  if (id == kNoSlot) throw std::bad_alloc();
  Begin(id, slot, 1);
  return id;
}

std::uint32_t UpperLists::Put(std::uint32_t slot, std::uint32_t level) {
  const std::lock_guard lock(mu_);
  const std::uint32_t id = Append(level, 0);
  if (id != kNoSlot) Begin(id, slot, level);
  return id;
}

void UpperLists::GiveBack(std::uint32_t id) noexcept {
  const std::lock_guard lock(mu_);
  slots_[id] = kNoSlot;
  free_[rooms_[id]].push_back(id);
}

void UpperLists::Watch(bool on) {
  const std::lock_guard lock(mu_);
  watching_ = on;
  watched_.clear();
}

bool UpperLists::NextWatched(std::uint32_t* id) {
  const std::lock_guard lock(mu_);
  if (watched_.empty()) return false;
  *id = watched_.back();
  watched_.pop_back();
  return true;
}

std::vector<UpperLists::Upper> UpperLists::All() const {
  const std::lock_guard lock(mu_);
  std::vector<Upper> all(count());
  for (std::uint32_t id = 0; id < all.size(); ++id) {
    if (slots_[id] != kNoSlot) all[id] = {slots_[id], levels_[id]};
  }
  return all;
}

}  // namespace freshet
