// A SlotTable in shards: one that is full is made anew, and everything waits meanwhile; a shard is a 64th of that.
//
// Keys, hashes, slots: as in core's slot_table.h. Not thread-safe. Errors: std::bad_alloc, and nothing was changed.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "freshet/core/slot_table.h"

namespace freshet {

class ShardedSlots {
 public:
  template <typename Same>
  [[nodiscard]] std::uint32_t Find(std::uint64_t hash, const Same& same) const {
    return shards_[ShardOf(hash)].table.Find(hash, same);
  }
  void Prefetch(std::uint64_t hash) const { shards_[ShardOf(hash)].table.Prefetch(hash); }
  // Room for a key of this hash: the next Add of one cannot fail.
  template <typename HashOf>
  void MakeRoom(std::uint64_t hash, const HashOf& hash_of) {
    Shard& shard = shards_[ShardOf(hash)];
    if (shard.size >= shard.room) Grow(&shard, shard.size + shard.size / 2 + 32, hash_of);
  }
  // REQUIRES: the slot is not there yet. (Another slot of the same key may be, for as long as nobody asks for the key.)
  template <typename HashOf>
  void Add(std::uint64_t hash, std::uint32_t slot, const HashOf& hash_of) {
    MakeRoom(hash, hash_of);
    Shard& shard = shards_[ShardOf(hash)];
    shard.table.Add(hash, slot, hash_of);
    ++shard.size;
  }
  // No effect when it is not there.
  template <typename HashOf>
  void Remove(std::uint64_t hash, std::uint32_t slot, const HashOf& hash_of) {
    Shard& shard = shards_[ShardOf(hash)];
    if (shard.table.Find(hash, [&](std::uint32_t other) { return other == slot; }) == SlotTable::kNone) return;
    shard.table.Remove(hash, slot, hash_of);
    --shard.size;
  }
  // For so many in all, as evenly as hashes are.
  template <typename HashOf>
  void Reserve(std::size_t entries, const HashOf& hash_of) {
    for (Shard& shard : shards_) {
      const std::size_t each = entries / kShards + entries / kShards / 16 + 32;
      if (each > shard.room) Grow(&shard, each, hash_of);
    }
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kShards = 64;
  struct Shard {
    SlotTable table;
    std::size_t size = 0;
    std::size_t room = 0;
  };

  // Other bits than those a table looks at, which are of another product.
  [[nodiscard]] static std::size_t ShardOf(std::uint64_t hash) {
    return static_cast<std::size_t>((hash * 0xd6e8feb86659fd93ULL) >> 58);
  }
  template <typename HashOf>
  void Grow(Shard* shard, std::size_t room, const HashOf& hash_of) {
    const std::size_t before = shard->table.bytes();
    shard->table.Reserve(room, hash_of);
    bytes_ += shard->table.bytes() - before;
    shard->room = room;
  }

  std::array<Shard, kShards> shards_;
  std::size_t bytes_ = 0;
};

}  // namespace freshet
