// Answers as HTTP messages.
//
// Place in the flow: the last step of a session; Boost.Beast's types end here and in http_session.cc. Stateless.
#pragma once

#include <boost/beast/core/error.hpp>
#include <boost/beast/core/string_type.hpp>
#include <boost/beast/http/message_generator.hpp>
#include <string_view>

#include "http_answer.h"

namespace freshet {

inline constexpr boost::beast::string_view kRequestIdHeader = "X-Request-Id";

struct MessageOptions {
  unsigned version = 11;  // HTTP/1.1
  bool keep_alive = false;
  bool head = false;  // to a HEAD: without its body
  std::string_view request_id;
};
[[nodiscard]] boost::beast::http::message_generator ToMessage(HttpAnswer answer, const MessageOptions& options);

// Whether the bytes are at fault, not the connection.
[[nodiscard]] bool IsHttpError(const boost::beast::error_code& error);
// The problem with bytes that are no request. REQUIRES: IsHttpError(error)
[[nodiscard]] HttpAnswer UnreadableAnswer(const boost::beast::error_code& error);

inline std::string_view ToStd(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace freshet
