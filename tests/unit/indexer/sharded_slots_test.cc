#include "sharded_slots.h"

#include <random>
#include <unordered_map>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(ShardedSlots, EqualsAMapWhateverIsAddedAndRemoved) {
  std::mt19937_64 random(test::TestSeed());
  ShardedSlots table;
  std::unordered_map<std::uint64_t, std::uint32_t> expected;
  std::vector<std::uint64_t> keys(50'000);  // by slot
  const auto key_of = [&](std::uint32_t slot) { return keys[slot]; };
  for (std::uint32_t slot = 0; slot < keys.size(); ++slot) {
    keys[slot] = slot % 2 == 0 ? slot : random();
    table.Add(keys[slot], slot, key_of);
    expected[keys[slot]] = slot;
    if (slot % 3 != 0) continue;
    const auto gone = static_cast<std::uint32_t>(random() % (slot + 1));
    table.Remove(keys[gone], gone, key_of);
    table.Remove(keys[gone], gone, key_of);  // no effect
    expected.erase(keys[gone]);
  }
  for (std::uint32_t slot = 0; slot < keys.size(); ++slot) {
    const auto it = expected.find(keys[slot]);
    const std::uint32_t found = table.Find(keys[slot], [&](std::uint32_t other) { return keys[other] == keys[slot]; });
    ASSERT_EQ(found, it == expected.end() ? SlotTable::kNone : it->second);
  }
  EXPECT_GE(table.bytes(), expected.size() * 5);
}

TEST(ShardedSlots, WhatIsReservedIsNotMadeAnew) {
  ShardedSlots table;
  std::vector<std::uint64_t> keys(100'000);
  const auto key_of = [&](std::uint32_t slot) { return keys[slot]; };
  for (std::uint32_t slot = 0; slot < keys.size(); ++slot) keys[slot] = slot;
  table.Reserve(keys.size(), key_of);
  const std::size_t bytes = table.bytes();
  for (std::uint32_t slot = 0; slot < keys.size(); ++slot) table.Add(slot, slot, key_of);
  EXPECT_EQ(table.bytes(), bytes);
}

}  // namespace
}  // namespace freshet
