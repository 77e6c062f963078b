#include "freshet/query/http_client.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/stream_base.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>

#include "freshet/core/strings.h"
#include "http_net.h"
#include "http_tls.h"

namespace freshet {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace net = boost::asio;

constexpr std::uint64_t kMaxReplyBytes = std::uint64_t{64} << 20;

// Asynchronous inside, as only those operations know deadlines; the context is run until the last one is done.
template <typename Stream>
class Call {
 public:
  // `tls`: of the stream, after its context.
  template <typename... Tls>
  Call(http::request<http::string_body> request, bool head, Tls&... tls)
      : stream_(context_, tls...), request_(std::move(request)) {
    parser_.body_limit(kMaxReplyBytes);
    parser_.skip(head);
  }

  beast::error_code Run(const net::ip::tcp::endpoint& endpoint, int timeout_ms) {
    beast::tcp_stream& tcp = beast::get_lowest_layer(stream_);
    tcp.expires_after(std::chrono::milliseconds(timeout_ms));  // for everything together
    tcp.async_connect(endpoint, [this](beast::error_code error) {
      error_ = error;
      if (!error) Handshake();
    });
    context_.run();
    return error_;
  }

  HttpReply Take() {
    auto& message = parser_.get();
    const beast::string_view type = message[http::field::content_type];
    return {static_cast<int>(message.result_int()), std::string(type.data(), type.size()), std::move(message.body())};
  }

 private:
  void Handshake() {
    if constexpr (std::is_same_v<Stream, beast::tcp_stream>) {
      Write();
    } else {
      stream_.async_handshake(net::ssl::stream_base::client, [this](beast::error_code error) {
        error_ = error;
        if (!error) Write();
      });
    }
  }

  void Write() {
    http::async_write(stream_, request_, [this](beast::error_code error, std::size_t) {
      error_ = error;
      // A server may answer before it has read everything, and close: the answer says more than the broken pipe.
      if (error != beast::error::timeout) Read();
    });
  }

  void Read() {
    http::async_read(stream_, buffer_, parser_, [this](beast::error_code error, std::size_t) {
      if (!error) {
        error_ = {};
      } else if (!error_) {
        error_ = error;
      }
    });
  }

  net::io_context context_{1};
  Stream stream_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response_parser<http::string_body> parser_;
  beast::error_code error_;
};

}  // namespace

Result<HttpReply> HttpCall(std::string_view address, std::string_view method, std::string_view target,
                           std::string_view body, int timeout_ms, std::string_view token, std::string_view content_type,
                           const HttpClientTls* tls) {
  const auto endpoint = ParseEndpoint(address);
  if (!endpoint || endpoint->port() == 0) {
    return InvalidArgument(StrCat("`", address, "` is not host:port with a numeric host, as 127.0.0.1:8081"));
  }
  const http::verb verb = http::string_to_verb({method.data(), method.size()});
  if (verb == http::verb::unknown) return InvalidArgument(StrCat("`", method, "` is no HTTP method"));
  try {
    http::request<http::string_body> request(verb, beast::string_view(target.data(), target.size()), 11);
    request.set(http::field::host, std::string(address));
    request.set(http::field::user_agent, "freshet");
    request.keep_alive(false);
    if (!token.empty()) request.set(http::field::authorization, StrCat("Bearer ", token));
    if (!body.empty()) request.set(http::field::content_type, std::string(content_type));
    request.body() = body;
    request.prepare_payload();
    const bool head = verb == http::verb::head;
    beast::error_code error;
    if (tls == nullptr) {
      Call<beast::tcp_stream> call(std::move(request), head);
      error = call.Run(*endpoint, timeout_ms);
      if (!error) return call.Take();
    } else {
      FRESHET_ASSIGN(const std::unique_ptr<TlsContext> context, MakeClientTls(*tls, endpoint->address().to_string()));
      Call<beast::ssl_stream<beast::tcp_stream>> call(std::move(request), head, *context);
      error = call.Run(*endpoint, timeout_ms);
      if (!error) return call.Take();
    }
    if (error == beast::error::timeout) {
      return DeadlineExceeded(StrCat(address, " did not answer within ", timeout_ms, " ms"));
    }
    if (error == http::error::body_limit) return ResourceExhausted(StrCat(address, " answered with more than 64 MiB"));
    return Unavailable(StrCat(address, " does not answer: ", error.message()));
  } catch (const std::exception& error) {
    return Internal(StrCat("HTTP call: ", error.what()));
  }
}

}  // namespace freshet
