// The way of one request from its last byte to its answer, the same for every protocol.
//
// Place in the flow: a session of HTTP and a call of gRPC are each one of these: they read a request, call Answer(),
// and write what they are given. On the way: refusals at once; a place to search, or the queue for it; freshness to
// wait for, without a thread, and the queue again. Every protocol shares one desk, so that together they search on the
// same threads, in the same places, and queue in one line. Runs where Post() has it run: one step after the other.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "freshet/core/clock.h"
#include "freshet/query/http_server.h"
#include "http_api.h"
#include "http_log.h"

namespace freshet {

class FreshnessWaiters;
class RequestSlots;

// What requests share. Thread-safe.
struct RequestDesk {
  RequestDesk(const HttpOptions& http_options, HttpApi* http_api)
      : options(http_options), api(http_api), log(http_options.access_log, &clock) {}

  const HttpOptions options;
  HttpApi* const api;
  const SystemClock clock;
  RequestLog log;
  std::atomic<bool> stopping{false};
  // These are set before the first request, and outlive them:
  RequestSlots* slots = nullptr;
  FreshnessWaiters* waiters = nullptr;
  std::function<void(std::function<void()>)> post;  // to one of the threads that search
};

class RequestFlow {
 public:
  RequestFlow(const RequestFlow&) = delete;
  RequestFlow& operator=(const RequestFlow&) = delete;

 protected:
  explicit RequestFlow(RequestDesk* desk) : desk_(desk) {}
  virtual ~RequestFlow() = default;

  // Begins with what View() shows. Then Write() is called, once, now or later.
  void Answer();
  // The request; valid until the answer is written.
  [[nodiscard]] virtual HttpRequestView View() const = 0;
  // Runs it where the steps of this request run. Whoever stops drops what did not run yet.
  virtual void Post(std::function<void()> task) = 0;
  virtual void Write(HttpAnswer answer) = 0;
  // Then nothing is searched for, where the protocol knows.
  [[nodiscard]] virtual bool CallerHasLeft() const { return false; }
  // Keeps this alive while it is on its way.
  [[nodiscard]] virtual std::shared_ptr<RequestFlow> Self() = 0;

  RequestDesk* const desk_;

 private:
  // The answer of View(), by who holds a place.
  [[nodiscard]] HttpAnswer MakeAnswer() const;
  // Makes an answer by `make()` with a place to search: now where one is free, else when it is this request's turn.
  // False: too many queue, there is no answer.
  template <typename Make>
  [[nodiscard]] bool AnswerInPlace(bool may_be_refused, const Make& make);
  // Writes it, or waits first.
  void Respond(HttpAnswer answer);
  void GoOn(const std::shared_ptr<HttpWait>& wait);
};

}  // namespace freshet
