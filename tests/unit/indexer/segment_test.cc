// The parts below the index: the table of slots, the epoch of readers.
#include "segment.h"

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(SlotTable, EqualsAMapWhateverIsAddedAndRemoved) {
  std::mt19937_64 random(test::TestSeed());
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
    ASSERT_EQ(found, known == expected.end() ? kNoSlot : known->second);
    if (found == kNoSlot) {
      keys.push_back(key);
      expected[key] = static_cast<std::uint32_t>(keys.size() - 1);
      table.Add(hash(key), expected[key], hash_of);
    } else if (random() % 2 == 0) {
      table.Remove(hash(key), found, hash_of);
      expected.erase(known);
    }
  }
}

TEST(ReadEpoch, WaitsForTheReadersThatAreThereAndForNoOther) {
  ReadEpoch epoch;
  epoch.Synchronize();
  auto first = std::make_unique<ReadEpoch::Reader>(epoch);
  std::atomic<bool> done{false};
  std::thread writer([&] {
    epoch.Synchronize();
    done = true;
  });
  // Later readers come and go, and are not waited for; the first is.
  for (int i = 0; i < 1000; ++i) const ReadEpoch::Reader later(epoch);
  EXPECT_FALSE(done);
  first.reset();
  writer.join();
  EXPECT_TRUE(done);
}

// What is retired before Synchronize returns is seen by no reader afterwards.
TEST(ReadEpoch, NoReaderSeesWhatWasRetired) {
  ReadEpoch epoch;
  std::atomic<int*> published{new int(0)};
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const ReadEpoch::Reader reader(epoch);
        ASSERT_GE(*published.load(), 0);  // a sanitizer tells if it is freed
      }
    });
  }
  for (int i = 1; i < 200; ++i) {
    int* old = published.exchange(new int(i));
    epoch.Synchronize();
    *old = -1;
    delete old;
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  delete published.load();
}

}  // namespace
}  // namespace freshet
