#include "http_session.h"

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream_base.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <type_traits>

#include "http_message.h"

namespace freshet {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace net = boost::asio;
using std::chrono::milliseconds;

constexpr std::uint32_t kMaxHeaderBytes = 16 * 1024;
constexpr std::uint64_t kMaxBodyBytes = 1024 * 1024;
constexpr std::size_t kMaxBufferBytes = 128 * 1024;  // the body leaves the buffer as it comes
constexpr std::size_t kFirstReadBytes = 4096;        // held by a connection that waits
constexpr std::size_t kReadAtOnceBytes = 32 * 1024;
constexpr std::size_t kMaxDrainBytes = std::size_t{8} << 20;
constexpr milliseconds kDrainTime{1'000};

using TlsStream = beast::ssl_stream<beast::tcp_stream>;

// Over TCP, or over TLS over TCP.
template <typename Stream>
class StreamSession final : public HttpSession,
                            public RequestFlow,
                            public std::enable_shared_from_this<StreamSession<Stream>> {
 public:
  // `more`: of the stream, after the socket.
  template <typename... More>
  explicit StreamSession(HttpSessions* sessions, net::ip::tcp::socket socket, More&... more)
      : RequestFlow(sessions), sessions_(sessions), stream_(std::move(socket), more...), buffer_(kMaxBufferBytes) {
    ErrorCode ignored;
    Lowest().socket().set_option(net::ip::tcp::no_delay(true), ignored);
    Lowest().socket().non_blocking(true, ignored);  // for WriteAtOnce()
  }
  ~StreamSession() override {
    CloseNow();
    sessions_->connections.Add(-1);
    const std::lock_guard lock(sessions_->mu);
    sessions_->open.erase(this);
    sessions_->changed.notify_all();
  }
  void Begin() {
    {
      const std::lock_guard lock(sessions_->mu);
      sessions_->open.emplace(this, this->shared_from_this());
    }
    sessions_->connections.Add(1);
    net::post(stream_.get_executor(), [self = this->shared_from_this()] { self->Handshake(); });
  }
  void Stop() override;

 private:
  using ErrorCode = beast::error_code;
  static constexpr bool kTls = !std::is_same_v<Stream, beast::tcp_stream>;
  beast::tcp_stream& Lowest() { return beast::get_lowest_layer(stream_); }
  void Handshake();
  void AwaitRequest();
  void ReadAtOnce();
  void ReadHeader();
  void OnHeader(ErrorCode error);
  void ReadBody();
  void OnRequest(ErrorCode error);
  void NameRequest();
  // Valid until the next request is read.
  [[nodiscard]] HttpRequestView View() const override;
  void Post(std::function<void()> task) override { net::post(stream_.get_executor(), std::move(task)); }
  void Write(HttpAnswer answer) override {
    Write(std::move(answer), parser_->get().keep_alive() && !sessions_->stopping);
  }
  [[nodiscard]] std::shared_ptr<RequestFlow> Self() override { return this->shared_from_this(); }
  // The connection is of no use after an error; a malformed request is told so first.
  void Fail(ErrorCode error);
  void Write(HttpAnswer answer, bool keep_alive);
  void WriteAtOnce(http::message_generator* message, ErrorCode* error);
  void OnWritten(ErrorCode error, bool keep_alive);
  void Drain(std::size_t left);
  void Close();  // TLS says so to the peer first, within bounds
  void CloseNow();

  HttpSessions* const sessions_;
  Stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  bool first_ = true;  // no request was read yet
  bool handshaking_ = false;
  bool idle_ = false;
  bool unread_ = false;  // closing with a part of the request unread
  // Of the request that is being answered:
  std::int64_t arrived_us_ = 0;
  RequestTag tag_;
};

template <typename Stream>
void StreamSession<Stream>::Handshake() {
  if constexpr (kTls) {
    Lowest().expires_after(milliseconds(sessions_->options.header_timeout_ms));
    handshaking_ = true;
    stream_.async_handshake(net::ssl::stream_base::server, [self = this->shared_from_this()](ErrorCode error) {
      self->handshaking_ = false;
      if (error) {
        self->sessions_->handshakes.Add();
        return self->CloseNow();
      }
      self->AwaitRequest();
    });
  } else {
    AwaitRequest();
  }
}

template <typename Stream>
void StreamSession<Stream>::Stop() {
  net::post(stream_.get_executor(), [self = this->shared_from_this()] {
    if (self->handshaking_) self->CloseNow();
    if (self->idle_) self->Close();
  });
}

template <typename Stream>
void StreamSession<Stream>::AwaitRequest() {
  if (sessions_->stopping) return Close();
  parser_.emplace();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(kMaxBodyBytes);
  if (first_) Lowest().expires_after(milliseconds(sessions_->options.header_timeout_ms));
  if (buffer_.size() > 0) return ReadHeader();  // pipelined; by way of the loop, so that others have their turn
  if (!first_) Lowest().expires_after(milliseconds(sessions_->options.idle_timeout_ms));
  idle_ = true;
  stream_.async_read_some(buffer_.prepare(kFirstReadBytes),
                          [self = this->shared_from_this()](ErrorCode error, std::size_t bytes) {
                            self->idle_ = false;
                            if (error) return self->Fail(error);
                            self->buffer_.commit(bytes);
                            self->ReadAtOnce();
                          });
}

// What has come of the request, which is all of it most of the time. Each read by way of the loop would cost a timer
// and a turn of it.
template <typename Stream>
void StreamSession<Stream>::ReadAtOnce() {
  parser_->eager(true);
  for (;;) {
    ErrorCode error;
    buffer_.consume(parser_->put(buffer_.data(), error));
    if (error && error != http::error::need_more) return Fail(error);
    if (parser_->is_done()) return OnRequest({});
    if (kTls || buffer_.size() == kMaxBufferBytes) break;
    const std::size_t room = std::min(kReadAtOnceBytes, kMaxBufferBytes - buffer_.size());
    buffer_.commit(Lowest().socket().read_some(buffer_.prepare(room), error));
    if (error == net::error::would_block || error == net::error::try_again) break;
    if (error) return Fail(error);
  }
  parser_->is_header_done() ? OnHeader({}) : ReadHeader();
}

template <typename Stream>
void StreamSession<Stream>::ReadHeader() {
  // An absolute deadline: a byte now and then does not move it.
  if (!first_) Lowest().expires_after(milliseconds(sessions_->options.header_timeout_ms));
  first_ = false;
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = this->shared_from_this()](ErrorCode error, std::size_t) { self->OnHeader(error); });
}

