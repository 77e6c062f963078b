#include "freshet/encoder/split.h"

#include <algorithm>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr Part kA = Part::kTrain;
constexpr Part kV = Part::kValidation;
constexpr Part kT = Part::kTest;

std::vector<SplitEvent> Ten() {
  std::vector<SplitEvent> events;
  for (int i = 0; i < 10; ++i) events.push_back({i % 2, 100 + i});
  return events;
}

TEST(SplitTest, ByFractionKeepsBasketsWhole) {
  SplitOptions options;
  options.validation_fraction = 0.2;
  options.test_fraction = 0.2;
  std::vector<SplitEvent> events = Ten();
  EXPECT_EQ(SplitEvents(options, events).parts, (std::vector<Part>{kA, kA, kA, kA, kA, kA, kV, kV, kT, kT}));
  events[7].timestamp_ms = events[8].timestamp_ms;  // one basket over the border
  const SplitResult result = SplitEvents(options, events);
  EXPECT_EQ(result.parts, (std::vector<Part>{kA, kA, kA, kA, kA, kA, kV, kT, kT, kT}));
  EXPECT_EQ(result.test_from_ms, 108);
  EXPECT_EQ(result.validation_from_ms, 106);
}

TEST(SplitTest, ByTimeHasAnEnd) {
  SplitOptions options;
  options.kind = SplitKind::kTime;
  options.validation_from_ms = 103;
  options.test_from_ms = 106;
  options.test_until_ms = 108;
  EXPECT_EQ(SplitEvents(options, Ten()).parts,
            (std::vector<Part>{kA, kA, kA, kV, kV, kV, kT, kT, Part::kNone, Part::kNone}));
}

TEST(SplitTest, LastItemLeavesShortUsersToTraining) {
  SplitOptions options;
  options.kind = SplitKind::kLastItem;
  const std::vector<SplitEvent> events = {{0, 1}, {1, 1}, {0, 2}, {1, 2}, {0, 3}, {0, 4}};
  EXPECT_EQ(SplitEvents(options, events).parts, (std::vector<Part>{kA, kA, kA, kA, kV, kT}));
}

TEST(SplitTest, RandomIsOfTheSizeAskedForAndOfItsSeed) {
  SplitOptions options;
  options.kind = SplitKind::kRandom;
  options.validation_fraction = 0.1;
  options.test_fraction = 0.2;
  const std::vector<SplitEvent> events(1000);
  const std::vector<Part> parts = SplitEvents(options, events).parts;
  EXPECT_EQ(std::count(parts.begin(), parts.end(), kT), 200);
  EXPECT_EQ(std::count(parts.begin(), parts.end(), kV), 100);
  EXPECT_EQ(SplitEvents(options, events).parts, parts);
  options.seed = 2;
  EXPECT_NE(SplitEvents(options, events).parts, parts);
}

TEST(SplitTest, RefusesWhatLeavesNothing) {
  SplitOptions options;
  options.test_fraction = 0.95;
  EXPECT_EQ(options.Validate().code(), Code::kConfig);
  options = {};
  options.kind = SplitKind::kTime;
  EXPECT_EQ(options.Validate().code(), Code::kConfig) << "no date";
  options.validation_from_ms = 10;
  EXPECT_OK(options.Validate());
  options.test_from_ms = 10;
  EXPECT_EQ(options.Validate().code(), Code::kConfig) << "an empty validation part";
  options.test_from_ms = 20;
  options.test_until_ms = 20;
  EXPECT_EQ(options.Validate().code(), Code::kConfig) << "an empty test part";
  EXPECT_EQ(ParseSplitKind("by-moon").status().code(), Code::kConfig);
}

}  // namespace
}  // namespace freshet
