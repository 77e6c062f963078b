#include "slice_lock.h"

#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(SliceLock, AWriterIsAlone) {
  SliceLock lock;
  int first = 0;  // the two differ only within a slice
  int second = 0;
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0};
  std::atomic<int> reads{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const std::shared_lock in(lock);
        if (first != second) ++torn;
        ++reads;
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    const std::unique_lock in(lock);
    ++first;
    ++second;
  }
  EXPECT_TRUE(test::WaitFor([&] { return reads > 100; }));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(second, 2000);
}

// A writer that comes again at once lets in who waited.
TEST(SliceLock, AReaderWaitsForOneSliceOnly) {
  SliceLock lock;
  lock.lock();
  std::atomic<int> slice_seen{-1};
  std::atomic<int> slice{0};
  std::atomic<bool> began{false};
  std::thread reader([&] {
    began = true;
    const std::shared_lock in(lock);
    slice_seen = slice.load();
  });
  ASSERT_TRUE(test::WaitFor([&] { return began.load(); }));
  // Whether the reader is in its wait yet cannot be seen from here; once it is, it is in before the slice after next.
  while (slice_seen < 0) {
    lock.unlock();
    lock.lock();
    ++slice;
  }
  lock.unlock();
  reader.join();
  EXPECT_GE(slice_seen, 0);
}

// Readers that come without end do not keep a writer out.
TEST(SliceLock, AWriterGetsInBetweenSteadyReaders) {
  SliceLock lock;
  std::atomic<bool> stop{false};
  std::atomic<int> inside{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const std::shared_lock in(lock);
        ++inside;
      }
    });
  }
  ASSERT_TRUE(test::WaitFor([&] { return inside > 100; }));
  for (int i = 0; i < 100; ++i) {
    lock.lock();
    lock.unlock();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace freshet
