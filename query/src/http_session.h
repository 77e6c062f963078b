// One connection of the HTTP server: reads requests one after another, hands each to HttpApi, writes the answer.
//
// Place in the flow: made by http_server.cc for each accepted socket. Everything runs on the socket's strand. Owns
// itself through the handlers in flight: it is destroyed when the last one has run, and then leaves the registry.
// States: idle (waits for a request's first byte) -> header -> body (-> waits for freshness) -> answer -> idle, or
// closed.
#pragma once

#include <atomic>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "freshet/core/metrics.h"
#include "freshet/query/http_server.h"
#include "http_api.h"

namespace freshet {

class FreshnessWaiters;
class HttpSession;

// The open connections, and what they share. Thread-safe.
struct HttpSessions {
  const HttpOptions options;
  HttpApi* const api;
  Gauge& connections;
  Counter& timeouts;
  std::atomic<bool> stopping{false};
  FreshnessWaiters* waiters = nullptr;  // set before the first session; outlives them

  std::mutex mu;
  std::condition_variable changed;
  std::map<const HttpSession*, std::weak_ptr<HttpSession>> open;  // guarded by mu

  HttpSessions(const HttpOptions& http_options, HttpApi* http_api, Metrics* metrics);
  [[nodiscard]] std::size_t size();
};

class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  static void Run(boost::asio::ip::tcp::socket socket, HttpSessions* sessions);
  HttpSession(boost::asio::ip::tcp::socket socket, HttpSessions* sessions);
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  // From any thread: ends the connection now if it is idle, else after the answer that is being made.
  void Stop();

 private:
  using ErrorCode = boost::beast::error_code;
  void AwaitRequest();
  void ReadHeader();
  void OnHeader(ErrorCode error);
  void ReadBody();
  void OnRequest(ErrorCode error);
  // Writes it, or waits first.
  void Respond(HttpAnswer answer);
  // The connection is of no use after an error; a malformed request is told so first.
  void Fail(ErrorCode error);
  void Write(HttpAnswer answer, bool keep_alive, bool head);
  void Drain(std::size_t left);
  void Close();

  HttpSessions* const sessions_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  bool first_ = true;  // no request was read yet
  bool idle_ = false;
  bool unread_ = false;  // closing with a part of the request unread
};

}  // namespace freshet
