#include "freshet/core/slot_table.h"

#include <map>
#include <random>

#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

TEST(SlotTable, EqualsAMapWhateverIsAddedAndRemoved) {
  std::mt19937_64 random(TestSeed());
  SlotTable table;
  std::map<std::uint64_t, std::uint32_t> expected;
  std::vector<std::uint64_t> keys;  // by slot
  // Few hashes, so that runs of equal ones form, around the end, too.
  const auto hash = [](std::uint64_t key) { return key % 37 * 0x9fb21c651e98df25ULL; };
  const auto hash_of = [&](std::uint32_t slot) { return hash(keys[slot]); };
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t key = random() % 300;
    const std::uint32_t found = table.Find(hash(key), [&](std::uint32_t slot) { return keys[slot] == key; });
    const auto known = expected.find(key);
    ASSERT_EQ(found, known == expected.end() ? SlotTable::kNone : known->second);
    if (found == SlotTable::kNone) {
      keys.push_back(key);
      expected[key] = static_cast<std::uint32_t>(keys.size() - 1);
      table.Add(hash(key), expected[key], hash_of);
    } else if (random() % 2 == 0) {
      table.Remove(hash(key), found, hash_of);
      expected.erase(known);
    }
  }
}

}  // namespace
}  // namespace freshet::test
