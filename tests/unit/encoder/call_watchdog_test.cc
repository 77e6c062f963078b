#include "call_watchdog.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

TEST(CallWatchdogTest, ExpiresForTheCallThatDoesNotComeBack) {
  std::atomic<int> expired{0};
  CallWatchdog watchdog(milliseconds(50), [&] { ++expired; });
  const CallWatchdog::Call stuck(&watchdog);
  for (int i = 0; i < 3; ++i) {
    const CallWatchdog::Call quick(&watchdog);
    const CallWatchdog::Call inside(&watchdog);
  }
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(test::WaitFor([&] { return expired.load() > 0; }));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
  EXPECT_EQ(expired, 1);
}

// The list of calls holds whatever order they end in.
TEST(CallWatchdogTest, CallsThatComeBackAreForgotten) {
  std::atomic<bool> expired{false};
  CallWatchdog watchdog(std::chrono::hours(1), [&] { expired = true; });
  auto a = std::make_unique<CallWatchdog::Call>(&watchdog);
  auto b = std::make_unique<CallWatchdog::Call>(&watchdog);
  auto c = std::make_unique<CallWatchdog::Call>(&watchdog, 4);
  b.reset();
  a.reset();
  auto d = std::make_unique<CallWatchdog::Call>(&watchdog);
  d.reset();
  c.reset();
  EXPECT_FALSE(expired);
}

TEST(CallWatchdogTest, ManyThreadsAreWatchedAtOnce) {
  std::atomic<bool> expired{false};
  CallWatchdog watchdog(std::chrono::minutes(1), [&] { expired = true; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) const CallWatchdog::Call call(&watchdog);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(expired);
}

TEST(CallWatchdogTest, EndsTheProcessAndNamesTheModel) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(EndForModel("/models/shop/item_tower.pt", milliseconds(30'000)), ::testing::ExitedWithCode(1),
              "does not come back.*model=/models/shop/item_tower.pt waited_seconds=30");
}

}  // namespace
}  // namespace freshet