template <typename Stream>
void StreamSession<Stream>::OnHeader(ErrorCode error) {
  if (error) return Fail(error);
  Lowest().expires_after(milliseconds(sessions_->options.request_timeout_ms));
  if (!beast::iequals(parser_->get()[http::field::expect], "100-continue")) return ReadBody();
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  net::async_write(stream_, net::buffer(kContinue.data(), kContinue.size()),
                   [self = this->shared_from_this()](ErrorCode written, std::size_t) {
                     if (written) return self->Fail(written);
                     self->ReadBody();
                   });
}

template <typename Stream>
void StreamSession<Stream>::ReadBody() {
  http::async_read(stream_, buffer_, *parser_,
                   [self = this->shared_from_this()](ErrorCode error, std::size_t) { self->OnRequest(error); });
}

template <typename Stream>
void StreamSession<Stream>::OnRequest(ErrorCode error) {
  if (error) return Fail(error);
  first_ = false;
  arrived_us_ = sessions_->clock.MonotonicUs();
  NameRequest();
  Answer();
}

template <typename Stream>
void StreamSession<Stream>::NameRequest() {
  const auto& header = parser_->get();
  sessions_->log.Name(ToStd(header[kRequestIdHeader]), ToStd(header["traceparent"]), &tag_);
}

template <typename Stream>
HttpRequestView StreamSession<Stream>::View() const {
  const auto& request = parser_->get();
  return {ToStd(request.method_string()),
          ToStd(request.target()),
          request.body(),
          ToStd(request[http::field::authorization]),
          ToStd(request[http::field::content_type]),
          arrived_us_};
}

template <typename Stream>
void StreamSession<Stream>::Fail(ErrorCode error) {
  if (error == beast::error::timeout) sessions_->timeouts.Add();
  // The peer left, in the middle of a request or after one.
  if (!IsHttpError(error) || error == http::error::end_of_stream || error == http::error::partial_message) {
    return error == http::error::end_of_stream ? Close() : CloseNow();
  }
  HttpAnswer answer = UnreadableAnswer(error);
  sessions_->api->CountUnrouted(answer.status);
  arrived_us_ = sessions_->clock.MonotonicUs();
  NameRequest();  // by what was read of its header
  unread_ = true;
  Write(std::move(answer), false);
}

