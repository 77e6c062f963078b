// What the doors answer, without a socket: routing, problems, metrics per route.
//
// Place in the flow: a session of HTTP or a call of gRPC reads a request and hands it here (RequestFlow); the answer
// goes back over the wire. What a body is made of is its codec's matter. What neither searches nor reads the store is
// answered at once, the rest by who holds a place (RequestSlots). Deadlines count from the request's arrival, so that
// time in a queue is part of them. Thread-safe. Never throws: an exception from below becomes a 500.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_service.h"
#include "http_answer.h"
#include "http_tokens.h"
#include "request_meter.h"

namespace freshet {

class BodyCodec;

// Of a request what answers depend on. Views into the buffer of whoever brings it.
struct HttpRequestView {
  std::string_view method;
  std::string_view target;
  std::string_view body;
  std::string_view authorization = {};  // the headers of these names
  std::string_view content_type = {};
  std::int64_t arrived_us = 0;  // monotonic: when the whole request had come
  // A request over gRPC is one of HTTP with these of its own, and a body for what a path would say:
  std::int64_t deadline_us = 0;      // monotonic: the caller's; 0: none but ours
  const BodyCodec* codec = nullptr;  // null: JSON, or what the content type says
  RequestMeter* meter = nullptr;     // null: HTTP's
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
  // Counts an answer that is given instead of Answer()'s.
  [[nodiscard]] HttpAnswer Refuse(const HttpRequestView& request, HttpAnswer answer);
  // Counts an answer that was given before a route was known: malformed HTTP, exceeded bounds.
  void CountUnrouted(int status);
  // Empty: ready; else the reasons.
  [[nodiscard]] std::vector<std::string> NotReady() const { return ready_ ? ready_() : std::vector<std::string>(); }

 private:
  struct BatchInFlight;
  static bool Searches(Route route);  // or reads the store
  static bool IsProbe(Route route);
  HttpAnswer Finish(Route route, const HttpRequestView& request, HttpAnswer answer);
  // Who may not come in, or asks for what there is not.
  [[nodiscard]] std::optional<HttpAnswer> Refusal(Route route, const HttpRequestView& request) const;
  HttpAnswer Report(Route route, const HttpRequestView& request);  // what needs no place
  HttpAnswer Search(Route route, const HttpRequestView& request) const;
  [[nodiscard]] static const BodyCodec& CodecOf(Route route, const HttpRequestView& request);
  [[nodiscard]] HttpAnswer Recall(const HttpRequestView& request, const BodyCodec& codec) const;
  // A recall's answer or problem.
  [[nodiscard]] HttpAnswer RecallOne(const RecallRequest& request, const BodyCodec& codec) const;
  [[nodiscard]] HttpAnswer Score(const HttpRequestView& request, const BodyCodec& codec) const;
  [[nodiscard]] HttpAnswer Item(const HttpRequestView& request, const BodyCodec& codec) const;
  [[nodiscard]] HttpAnswer User(const HttpRequestView& request, const BodyCodec& codec) const;
  // http_batch.cc:
  [[nodiscard]] HttpAnswer Batch(const HttpRequestView& request, const BodyCodec& codec) const;
  [[nodiscard]] HttpAnswer AnswerBatch(const std::shared_ptr<BatchInFlight>& batch, const Status& over) const;
  // Of a request without a timeout of its own.
  [[nodiscard]] std::int64_t Deadline(const HttpRequestView& request) const;
  // A request's timeout as a deadline, so that neither queue nor wait begins it anew.
  void SetDeadline(const HttpRequestView& view, RecallRequest* request) const;
  [[nodiscard]] bool MustWait(const RecallRequest& request) const;  // for its `min_as_of`
  HttpAnswer Ready(Route route);
  [[nodiscard]] Route RouteOf(std::string_view path) const;

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
  RequestMeter meter_;
};

}  // namespace freshet
