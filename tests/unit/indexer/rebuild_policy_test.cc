#include "rebuild_policy.h"

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr double kBound = 0.9;
constexpr RecallEstimate kBad{.5, .6};

const RebuildPolicy::Time kStart = RebuildPolicy::Time{} + hours(1000);

TEST(RebuildPolicy, AFailedOneIsTriedAgainLaterEachTime) {
  RebuildPolicy policy;
  RebuildPolicy::Time now = kStart;
  EXPECT_TRUE(policy.MayBegin(now));
  RebuildPolicy::Duration before{0};
  for (int i = 0; i < 12; ++i) {
    policy.Begun(now, false);
    policy.Failed(now);
    EXPECT_FALSE(policy.MayBegin(now));
    EXPECT_FALSE(policy.IsWorthIt(now, kBad, kBound));
    RebuildPolicy::Duration wait{0};
    while (!policy.MayBegin(now + wait)) wait += seconds(1);
    EXPECT_GE(wait, std::min<RebuildPolicy::Duration>(2 * before, RebuildPolicy::kLongestRetry));
    EXPECT_LE(wait, RebuildPolicy::kLongestRetry);
    before = wait;
    now += wait;
  }
  EXPECT_EQ(before, RebuildPolicy::kLongestRetry);
  // One that took long waits long, whatever came before.
  policy.Begun(now, false);
  policy.Failed(now + hours(1));
  EXPECT_FALSE(policy.MayBegin(now + hours(4)));
  EXPECT_TRUE(policy.MayBegin(now + hours(5)));
  // And success forgets it.
  policy.Begun(now + hours(5), false);
  policy.Done(now + hours(6));
  policy.Begun(now + hours(6), false);
  policy.Failed(now + hours(6));
  EXPECT_TRUE(policy.MayBegin(now + hours(6) + RebuildPolicy::kFirstRetry));
}

TEST(RebuildPolicy, OneThatDidNotHelpRecallIsNotTriedAgain) {
  RebuildPolicy policy;
  ASSERT_TRUE(policy.IsWorthIt(kStart, kBad, kBound));
  policy.Begun(kStart, true);
  policy.Done(kStart + minutes(1));
  // As bad as before: that is what a fresh build has.
  for (int hour = 0; hour < 100; ++hour) EXPECT_FALSE(policy.IsWorthIt(kStart + hours(hour), kBad, kBound));
  // It fell below that.
  EXPECT_TRUE(policy.IsWorthIt(kStart + hours(100), {.4, .45}, kBound));
}

TEST(RebuildPolicy, ForRecallTheyComeEachTimeTwiceAsFarApart) {
  RebuildPolicy policy;
  RebuildPolicy::Time now = kStart;
  RebuildPolicy::Duration before = RebuildPolicy::kFirstInterval / 2;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(policy.IsWorthIt(now, kBad, kBound));
    policy.Begun(now, true);
    policy.Done(now);
    EXPECT_FALSE(policy.IsWorthIt(now, {.95, .97}, kBound));  // well when it was fresh
    RebuildPolicy::Duration wait{0};
    while (!policy.IsWorthIt(now + wait, kBad, kBound)) wait += minutes(1);
    EXPECT_GE(wait, 2 * before);
    before = wait;
    now += wait;
  }
  // After a long time that went well it is as at first.
  now += hours(1000);
  policy.Begun(now, true);
  policy.Done(now);
  EXPECT_FALSE(policy.IsWorthIt(now, {.95, .97}, kBound));
  EXPECT_TRUE(policy.IsWorthIt(now + RebuildPolicy::kFirstInterval, kBad, kBound));
}

TEST(RebuildPolicy, WhatLinkingAgainDoesNotBringBackIsRebuiltForOnceWhereThatDoesNotHelp) {
  constexpr double kMost = 0.01;
  RebuildPolicy policy;
  EXPECT_FALSE(policy.IsWorthItForReach(kStart, .05, kMost, true)) << "it is linked again first";
  EXPECT_FALSE(policy.IsWorthItForReach(kStart, .05, kMost, false)) << "that is not done yet";
  EXPECT_FALSE(policy.IsWorthItForReach(kStart, .01, kMost, true)) << "it helped";
  EXPECT_FALSE(policy.IsWorthItForReach(kStart, .05, kMost, true)) << "others, that are linked again first";
  EXPECT_TRUE(policy.IsWorthItForReach(kStart, .05, kMost, true));
  policy.Begun(kStart, true);
  policy.Done(kStart + minutes(1));
  // A fresh build has as many: for as many there is none, however often they are found.
  for (int hour = 1; hour < 100; ++hour) {
    EXPECT_FALSE(policy.IsWorthItForReach(kStart + hours(hour), .05, kMost, true));
  }
  EXPECT_TRUE(policy.IsWorthItForReach(kStart + hours(100), .061, kMost, true));
}

TEST(RebuildPolicy, ForReachAndRecallTheyKeepTheSameDistance) {
  RebuildPolicy policy;
  policy.Begun(kStart, true);
  policy.Done(kStart);
  EXPECT_FALSE(policy.IsWorthIt(kStart, {.95, .97}, kBound));
  RebuildPolicy::Time now = kStart;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(policy.IsWorthItForReach(now, i == 0 ? 0 : .5, .01, true));
    EXPECT_FALSE(policy.IsWorthIt(now, kBad, kBound));
    now += RebuildPolicy::kFirstInterval / 4;
  }
  now = kStart + RebuildPolicy::kFirstInterval;
  EXPECT_TRUE(policy.IsWorthItForReach(now, .5, .01, true));
  EXPECT_TRUE(policy.IsWorthIt(now, kBad, kBound));
}

TEST(RebuildPolicy, ForMemoryOneMustGiveBackEnough) {
  RebuildPolicy policy;
  EXPECT_TRUE(policy.IsWorthItForMemory(kStart, 120, 80, 100));
  EXPECT_FALSE(policy.IsWorthItForMemory(kStart, 100, 80, 100)) << "not over it";
  EXPECT_FALSE(policy.IsWorthItForMemory(kStart, 120, 101, 100)) << "the living need more";
  EXPECT_FALSE(policy.IsWorthItForMemory(kStart, 110, 99, 100)) << "a tenth is not worth it";
  policy.Begun(kStart, false);
  policy.Done(kStart + minutes(1));
  EXPECT_FALSE(policy.IsWorthItForMemory(kStart + minutes(2), 120, 80, 100));
  EXPECT_TRUE(policy.IsWorthItForMemory(kStart + minutes(1) + RebuildPolicy::kFirstInterval, 120, 80, 100));
}

TEST(RebuildPolicy, DoubtIsNoReason) {
  RebuildPolicy policy;
  EXPECT_FALSE(policy.IsWorthIt(kStart, {.85, .92}, kBound));
  EXPECT_TRUE(policy.IsWorthIt(kStart, {.85, .88}, kBound));
}

}  // namespace
}  // namespace freshet
