// What the door answers, without a socket: routing, problems, metrics per route.
//
// Place in the flow: http_session.cc reads a request and hands it here; the answer goes back over the wire. What
// neither searches nor reads the store is answered at once, the rest by who holds a place (RequestSlots). Deadlines
// count from the request's arrival, so that time in a queue is part of them. Thread-safe. Never throws: an exception
// from below becomes a 500.
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
#include "http_answer.h"
#include "http_tokens.h"

namespace freshet {

// Of a request what answers depend on. Views into the session's buffer.
struct HttpRequestView {
  std::string_view method;
  std::string_view target;
  std::string_view body;
  std::string_view authorization = {};  // the headers of these names
  std::string_view content_type = {};
  std::int64_t arrived_us = 0;  // monotonic: when the whole request had come
};

class HttpApi {
 public:
  // All outlive the api.
  HttpApi(const HttpOptions& options, const RecallService* service, Metrics* metrics, ReadyCheck ready,
          StatusReport report, SnapshotRequest snapshot = {}, BeforeMetrics before_metrics = {});

  // Before the first request: only who brings one of these is answered.
  void Demand(HttpTokens tokens) { tokens_ = std::move(tokens); }
  // The answer of what needs no place: probes, reports, refusals. Nothing: Answer() makes it.
  [[nodiscard]] std::optional<HttpAnswer> AnswerAtOnce(const HttpRequestView& request);
  // The rest, by who holds a place.
  [[nodiscard]] HttpAnswer Answer(const HttpRequestView& request);
  // Instead of Answer(), where too many queue for a place.
  [[nodiscard]] HttpAnswer Refuse(const HttpRequestView& request);
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
  static bool Searches(Route route);  // or reads the store
  static bool IsProbe(Route route);
  HttpAnswer Finish(Route route, std::int64_t arrived_us, HttpAnswer answer);
  // Who may not come in, or asks for what there is not.
  [[nodiscard]] std::optional<HttpAnswer> Refusal(Route route, const HttpRequestView& request) const;
  HttpAnswer Report(Route route);  // what needs no place
  HttpAnswer Search(Route route, const HttpRequestView& request) const;
  [[nodiscard]] HttpAnswer Recall(const HttpRequestView& request) const;
  [[nodiscard]] HttpAnswer RecallBinary(const HttpRequestView& request) const;
  // A recall's answer or problem.
  [[nodiscard]] HttpAnswer RecallOne(const RecallRequest& request) const;
  [[nodiscard]] HttpAnswer Score(const HttpRequestView& request) const;
  [[nodiscard]] HttpAnswer Item(std::string_view encoded_id) const;
  [[nodiscard]] HttpAnswer User(std::string_view encoded_id) const;
  // http_batch.cc:
  [[nodiscard]] HttpAnswer Batch(const HttpRequestView& request) const;
  [[nodiscard]] HttpAnswer AnswerBatch(const std::shared_ptr<BatchInFlight>& batch, const Status& over) const;
  // Of a request without a timeout of its own.
  [[nodiscard]] std::int64_t Deadline(std::int64_t arrived_us) const;
  // A request's timeout as a deadline, so that neither queue nor wait begins it anew.
  void SetDeadline(std::int64_t arrived_us, RecallRequest* request) const;
  [[nodiscard]] bool MustWait(const RecallRequest& request) const;  // for its `min_as_of`
  HttpAnswer Ready(Route route);
  [[nodiscard]] Route RouteOf(std::string_view path) const;
  void Count(Route route, int status);

  const HttpOptions options_;
  const RecallService* const service_;
  Metrics* const metrics_;
  const ReadyCheck ready_;
  const StatusReport report_;
  const SnapshotRequest snapshot_;
  const BeforeMetrics before_metrics_;
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
