// What tests share: temporary directories, seeds, conditions to wait on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "freshet/core/status.h"

namespace freshet::test {

// A directory of this test's own, removed at the end unless FRESHET_KEEP_TMP is set.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// FRESHET_SEED, or a fresh one; printed, so that a failure can be run again.
[[nodiscard]] std::uint64_t TestSeed();

// Waits until `condition` holds, looking every few milliseconds; false after `timeout_ms`.
[[nodiscard]] bool WaitFor(const std::function<bool()>& condition, int timeout_ms = 30'000);

// The repository's root, for committed test data.
[[nodiscard]] std::string SourceRoot();

}  // namespace freshet::test

#define ASSERT_OK(expr)                                                               \
  do {                                                                                \
    const auto& assert_ok_result = (expr);                                            \
    ASSERT_TRUE(assert_ok_result.ok()) << ::freshet::test::Explain(assert_ok_result); \
  } while (false)
#define EXPECT_OK(expr)                                                               \
  do {                                                                                \
    const auto& expect_ok_result = (expr);                                            \
    EXPECT_TRUE(expect_ok_result.ok()) << ::freshet::test::Explain(expect_ok_result); \
  } while (false)

namespace freshet::test {
inline std::string Explain(const Status& status) { return status.ToString(); }
template <typename T>
std::string Explain(const Result<T>& result) {
  return result.status().ToString();
}
}  // namespace freshet::test