template <typename Stream>
void StreamSession<Stream>::Write(HttpAnswer answer, bool keep_alive) {
  const bool read = parser_->is_header_done();
  const unsigned version = read ? parser_->get().version() : 11;
  const http::verb verb = read ? parser_->get().method() : http::verb::unknown;
  const std::string_view method = verb == http::verb::unknown ? std::string_view() : ToStd(http::to_string(verb));
  sessions_->log.Answered(tag_, {answer.route, method, answer.status, arrived_us_, answer.is_probe});
  http::message_generator message =
      ToMessage(std::move(answer), {version, keep_alive, verb == http::verb::head, tag_.request_id});
  ErrorCode error;
  if constexpr (!kTls) WriteAtOnce(&message, &error);
  if (error || message.is_done()) return OnWritten(error, keep_alive);
  Lowest().expires_after(milliseconds(sessions_->options.write_timeout_ms));
  beast::async_write(stream_, std::move(message),
                     [self = this->shared_from_this(), keep_alive](ErrorCode failed, std::size_t) {
                       self->OnWritten(failed, keep_alive);
                     });
}

// As much as the socket takes without waiting: all, of most answers.
template <typename Stream>
void StreamSession<Stream>::WriteAtOnce(http::message_generator* message, ErrorCode* error) {
  while (!message->is_done()) {
    const auto pieces = message->prepare(*error);
    if (*error) return;
    const std::size_t bytes = Lowest().socket().write_some(pieces, *error);
    if (*error == net::error::would_block || *error == net::error::try_again) {
      *error = {};
      return;
    }
    if (*error) return;
    message->consume(bytes);
  }
}

template <typename Stream>
void StreamSession<Stream>::OnWritten(ErrorCode error, bool keep_alive) {
  if (error) return Fail(error);
  if (keep_alive) return AwaitRequest();
  if (!unread_) return Close();
  // Closing over unread bytes resets the connection, and the peer may lose the answer: let it finish, within bounds.
  ErrorCode ignored;
  Lowest().socket().shutdown(net::ip::tcp::socket::shutdown_send, ignored);
  Lowest().expires_after(kDrainTime);
  Drain(kMaxDrainBytes);
}

template <typename Stream>
void StreamSession<Stream>::Drain(std::size_t left) {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(16 * 1024),
                          [self = this->shared_from_this(), left](ErrorCode error, std::size_t bytes) {
                            if (error || bytes >= left) return self->Close();
                            self->Drain(left - bytes);
                          });
}

template <typename Stream>
void StreamSession<Stream>::Close() {
  if constexpr (kTls) {
    if (!Lowest().socket().is_open()) return;
    Lowest().expires_after(kDrainTime);
    stream_.async_shutdown([self = this->shared_from_this()](ErrorCode) { self->CloseNow(); });
  } else {
    CloseNow();
  }
}

template <typename Stream>
void StreamSession<Stream>::CloseNow() {
  if (!Lowest().socket().is_open()) return;
  ErrorCode ignored;
  Lowest().socket().shutdown(net::ip::tcp::socket::shutdown_both, ignored);
  Lowest().close();
}

}  // namespace

HttpSessions::HttpSessions(const HttpOptions& http_options, HttpApi* http_api, Metrics* metrics)
    : RequestDesk(http_options, http_api),
      connections(metrics->GetGauge("freshet_http_connections", "Open HTTP connections")),
      timeouts(metrics->GetCounter("freshet_http_timeouts_total",
                                   "Connections closed because a request did not arrive, or was not read, in time")),
      handshakes(
          metrics->GetCounter("freshet_http_failed_handshakes_total",
                              "Connections closed because TLS did not come about: no certificate, or a wrong one")) {}

std::size_t HttpSessions::size() {
  const std::lock_guard lock(mu);
  return open.size();
}

void HttpSession::Run(net::ip::tcp::socket socket, HttpSessions* sessions) {
  if (sessions->tls != nullptr) {
    std::make_shared<StreamSession<TlsStream>>(sessions, std::move(socket), *sessions->tls)->Begin();
  } else {
    std::make_shared<StreamSession<beast::tcp_stream>>(sessions, std::move(socket))->Begin();
  }
}

}  // namespace freshet
