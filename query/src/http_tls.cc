#include "http_tls.h"

#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/verify_mode.hpp>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

namespace ssl = boost::asio::ssl;
using ErrorCode = boost::system::error_code;

// Resumed sessions were opened with a verified certificate of this server's clients, not of another's.
constexpr unsigned char kSessionContext[] = "freshet";

void Harden(TlsContext* context) {
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 | ssl::context::no_sslv3 |
                       ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
}

// Empty, or what is wrong with which file.
std::string Load(const std::string& certificate, const std::string& key, TlsContext* context) {
  ErrorCode error;
  context->use_certificate_chain_file(certificate, error);
  if (error) return StrCat(certificate, ": no certificate can be read: ", error.message());
  context->use_private_key_file(key, ssl::context::pem, error);
  if (error) return StrCat(key, ": is not the key of ", certificate, ": ", error.message());
  return "";
}

}  // namespace

Result<std::unique_ptr<TlsContext>> MakeServerTls(const HttpTls& tls) {
  auto context = std::make_unique<TlsContext>(ssl::context::tls_server);
  Harden(context.get());
  if (std::string wrong = Load(tls.certificate, tls.key, context.get()); !wrong.empty()) {
    return ConfigError(StrCat("tls: ", wrong));
  }
  if (tls.client_ca.empty()) return context;
  ErrorCode error;
  context->load_verify_file(tls.client_ca, error);
  if (error) return ConfigError(StrCat("tls: ", tls.client_ca, ": no certificate can be read: ", error.message()));
  context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  ::SSL_CTX_set_session_id_context(context->native_handle(), kSessionContext, sizeof kSessionContext - 1);
  return context;
}

Result<std::unique_ptr<TlsContext>> MakeClientTls(const HttpClientTls& tls, const std::string& host) {
  auto context = std::make_unique<TlsContext>(ssl::context::tls_client);
  Harden(context.get());
  ErrorCode error;
  context->load_verify_file(tls.ca, error);
  if (error) return InvalidArgument(StrCat(tls.ca, ": no certificate can be read: ", error.message()));
  context->set_verify_mode(ssl::verify_peer);
  context->set_verify_callback(ssl::host_name_verification(host));
  if (!tls.certificate.empty()) {
    if (std::string wrong = Load(tls.certificate, tls.key, context.get()); !wrong.empty()) {
      return InvalidArgument(wrong);
    }
  }
  return context;
}

}  // namespace freshet
