#include "freshet/core/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace freshet {
namespace {

TEST(StatusTest, EveryCodeHasItsCategory) {
  EXPECT_EQ(CategoryOf(Code::kOk), Category::kOk);
  for (const Code code : {Code::kInvalidArgument, Code::kNotFound}) EXPECT_EQ(CategoryOf(code), Category::kInput);
  for (const Code code : {Code::kUnavailable, Code::kDeadlineExceeded, Code::kResourceExhausted}) {
    EXPECT_EQ(CategoryOf(code), Category::kTransient);
  }
  for (const Code code : {Code::kCancelled, Code::kCorruption, Code::kFailedPrecondition, Code::kConfig, Code::kIoError,
                          Code::kInternal}) {
    EXPECT_EQ(CategoryOf(code), Category::kPermanent);
  }
}

TEST(StatusTest, PrefixAddsContextAndLeavesOkAlone) {
  const Status status = Corruption("checksum differs").Prefixed("a.bin").Prefixed("items");
  EXPECT_EQ(status.code(), Code::kCorruption);
  EXPECT_EQ(status.ToString(), "corruption: items: a.bin: checksum differs");
  EXPECT_TRUE(Status::Ok().Prefixed("x").ok());
  EXPECT_EQ(Status::Ok().Prefixed("x").ToString(), "ok");
}

Result<std::unique_ptr<int>> Make(bool good) {
  if (!good) return NotFound("none");
  return std::make_unique<int>(7);
}
Result<int> Use(bool good) {
  FRESHET_ASSIGN(const std::unique_ptr<int> value, Make(good));
  FRESHET_TRY(Status::Ok());
  return *value;
}

TEST(ResultTest, CarriesAMoveOnlyValueOrTheReason) {
  ASSERT_TRUE(Use(true).ok());
  EXPECT_EQ(*Use(true), 7);
  EXPECT_FALSE(Use(false).ok());
  EXPECT_EQ(Use(false).status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace freshet
