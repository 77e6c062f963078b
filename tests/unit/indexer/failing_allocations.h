// Makes operator new of this test program fail when it is told to, and counts its calls.
#pragma once

#include <cstddef>
#include <cstdint>

namespace freshet::test {

// While one is there (one at a time), the allocations of some threads fail.
class FailAllocations {
 public:
  enum class Of { kThisThread, kOtherThreads };
  enum class Times { kOnce, kAlways };
  // The first `after` of them succeed.
  FailAllocations(Of of, std::size_t after, Times times = Times::kAlways);
  ~FailAllocations();
  FailAllocations(const FailAllocations&) = delete;
  FailAllocations& operator=(const FailAllocations&) = delete;
  // Whether one has failed.
  [[nodiscard]] bool failed() const;
};

[[nodiscard]] std::uint64_t AllocationsOfThisThread();

}  // namespace freshet::test
