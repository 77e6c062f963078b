// TLS for both ends: certificates and keys out of PEM files.
//
// Place in the flow: http_server.cc and http_client.cc make a context once and give it to their streams. TLS 1.2 and
// 1.3; ciphers are OpenSSL's. Errors name the file.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "freshet/core/status.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"

namespace freshet {

using TlsContext = boost::asio::ssl::context;

// REQUIRES: tls.certificate is given. Errors: kConfig.
[[nodiscard]] Result<std::unique_ptr<TlsContext>> MakeServerTls(const HttpTls& tls);
// `host`: numeric, as it stands in the server's certificate. Errors: kInvalidArgument.
[[nodiscard]] Result<std::unique_ptr<TlsContext>> MakeClientTls(const HttpClientTls& tls, const std::string& host);

}  // namespace freshet
