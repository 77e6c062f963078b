#include "guarded.h"

#include <array>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "failing_allocations.h"
#include "freshet_test/test_support.h"
#include "rerank_rows.h"

namespace freshet {
namespace {

TEST(Guarded, ExceptionsBecomeStatuses) {
  EXPECT_OK(Guarded("to test", [] {}));
  EXPECT_EQ(Guarded("to test", [] { return NotFound("x"); }).code(), Code::kNotFound);
  EXPECT_EQ(Guarded("to test", []() -> Result<int> { return 7; }).value(), 7);
  EXPECT_EQ(Guarded("to test", []() -> Result<int> { throw std::bad_alloc(); }).status().code(),
            Code::kResourceExhausted);
  EXPECT_EQ(Guarded("to test", [] { throw std::length_error("vector"); }).code(), Code::kResourceExhausted);
  EXPECT_EQ(Guarded("to test", [] { throw std::system_error(EAGAIN, std::generic_category()); }).code(),
            Code::kResourceExhausted);
  EXPECT_EQ(Guarded("to test", [] { throw ScratchError(IoError("the disk")); }).code(), Code::kIoError);
  const Status other = Guarded("to test", [] { throw std::runtime_error("odd"); });
  EXPECT_EQ(other.code(), Code::kInternal);
  EXPECT_NE(other.message().find("odd"), std::string::npos);
}

// Neither what is called nor the error needs memory of its own.
TEST(Guarded, NeedsNoMemory) {
  const std::array<long, 8> much = {1, 2, 3, 4, 5, 6, 7, 8};
  long sum = 0;
  const std::uint64_t before = test::AllocationsOfThisThread();
  const Status fine = Guarded("to test", [&, much] {
    for (const long each : much) sum += each;
  });
  EXPECT_EQ(test::AllocationsOfThisThread(), before);
  EXPECT_OK(fine);
  EXPECT_EQ(sum, 36);
  Code code = Code::kOk;
  {
    const test::FailAllocations none(test::FailAllocations::Of::kThisThread, 0);
    code = Guarded("to test", [] { throw std::bad_alloc(); }).code();
  }
  EXPECT_EQ(code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace freshet
