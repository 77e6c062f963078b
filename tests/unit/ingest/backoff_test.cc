#include "backoff.h"

#include <gtest/gtest.h>

#include <set>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

TEST(BackoffTest, DoublesUpToItsBoundAndIsBetweenHalfAndAllOfIt) {
  Backoff backoff(milliseconds(50), milliseconds(2000), static_cast<std::uint32_t>(test::TestSeed()));
  for (int round = 0; round < 100; ++round) {
    EXPECT_TRUE(backoff.fresh());
    for (const int whole : {50, 100, 200, 400, 800, 1600, 2000, 2000, 2000}) {
      const milliseconds wait = backoff.Next();
      EXPECT_GE(wait, milliseconds(whole / 2));
      EXPECT_LE(wait, milliseconds(whole));
      EXPECT_FALSE(backoff.fresh());
    }
    backoff.Reset();
  }
}

TEST(BackoffTest, EnginesDoNotWaitInStep) {
  std::set<std::int64_t> waits;
  for (int engine = 0; engine < 20; ++engine)
    waits.insert(Backoff(milliseconds(1000), milliseconds(1000)).Next().count());
  EXPECT_GT(waits.size(), 10U);
}

TEST(BackoffTest, TheShortestWaitIsNotNone) {
  Backoff backoff(milliseconds(1), milliseconds(1));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(backoff.Next(), milliseconds(1));
}

}  // namespace
}  // namespace freshet
