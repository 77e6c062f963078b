#include "freshet/core/byte_arena.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace freshet {
namespace {

TEST(ByteArenaTest, WhatWasKeptStaysAsItWas) {
  ByteArena arena;
  std::vector<std::string> texts;
  std::vector<std::string_view> kept;
  for (std::size_t i = 0; i < 3'000; ++i) {
    // Many short ones, and some that are longer than any block.
    texts.emplace_back(i % 500 == 7 ? 300'000 : i % 700, static_cast<char>('a' + i % 26));
    kept.push_back(arena.Keep(texts.back()));
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(kept[i], texts[i]) << i;
    EXPECT_NE(kept[i].data(), nullptr) << "empty is not null";
    EXPECT_NE(kept[i].data(), texts[i].data());
  }
}

}  // namespace
}  // namespace freshet
