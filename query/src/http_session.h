// One connection of the HTTP server: reads requests one after another, hands each to HttpApi, writes the answer.
//
// Place in the flow: made by http_server.cc for each accepted socket. Everything runs on the socket's strand. Owns
// itself through the handlers in flight: it is destroyed when the last one has run, and then leaves the registry.
// States: (TLS handshake ->) idle (waits for a request's first byte) -> header -> body (-> queues for a place to
// search)
// (-> waits for freshness -> queues again: RequestFlow) -> answer -> idle, or closed. Nothing is read while it queues
// or waits: the request stays what it is.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>

#include "freshet/core/metrics.h"
#include "http_tls.h"
#include "request_flow.h"

namespace freshet {

class HttpSession;

// The open connections, and what they share. Thread-safe.
struct HttpSessions : RequestDesk {
  Gauge& connections;
  Counter& timeouts;
  Counter& handshakes;        // that failed
  TlsContext* tls = nullptr;  // null: plain HTTP; set before the first session

  std::mutex mu;
  std::condition_variable changed;
  std::map<const HttpSession*, std::weak_ptr<HttpSession>> open;  // guarded by mu

  HttpSessions(const HttpOptions& http_options, HttpApi* http_api, Metrics* metrics);
  [[nodiscard]] std::size_t size();
};

class HttpSession {
 public:
  // With TLS where the sessions have it.
  static void Run(boost::asio::ip::tcp::socket socket, HttpSessions* sessions);
  HttpSession() = default;
  virtual ~HttpSession() = default;
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  // From any thread: ends the connection now if it is idle, else after the answer that is being made.
  virtual void Stop() = 0;
};

}  // namespace freshet
