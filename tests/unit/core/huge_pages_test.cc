#include "freshet/core/huge_pages.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

using Numbers = std::vector<std::uint32_t, HugePageAllocator<std::uint32_t>>;

TEST(HugePages, AnArrayKeepsItsValuesAsItGrowsFromSmallToHuge) {
  Numbers numbers;
  for (std::uint32_t i = 0; i < 3'000'000; ++i) numbers.push_back(i);
  for (std::uint32_t i = 0; i < numbers.size(); ++i) ASSERT_EQ(numbers[i], i);
  const Numbers copy = numbers;
  EXPECT_TRUE(copy == numbers);
}

TEST(HugePages, OnlyWhatFillsOneBeginsAtOne) {
  const Numbers huge(kHugePage / sizeof(std::uint32_t));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(huge.data()) % kHugePage, 0U);
  const Numbers empty;
  EXPECT_EQ(empty.data(), nullptr);
  // Of as many small ones not all begin at a huge page by chance, so that they are packed as any others.
  std::vector<Numbers> small(64, Numbers(16));
  const bool spread = std::all_of(small.begin(), small.end(), [](const Numbers& numbers) {
    return reinterpret_cast<std::uintptr_t>(numbers.data()) % kHugePage == 0;
  });
  EXPECT_FALSE(spread);
}

}  // namespace
}  // namespace freshet::test
