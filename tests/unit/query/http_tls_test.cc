// TLS at the door, and who gets in with it.
#include <gtest/gtest.h>

#include <memory>

#include "certificates.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "http_fixture.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::RawConnection;
using test::WaitFor;

class HttpTlsTest : public test::HttpTest {
 protected:
  static void SetUpTestSuite() {
    files_ = std::make_unique<test::Certificates>();
    files_->Authority("ca");
    files_->Authority("other");
    files_->Certify("server", "IP:127.0.0.1", "ca");
    files_->Certify("elsewhere", "IP:192.0.2.1", "ca");
    files_->Certify("client", "DNS:client", "ca");
    files_->Certify("stranger", "DNS:stranger", "other");
  }
  static void TearDownTestSuite() { files_.reset(); }
  static std::string At(const std::string& name) { return files_->At(name); }

  void SetUp() override {
    replica_.Put("a", {1, 0}, {{"title", std::string(30'000, 'x')}});
    options_.tls = {At("server.crt"), At("server.key"), ""};
  }
  void StartServer() {
    server_ = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    ASSERT_OK(server_->Start());
  }
  [[nodiscard]] Result<HttpReply> Call(const HttpClientTls* tls, const std::string& body = R"({"item": "a"})") const {
    return HttpCall(server_->address(), "POST", "/v1/recall", body, 30'000, "", "application/json", tls);
  }
  static HttpClientTls Client(const std::string& name = "", const std::string& authority = "ca") {
    HttpClientTls tls{At(authority + ".crt"), "", ""};
    if (!name.empty()) tls.certificate = At(name + ".crt");
    if (!name.empty()) tls.key = At(name + ".key");
    return tls;
  }
  void ExpectRefused(const HttpClientTls& tls) {
    const Result<HttpReply> reply = Call(&tls);
    EXPECT_EQ(reply.status().code(), Code::kUnavailable) << (reply.ok() ? reply->body : reply.status().ToString());
  }
  [[nodiscard]] double FailedHandshakes() {
    return metrics_.GetCounter("freshet_http_failed_handshakes_total", "").Value();
  }

  static std::unique_ptr<test::Certificates> files_;
  std::unique_ptr<HttpServer> server_;
};
std::unique_ptr<test::Certificates> HttpTlsTest::files_;

TEST_F(HttpTlsTest, AnswersWhoVerifiesItsCertificate) {
  StartServer();
  const HttpClientTls tls = Client();
  for (int i = 0; i < 3; ++i) {
    const auto reply = Call(&tls, R"({"vector": [1, 0], "with_attributes": true})");
    ASSERT_OK(reply);
    EXPECT_EQ(reply->status, 200) << reply->body;
    EXPECT_GT(reply->body.size(), 30'000U);
  }
  EXPECT_EQ(FailedHandshakes(), 0);
  ExpectRefused(Client("", "other"));  // the client does not know the server's authority
  EXPECT_TRUE(WaitFor([&] { return FailedHandshakes() == 1; }));
}

TEST_F(HttpTlsTest, AnotherHostsCertificateIsNotTheServers) {
  options_.tls = {At("elsewhere.crt"), At("elsewhere.key"), ""};
  StartServer();
  ExpectRefused(Client());
}

TEST_F(HttpTlsTest, MutualTlsAnswersWhoBringsACertificateOfTheAuthority) {
  options_.tls.client_ca = At("ca.crt");
  StartServer();
  HttpClientTls tls = Client("client");
  for (int i = 0; i < 2; ++i) {
    const auto reply = Call(&tls);
    ASSERT_OK(reply);
    EXPECT_EQ(reply->status, 200);
  }
  ExpectRefused(Client());
  ExpectRefused(Client("stranger"));
  // Probes too.
  const HttpClientTls nobody = Client();
  EXPECT_FALSE(HttpCall(server_->address(), "GET", "/livez", "", 30'000, "", "", &nobody).ok());
  EXPECT_TRUE(WaitFor([&] { return FailedHandshakes() == 3; }));
}

TEST_F(HttpTlsTest, PlainHttpIsNotAnswered) {
  StartServer();
  EXPECT_FALSE(Call(nullptr).ok());
  RawConnection peer(server_->address());
  ASSERT_TRUE(peer.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_EQ(peer.ReadToEnd().find("HTTP"), std::string::npos);
}

TEST_F(HttpTlsTest, AHandshakeThatDoesNotComeIsCutOff) {
  options_.header_timeout_ms = 50;
  StartServer();
  RawConnection silent(server_->address());
  ASSERT_TRUE(silent.connected());
  EXPECT_TRUE(silent.ClosedByPeer(30'000));
  const HttpClientTls tls = Client();
  EXPECT_OK(Call(&tls));
}

TEST_F(HttpTlsTest, StopsWhileOneIsIdleAndOneShakesHands) {
  StartServer();
  const RawConnection shaking(server_->address());
  const HttpClientTls tls = Client();
  EXPECT_OK(Call(&tls));
  server_->Stop();
  EXPECT_FALSE(Call(&tls).ok());
}

TEST_F(HttpTlsTest, AStartSaysWhichFileIsWrong) {
  const auto refusal = [&](const HttpTls& tls) {
    HttpOptions options;
    options.tls = tls;
    const auto server = MakeHttpServer(options, &service_, &metrics_, {}, {});
    const Status status = server->Start();
    EXPECT_EQ(status.code(), Code::kConfig);
    return std::string(status.message());
  };
  EXPECT_NE(refusal({At("none.crt"), At("server.key"), ""}).find("none.crt"), std::string::npos);
  EXPECT_NE(refusal({At("server.crt"), At("client.key"), ""}).find("client.key"), std::string::npos);
  EXPECT_NE(refusal({At("server.crt"), At("server.key"), At("server.key")}).find("server.key: no certificate"),
            std::string::npos);
  EXPECT_NE(refusal({At("server.crt"), "", ""}).find("go together"), std::string::npos);
  EXPECT_NE(refusal({"", "", At("ca.crt")}).find("goes with them"), std::string::npos);
}

TEST_F(HttpTlsTest, AnotherAddressNeedsTokensOrCertificates) {
  options_.listen = "0.0.0.0:0";
  EXPECT_EQ(options_.Validate().code(), Code::kConfig) << "TLS alone says who the server is, not who asks";
  options_.tls.client_ca = At("ca.crt");
  EXPECT_OK(options_.Validate());
}

}  // namespace
}  // namespace freshet
