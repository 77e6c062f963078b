#include "freshet/core/fault.h"

#include <gtest/gtest.h>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

class FaultTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_OK(ArmFaults("")); }
};

TEST_F(FaultTest, DisarmedPointsPass) { EXPECT_OK(FaultPoint("store.write")); }

TEST_F(FaultTest, FiresAtTheNthPassOnly) {
  ASSERT_OK(ArmFaults("store.write=error@2, store.sync=stop"));
  EXPECT_OK(FaultPoint("store.write"));
  EXPECT_EQ(FaultPoint("store.write").code(), Code::kUnavailable);
  EXPECT_OK(FaultPoint("store.write"));
  EXPECT_OK(FaultPoint("store.other"));
  EXPECT_EQ(FaultPoint("store.sync").code(), Code::kInternal);
  EXPECT_OK(FaultPoint("store.sync"));
}

TEST_F(FaultTest, AMalformedPlanArmsNothing) {
  for (const char* plan : {"x", "x=explode", "x=error@0", "x=error@y", "x=sleep:-1", "x=sleep:", "a=error,b"}) {
    EXPECT_EQ(ArmFaults(plan).code(), Code::kConfig) << plan;
    EXPECT_OK(FaultPoint("x"));
    EXPECT_OK(FaultPoint("a"));
  }
}

TEST_F(FaultTest, KillEndsTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        (void)ArmFaults("here=kill");
        (void)FaultPoint("here");
      },
      ::testing::KilledBySignal(SIGKILL), "");
}

}  // namespace
}  // namespace freshet
