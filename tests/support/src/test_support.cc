#include "freshet_test/test_support.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <thread>

namespace freshet::test {

TempDir::TempDir() {
  const char* root = std::getenv("TMPDIR");
  std::string pattern = std::string(root != nullptr ? root : "/tmp") + "/freshet-test-XXXXXX";
  path_ = ::mkdtemp(pattern.data()) != nullptr ? pattern : "";
  EXPECT_FALSE(path_.empty()) << "no temporary directory";
}

TempDir::~TempDir() {
  if (std::getenv("FRESHET_KEEP_TMP") != nullptr) {
    std::cerr << "kept: " << path_ << "\n";
    return;
  }
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::uint64_t TestSeed() {
  const char* given = std::getenv("FRESHET_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "FRESHET_SEED=" << seed << std::endl;
  return seed;
}

bool WaitFor(const std::function<bool()>& condition, int timeout_ms) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::string SourceRoot() { return FRESHET_SOURCE_ROOT; }

}  // namespace freshet::test
