#include "http_session.h"

#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message_generator.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>

#include "http_waiters.h"

namespace freshet {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace net = boost::asio;
using std::chrono::milliseconds;

constexpr std::uint32_t kMaxHeaderBytes = 16 * 1024;
constexpr std::uint64_t kMaxBodyBytes = 1024 * 1024;
constexpr std::size_t kMaxBufferBytes = 128 * 1024;  // the body leaves the buffer as it comes
constexpr std::size_t kFirstReadBytes = 4096;
constexpr std::size_t kMaxDrainBytes = std::size_t{8} << 20;
constexpr milliseconds kDrainTime{1'000};
constexpr milliseconds kWriteTime{30'000};

bool IsHttpError(const beast::error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

}  // namespace

HttpSessions::HttpSessions(const HttpOptions& http_options, HttpApi* http_api, Metrics* metrics)
    : options(http_options),
      api(http_api),
      connections(metrics->GetGauge("freshet_http_connections", "Open HTTP connections")),
      timeouts(metrics->GetCounter("freshet_http_timeouts_total",
                                   "Connections closed because a request did not arrive, or was not read, in time")) {}

std::size_t HttpSessions::size() {
  const std::lock_guard lock(mu);
  return open.size();
}

void HttpSession::Run(net::ip::tcp::socket socket, HttpSessions* sessions) {
  const auto session = std::make_shared<HttpSession>(std::move(socket), sessions);
  {
    const std::lock_guard lock(sessions->mu);
    sessions->open.emplace(session.get(), session);
  }
  sessions->connections.Add(1);
  net::post(session->stream_.get_executor(), [session] { session->AwaitRequest(); });
}

HttpSession::HttpSession(net::ip::tcp::socket socket, HttpSessions* sessions)
    : sessions_(sessions), stream_(std::move(socket)), buffer_(kMaxBufferBytes) {
  beast::error_code ignored;
  stream_.socket().set_option(net::ip::tcp::no_delay(true), ignored);
}

HttpSession::~HttpSession() {
  Close();
  sessions_->connections.Add(-1);
  const std::lock_guard lock(sessions_->mu);
  sessions_->open.erase(this);
  sessions_->changed.notify_all();
}

void HttpSession::Stop() {
  net::post(stream_.get_executor(), [self = shared_from_this()] {
    if (self->idle_) self->Close();
  });
}

void HttpSession::AwaitRequest() {
  if (sessions_->stopping) return Close();
  parser_.emplace();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(kMaxBodyBytes);
  if (first_) stream_.expires_after(milliseconds(sessions_->options.header_timeout_ms));
  if (buffer_.size() > 0) return ReadHeader();  // pipelined
  if (!first_) stream_.expires_after(milliseconds(sessions_->options.idle_timeout_ms));
  idle_ = true;
  stream_.async_read_some(buffer_.prepare(kFirstReadBytes),
                          [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                            self->idle_ = false;
                            if (error) return self->Fail(error);
                            self->buffer_.commit(bytes);
                            self->ReadHeader();
                          });
}

void HttpSession::ReadHeader() {
  // An absolute deadline: a byte now and then does not move it.
  if (!first_) stream_.expires_after(milliseconds(sessions_->options.header_timeout_ms));
  first_ = false;
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = shared_from_this()](ErrorCode error, std::size_t) { self->OnHeader(error); });
}

void HttpSession::OnHeader(ErrorCode error) {
  if (error) return Fail(error);
  stream_.expires_after(milliseconds(sessions_->options.request_timeout_ms));
  if (!beast::iequals(parser_->get()[http::field::expect], "100-continue")) return ReadBody();
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  net::async_write(stream_, net::buffer(kContinue.data(), kContinue.size()),
                   [self = shared_from_this()](ErrorCode written, std::size_t) {
                     if (written) return self->Fail(written);
                     self->ReadBody();
                   });
}

void HttpSession::ReadBody() {
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](ErrorCode error, std::size_t) { self->OnRequest(error); });
}

