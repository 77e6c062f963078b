#include "upper_lists.h"

#include <map>
#include <random>
#include <set>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr std::size_t kCapacity = 64;
constexpr std::size_t kM = 2;

std::uint32_t* ListOf(UpperLists* lists, std::uint32_t id, std::uint32_t level) {
  return const_cast<std::uint32_t*>(lists->Level(level).LinksOf(id));
}

// Far higher than chance makes them: a slot gets what there is, and then nothing, and an entry is to be had all the
// same.
TEST(UpperLists, WhereTheRoomEndsSlotsGetFewerLevelsAndThenNone) {
  UpperLists lists(kCapacity, kM);
  std::uint32_t first = 5;  // or the heights would go in without a rest
  ASSERT_NE(lists.Take(0, &first), kNoSlot);
  std::size_t taken = first;
  std::uint32_t lowest = UpperLists::kMaxLevel;
  std::uint32_t slot = 0;
  for (; slot < 10 * kCapacity; ++slot) {
    std::uint32_t level = UpperLists::kMaxLevel;
    const std::uint32_t id = lists.Take(slot, &level);
    if (id == kNoSlot) {
      EXPECT_EQ(level, 0U);
      break;
    }
    ASSERT_EQ(lists.SlotOf(id), slot);
    ASSERT_EQ(lists.LevelOf(id), level);
    lowest = std::min(lowest, level);
    taken += level;
  }
  EXPECT_LT(slot, 10 * kCapacity) << "there was no bound";
  EXPECT_LT(lowest, UpperLists::kMaxLevel);
  EXPECT_LE(taken, UpperLists::RoomOf(kCapacity));
  const std::uint32_t entry = lists.TakeEntry(1000);
  EXPECT_EQ(lists.SlotOf(entry), 1000U);
  EXPECT_EQ(lists.LevelOf(entry), 1U);
}

// Heights come and go in other shares than those they were first taken with.
TEST(UpperLists, NoTwoShareRoomThroughChurn) {
  std::mt19937_64 random(test::TestSeed());
  UpperLists lists(kCapacity, kM);
  std::map<std::uint32_t, std::uint32_t> held;  // id, level
  const auto mark = [](std::uint32_t id, std::uint32_t level) { return id * 100 + level; };
  std::size_t lowered = 0;
  for (int step = 0; step < 20'000; ++step) {
    // Now low ones, now high ones.
    const std::uint32_t most = step / 2000 % 2 == 0 ? 2 : UpperLists::kMaxLevel;
    if (held.size() < kCapacity && random() % 2 == 0) {
      std::uint32_t level = 1 + static_cast<std::uint32_t>(random() % most);
      const std::uint32_t wanted = level;
      const std::uint32_t id = lists.Take(7, &level);
      ASSERT_LE(level, wanted);
      if (id == kNoSlot) {
        ++lowered;
        continue;
      }
      lowered += level < wanted ? 1 : 0;
      ASSERT_TRUE(held.emplace(id, level).second) << "taken twice";
      for (std::uint32_t l = 1; l <= level; ++l) {
        ASSERT_EQ(ListOf(&lists, id, l)[0], 0U) << "not empty";
        for (std::size_t i = 0; i <= kM; ++i) ListOf(&lists, id, l)[i] = mark(id, l);
      }
    } else if (!held.empty()) {
      const auto it = std::next(held.begin(), static_cast<std::ptrdiff_t>(random() % held.size()));
      for (std::uint32_t l = 1; l <= it->second; ++l) {
        for (std::size_t i = 0; i <= kM; ++i) ASSERT_EQ(ListOf(&lists, it->first, l)[i], mark(it->first, l));
      }
      lists.GiveBack(it->first);
      held.erase(it);
    }
  }
  EXPECT_LE(lists.count(), kCapacity + 64);
  EXPECT_GT(lowered, 0U) << "the bound was never met";
  std::size_t there = 0;
  for (const UpperLists::Upper& upper : lists.All()) there += upper.slot != kNoSlot ? 1 : 0;
  EXPECT_EQ(there, held.size());
}

TEST(UpperLists, WhatIsTakenWhileWatchedIsToldOnce) {
  UpperLists lists(kCapacity, kM);
  std::uint32_t level = 1;
  (void)lists.Take(1, &level);
  lists.Watch(true);
  const std::set<std::uint32_t> taken = {lists.Take(2, &level), lists.Take(3, &level)};
  std::set<std::uint32_t> told;
  for (std::uint32_t id = 0; lists.NextWatched(&id);) told.insert(id);
  EXPECT_EQ(told, taken);
  lists.Watch(false);
  (void)lists.Take(4, &level);
  std::uint32_t id = 0;
  EXPECT_FALSE(lists.NextWatched(&id));
}

}  // namespace
}  // namespace freshet
