// Who asked and how it went: ids of requests, and lines of the log.
//
// Place in the flow: HttpSession names each request by it, and tells each answer. Thread-safe. What fails is logged, at
// most ten lines a second, as the log must not grow with the traffic; what was left out is counted in the next line.
// Every request is logged where the operator asked for it (`access_log`). Never logs ids of items or users: paths are
// logged as their templates. Trace ids follow the W3C Trace Context, version 00.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "freshet/core/clock.h"

namespace freshet {

// What one request is known by.
struct RequestTag {
  std::string request_id;  // 1 to 128 visible ASCII characters
  std::string trace_id;    // 32 hexadecimal digits; empty: none came
};

// How it was answered.
struct RequestOutcome {
  std::string_view route;   // the template of the path
  std::string_view method;  // empty: not read
  int status = 0;
  std::int64_t arrived_us = 0;     // monotonic: when the whole request had come
  bool is_probe = false;           // whose 503 is no failure
  std::string_view protocol = {};  // where it is not HTTP
};

// At most so many lines in a second. Thread-safe.
class LineLimit {
 public:
  explicit LineLimit(int per_second) : per_second_(per_second) {}
  // How many were left out since the last one that was not; nothing: leave this one out.
  [[nodiscard]] std::optional<std::uint64_t> Take(std::int64_t now_us);

 private:
  const int per_second_;
  std::mutex mu_;
  // Guarded by mu_:
  std::optional<std::int64_t> second_us_;  // when the current one began
  int lines_ = 0;                          // in it
  std::uint64_t left_out_ = 0;
};

class RequestLog {
 public:
  // `clock` outlives the log.
  RequestLog(bool every_request, const Clock* clock);
  // From the headers X-Request-Id and traceparent; what is none of them is ignored. A request without an id gets one.
  void Name(std::string_view request_id, std::string_view traceparent, RequestTag* tag);
  void Answered(const RequestTag& tag, const RequestOutcome& outcome) {
    if (every_request_ || IsFailure(outcome)) Write(tag, outcome);
  }

 private:
  static bool IsFailure(const RequestOutcome& outcome) {
    return (outcome.status >= 500 || outcome.status == 429) && !outcome.is_probe;
  }
  void Write(const RequestTag& tag, const RequestOutcome& outcome);

  const bool every_request_;
  const Clock* const clock_;
  const std::uint64_t seed_;
  std::atomic<std::uint64_t> named_{0};
  LineLimit failures_;
};

// Of a traceparent "00-<trace id>-<parent id>-<flags>"; empty where it is none.
[[nodiscard]] std::string_view TraceIdOf(std::string_view traceparent);

}  // namespace freshet