void HttpSession::OnRequest(ErrorCode error) {
  if (error) return Fail(error);
  const auto& request = parser_->get();
  const auto view = [](beast::string_view text) { return std::string_view(text.data(), text.size()); };
  HttpAnswer answer =
      sessions_->api->Handle({view(request.method_string()), view(request.target()), request.body(),
                              view(request[http::field::authorization]), view(request[http::field::content_type])});
  Respond(std::move(answer));
}

void HttpSession::Respond(HttpAnswer answer) {
  while (answer.wait) {
    const std::shared_ptr<HttpWait> wait = std::move(answer.wait);
    const bool waits =
        sessions_->waiters->Add(wait->min_as_of_ms, wait->deadline_us, [self = shared_from_this(), wait] {
          net::post(self->stream_.get_executor(), [self, wait] {
            self->Respond(wait->go_on(self->sessions_->stopping ? Cancelled("try another sidecar") : Status::Ok()));
          });
        });
    if (waits) return;
    answer = wait->go_on(sessions_->stopping
                             ? Cancelled("try another sidecar")
                             : Unavailable("too many requests wait for their `min_as_of`; try again, or without it"));
  }
  const auto& request = parser_->get();
  Write(std::move(answer), request.keep_alive() && !sessions_->stopping, request.method() == http::verb::head);
}

void HttpSession::Fail(ErrorCode error) {
  if (error == beast::error::timeout) sessions_->timeouts.Add();
  // The peer left, in the middle of a request or after one.
  if (!IsHttpError(error) || error == http::error::end_of_stream || error == http::error::partial_message) {
    return Close();
  }
  HttpAnswer answer;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    answer = ProblemAnswer(431, "header-too-large", "The request's header is too large", "at most 16 KiB");
  } else if (error == http::error::body_limit) {
    answer = ProblemAnswer(413, "body-too-large", "The request's body is too large", "at most 1 MiB");
  } else {
    answer = ProblemAnswer(400, "malformed-http", "The bytes are not an HTTP/1.1 request", error.message());
  }
  sessions_->api->CountUnrouted(answer.status);
  unread_ = true;
  Write(std::move(answer), false, false);
}

void HttpSession::Write(HttpAnswer answer, bool keep_alive, bool head) {
  const unsigned version = parser_->is_header_done() ? parser_->get().version() : 11;
  const auto fill = [&](auto& response) {
    response.set(http::field::content_type, answer.content_type);
    if (!answer.allow.empty()) response.set(http::field::allow, answer.allow);
    if (answer.authenticate) response.set(http::field::www_authenticate, "Bearer");
    if (answer.retry_after_seconds > 0)
      response.set(http::field::retry_after, std::to_string(answer.retry_after_seconds));
    response.keep_alive(keep_alive);
    response.content_length(answer.body.size());
  };
  const auto status = static_cast<http::status>(answer.status);
  const auto make = [&]() -> http::message_generator {
    if (head) {
      http::response<http::empty_body> response(status, version);
      fill(response);
      return response;
    }
    http::response<http::string_body> response(status, version);
    fill(response);
    response.body() = std::move(answer.body);
    return response;
  };
  stream_.expires_after(kWriteTime);
  beast::async_write(stream_, make(), [self = shared_from_this(), keep_alive](ErrorCode error, std::size_t) {
    if (error) return self->Fail(error);
    if (keep_alive) return self->AwaitRequest();
    if (!self->unread_) return self->Close();
    // Closing over unread bytes resets the connection, and the peer may lose the answer: let it finish, within bounds.
    ErrorCode ignored;
    self->stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, ignored);
    self->stream_.expires_after(kDrainTime);
    self->Drain(kMaxDrainBytes);
  });
}

void HttpSession::Drain(std::size_t left) {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(16 * 1024),
                          [self = shared_from_this(), left](ErrorCode error, std::size_t bytes) {
                            if (error || bytes >= left) return self->Close();
                            self->Drain(left - bytes);
                          });
}

void HttpSession::Close() {
  if (!stream_.socket().is_open()) return;
  ErrorCode ignored;
  stream_.socket().shutdown(net::ip::tcp::socket::shutdown_both, ignored);
  stream_.close();
}

}  // namespace freshet
