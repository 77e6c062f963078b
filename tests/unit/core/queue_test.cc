#include "freshet/core/queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

TEST(BoundedQueueTest, KeepsOrderAndCountsBytes) {
  BoundedQueue<std::unique_ptr<int>> queue(3, 100);
  ASSERT_TRUE(queue.Push(std::make_unique<int>(1), 40));
  ASSERT_TRUE(queue.Push(std::make_unique<int>(2), 50));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.bytes(), 90u);
  EXPECT_EQ(**queue.Pop(), 1);
  EXPECT_EQ(queue.bytes(), 50u);
  EXPECT_EQ(**queue.Pop(), 2);
  EXPECT_EQ(queue.bytes(), 0u);
  EXPECT_FALSE(queue.PopFor(milliseconds(1)).has_value());
  EXPECT_FALSE(queue.drained());
}

// A pusher that must wait goes on only after a pop.
void ExpectBlocks(BoundedQueue<int>* queue, std::size_t bytes) {
  std::atomic<bool> popping{false};
  std::atomic<bool> after_pop{false};
  std::thread pusher([&] {
    EXPECT_TRUE(queue->Push(9, bytes));
    after_pop = popping.load();
  });
  popping = true;
  EXPECT_TRUE(queue->Pop().has_value());
  pusher.join();
  EXPECT_TRUE(after_pop.load());
}

TEST(BoundedQueueTest, AFullQueueBlocksByElements) {
  BoundedQueue<int> queue(1, 100);
  ASSERT_TRUE(queue.Push(1, 1));
  ExpectBlocks(&queue, 1);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(BoundedQueueTest, NeverExceedsItsBounds) {
  BoundedQueue<int> queue(4, 10);
  constexpr int kThreads = 3;
  constexpr int kEach = 500;
  std::vector<std::thread> pushers;
  for (int t = 0; t < kThreads; ++t) {
    pushers.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) EXPECT_TRUE(queue.Push(i, 4));
    });
  }
  for (int i = 0; i < kThreads * kEach; ++i) {
    EXPECT_LE(queue.bytes(), 10u);
    EXPECT_LE(queue.size(), 2u) << "three of 4 bytes are above 10";
    ASSERT_TRUE(queue.Pop().has_value());
  }
  for (std::thread& pusher : pushers) pusher.join();
}

TEST(BoundedQueueTest, AnOversizedElementPassesWhenTheQueueIsEmpty) {
  BoundedQueue<int> queue(4, 10);
  EXPECT_TRUE(queue.Push(1, 1000));
  EXPECT_EQ(queue.Pop(), 1);
}

TEST(BoundedQueueTest, CloseDrainsThenEnds) {
  BoundedQueue<int> queue(4, 10);
  ASSERT_TRUE(queue.Push(1, 1));
  queue.Close();
  queue.Close();
  EXPECT_FALSE(queue.Push(2, 1));
  EXPECT_FALSE(queue.drained());
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), std::nullopt);
  EXPECT_TRUE(queue.drained());
}

TEST(BoundedQueueTest, CloseWakesBothSides) {
  BoundedQueue<int> full(1, 10);
  ASSERT_TRUE(full.Push(1, 1));
  std::thread pusher([&] { EXPECT_FALSE(full.Push(2, 1)); });
  BoundedQueue<int> empty(1, 10);
  std::thread popper([&] { EXPECT_EQ(empty.Pop(), std::nullopt); });
  full.Close();
  empty.Close();
  pusher.join();
  popper.join();
}

}  // namespace
}  // namespace freshet
