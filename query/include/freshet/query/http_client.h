// One HTTP/1.1 call to a freshet server, from beginning to end.
//
// Place in the flow: `freshet query` and the tests ask a running engine or sidecar with it. Thread-safe, stateless: one
// connection for each call, closed after it. Not for the hot path: a recommender keeps its connections.
#pragma once

#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

struct HttpReply {
  int status = 0;
  std::string content_type;
  std::string body;
};

// PEM files of a client that speaks TLS 1.2 or newer.
struct HttpClientTls {
  std::string ca;           // authorities of the server's certificate, which has to name the address; needed
  std::string certificate;  // of the client, where the server asks for one; with its key
  std::string key;
};

// `address` is a numeric host:port ("127.0.0.1:8081", "[::1]:8081") or localhost:port. A body is sent as
// `content_type`, `token` as a bearer token where there is one. Any status is a reply: only what is no HTTP answer is
// an error. With `tls` nothing is sent before the server's certificate is verified. Errors: kInvalidArgument (address,
// method, a file of `tls`), kUnavailable (nobody listens, the connection broke, not HTTP), kDeadlineExceeded
// (`timeout_ms` for the whole call), kResourceExhausted (an answer above 64 MiB).
[[nodiscard]] Result<HttpReply> HttpCall(std::string_view address, std::string_view method, std::string_view target,
                                         std::string_view body = "", int timeout_ms = 5'000,
                                         std::string_view token = "",
                                         std::string_view content_type = "application/json",
                                         const HttpClientTls* tls = nullptr);

}  // namespace freshet
