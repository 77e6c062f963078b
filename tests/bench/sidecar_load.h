// Load for freshet_bench sidecar: calls one after the other, or at times that do not depend on the answers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"

namespace freshet::bench {

// A kept HTTP/1.1 connection to "127.0.0.1:port", blocking. One thread.
class LoadConnection {
 public:
  [[nodiscard]] static Result<std::unique_ptr<LoadConnection>> Open(const std::string& address);
  ~LoadConnection();
  LoadConnection(const LoadConnection&) = delete;
  LoadConnection& operator=(const LoadConnection&) = delete;

  // Sends a whole request and reads the whole answer. Errors: kUnavailable, kInternal (not 200, with its beginning).
  // The body is valid until the next call.
  [[nodiscard]] Result<std::string_view> Call(std::string_view request);
  void Forget() { std::string().swap(received_); }  // the last answer

 private:
  explicit LoadConnection(int fd) : fd_(fd) {}
  const int fd_;
  std::string received_;
};

// A whole POST request.
[[nodiscard]] std::string PostRequest(std::string_view target, std::string_view content_type, std::string_view body);

// Whole requests of the best `k` for a vector.
[[nodiscard]] std::string JsonRequest(std::span<const float> vector, std::size_t k);
[[nodiscard]] std::string BinaryRequest(std::span<const float> vector, std::size_t k);

// One call of a contender: `worker` below the number of workers, `query` which of the prepared ones.
using LoadCall = std::function<Status(std::size_t worker, std::size_t query)>;

// Until that time by Seconds(). Does not spin: the cores are the servers'.
void WaitUntil(double seconds);

struct LoadResult {
  double per_second = 0;
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;
};

// Each worker calls again as soon as it has its answer. `calls` in all.
[[nodiscard]] Result<LoadResult> ClosedLoop(const LoadCall& call, std::size_t workers, std::size_t calls);
// Calls begin at times of a Poisson process of this rate, and their time counts from there, whether or not a worker was
// free: corrected for coordinated omission.
[[nodiscard]] Result<LoadResult> OpenLoop(const LoadCall& call, std::size_t workers, std::size_t calls,
                                          double per_second, std::uint64_t seed);

}  // namespace freshet::bench
