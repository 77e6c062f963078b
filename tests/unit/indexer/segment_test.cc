// The parts below the index: the epoch of readers.
#include "read_epoch.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

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
