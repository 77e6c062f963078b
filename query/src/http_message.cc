#include "http_message.h"

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <string>

namespace freshet {
namespace {

namespace http = boost::beast::http;

template <typename Body>
http::response<Body> Head(const HttpAnswer& answer, const MessageOptions& options) {
  http::response<Body> response(static_cast<http::status>(answer.status), options.version);
  response.set(http::field::content_type, answer.content_type);
  response.insert(http::field::unknown, kRequestIdHeader, {options.request_id.data(), options.request_id.size()});
  if (!answer.allow.empty()) response.set(http::field::allow, answer.allow);
  if (answer.authenticate) response.set(http::field::www_authenticate, "Bearer");
  if (answer.retry_after_seconds > 0) {
    response.set(http::field::retry_after, std::to_string(answer.retry_after_seconds));
  }
  response.keep_alive(options.keep_alive);
  response.content_length(answer.body.size());
  return response;
}

}  // namespace

http::message_generator ToMessage(HttpAnswer answer, const MessageOptions& options) {
  if (options.head) return Head<http::empty_body>(answer, options);
  http::response<http::string_body> response = Head<http::string_body>(answer, options);
  response.body() = std::move(answer.body);
  return response;
}

bool IsHttpError(const boost::beast::error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

HttpAnswer UnreadableAnswer(const boost::beast::error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return ProblemAnswer(431, "header-too-large", "The request's header is too large", "at most 16 KiB");
  }
  if (error == http::error::body_limit) {
    return ProblemAnswer(413, "body-too-large", "The request's body is too large", "at most 1 MiB");
  }
  return ProblemAnswer(400, "malformed-http", "The bytes are not an HTTP/1.1 request", error.message());
}

}  // namespace freshet
