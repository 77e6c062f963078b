// What the door answers, without a socket: routing, problems, metrics per route.
//
// Place in the flow: http_server.cc reads a request and hands it here; the reply goes back over the wire. Thread-safe.
// Never throws: an exception from below becomes a 500.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_service.h"
#include "http_tokens.h"

namespace freshet {

struct HttpAnswer;

// An answer that has to wait until others would be fresh enough (`min_as_of`), or for the deadline.
struct HttpWait {
  std::int64_t min_as_of_ms = 0;
  std::int64_t deadline_us = 0;  // monotonic
  // The answer, or another wait. Called once the wait is over: ok, or why there is no answer now. REQUIRES: the api.
  std::function<HttpAnswer(const Status& over)> go_on;
};

struct HttpAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
  std::string allow;            // for a 405
  int retry_after_seconds = 0;  // for a 429; 0: not sent
  bool authenticate = false;    // for a 401: how
  // Then this is no answer yet.
  std::shared_ptr<HttpWait> wait = {};
};

// RFC 9457: {"type": "urn:freshet:problem:<name>", "title", "status", "detail"?, "pointer"?}
[[nodiscard]] HttpAnswer ProblemAnswer(int status, std::string_view name, std::string_view title,
                                       std::string_view detail = "", std::string_view pointer = "");
// The problem that tells this error. REQUIRES: !status.ok()
[[nodiscard]] HttpAnswer ProblemAnswer(const Status& status);

// Of a request what answers depend on. Views into the session's buffer.
struct HttpRequestView {
  std::string_view method;
  std::string_view target;
  std::string_view body;
  std::string_view authorization = {};  // the headers of these names
  std::string_view content_type = {};
};

class HttpApi {
 public:
  // All outlive the api.
  HttpApi(const HttpOptions& options, const RecallService* service, Metrics* metrics, ReadyCheck ready,
          StatusReport report, SnapshotRequest snapshot = {});

  // Before the first request: only who brings one of these is answered.
  void Demand(HttpTokens tokens) { tokens_ = std::move(tokens); }
  [[nodiscard]] HttpAnswer Handle(const HttpRequestView& request);
  // Counts an answer that was given before a route was known: malformed HTTP, exceeded bounds.
  void CountUnrouted(int status);

 private:
  enum Route {
    kRecall,
    kBatch,
    kScore,
    kStatus,
    kItem,
    kUser,
    kLive,
    kStarted,
    kReady,
    kMetrics,
    kOpenApi,
    kSnapshots,
    kOther,
    kRoutes
  };
  struct BatchInFlight;
  HttpAnswer Finish(Route route, std::int64_t start_us, HttpAnswer answer);
  HttpAnswer Dispatch(Route route, std::string_view path, const HttpRequestView& request);
  HttpAnswer Recall(std::string_view body);
  [[nodiscard]] HttpAnswer RecallBinary(std::string_view body) const;
  // A recall's answer or problem.
  [[nodiscard]] HttpAnswer RecallOne(const RecallRequest& request) const;
  HttpAnswer Batch(std::string_view body);
  HttpAnswer AnswerBatch(const std::shared_ptr<BatchInFlight>& batch) const;
  HttpAnswer Score(std::string_view body);
  [[nodiscard]] std::int64_t Deadline() const;  // of a request that came now
  // Whether this request has to wait for `min_as_of`. Its timeout becomes a deadline, at most `deadline_us`, so that
  // waiting does not begin it anew.
  bool MustWait(std::int64_t deadline_us, RecallRequest* request) const;
  HttpAnswer Item(std::string_view encoded_id);
  HttpAnswer User(std::string_view encoded_id);
  HttpAnswer Ready(Route route);
  [[nodiscard]] Route RouteOf(std::string_view path) const;
  void Count(Route route, int status);

  const HttpOptions options_;
  const RecallService* const service_;
  Metrics* const metrics_;
  const ReadyCheck ready_;
  const StatusReport report_;
  const SnapshotRequest snapshot_;
  const SystemClock clock_;
  std::optional<HttpTokens> tokens_;
  std::atomic<bool> started_{false};  // it was ready once
  std::array<Histogram*, kRoutes> seconds_{};
  // Looked up once for each pair: the registry is behind a lock.
  static constexpr std::array<int, 15> kCodes = {200, 202, 400, 401, 404, 405, 408, 413,
                                                 429, 431, 500, 501, 503, 504, 0};
  std::array<std::array<std::atomic<Counter*>, kCodes.size()>, kRoutes> requests_{};
};

}  // namespace freshet
