// Who may come in at which door: tokens, the listener for administration, the probes.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "http_fixture.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::RawConnection;

class HttpDoorsTest : public test::HttpTest {
 protected:
  void SetUp() override { replica_.Put("a", {1, 0}); }
  void StartServer() {
    server_ = MakeHttpServer(
        options_, &service_, &metrics_, [this] { return reasons_; }, [] { return std::string("{}"); });
    ASSERT_OK(server_->Start());
  }
  HttpReply Call(std::string_view method, std::string_view target) {
    Result<HttpReply> reply = HttpCall(server_->address(), method, target, "", 30'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }

  std::vector<std::string> reasons_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpDoorsTest, WithTokensOnlyWhoBringsOneIsAnswered) {
  const test::TempDir dir;
  options_.token_file = dir / "tokens";
  const auto write = [&](const std::string& text, unsigned mode) {
    EXPECT_OK(WriteFileAtomically(options_.token_file, text));
    EXPECT_EQ(::chmod(options_.token_file.c_str(), mode), 0);
  };
  const auto refused = [&] {
    const auto server = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    const Status status = server->Start();
    EXPECT_EQ(status.code(), Code::kConfig);
    EXPECT_EQ(status.message().find("secret"), std::string::npos) << status.message();
    return std::string(status.message());
  };
  EXPECT_NE(refused().find("no such file"), std::string::npos);
  write("# only a comment\n", 0600);
  EXPECT_NE(refused().find("no token"), std::string::npos);
  write("secret\n", 0600);
  EXPECT_NE(refused().find(":1: a token is 16 to"), std::string::npos);
  write("secret-0123456789\n", 0644);
  EXPECT_NE(refused().find("chmod 600"), std::string::npos);
  write("# the old one, then the new\nsecret-0123456789\n\n  secret-9876543210\n", 0600);
  // With tokens, any address may be listened on.
  options_.listen = "0.0.0.0:0";
  EXPECT_OK(options_.Validate());
  options_.listen = "127.0.0.1:0";
  StartServer();
  const auto status_with = [&](const std::string& target, const std::string& token) {
    const auto reply = HttpCall(server_->address(), "GET", target, "", 30'000, token);
    EXPECT_OK(reply);
    return reply.ok() ? reply->status : 0;
  };
  for (const char* token : {"secret-0123456789", "secret-9876543210"}) EXPECT_EQ(status_with("/v1/status", token), 200);
  for (const char* token : {"", "secret-0123456788", "secret-012345678", "secret-01234567899", "# the old one, then"}) {
    EXPECT_EQ(status_with("/v1/status", token), 401) << token;
    EXPECT_EQ(status_with("/v1/recall", token), 401) << token;
    EXPECT_EQ(status_with("/metrics", token), 401) << token;
    EXPECT_EQ(status_with("/nothing", token), 401) << token;
  }
  EXPECT_EQ(status_with("/v1/status", std::string(5'000, 'x')), 401);
  for (const char* probe : {"/livez", "/startupz", "/readyz"}) EXPECT_EQ(status_with(probe, ""), 200) << probe;
  RawConnection raw(server_->address());
  raw.Send(
      "GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: bEARER secret-0123456789\r\nConnection: close\r\n\r\n");
  EXPECT_NE(raw.ReadToEnd().find(" 200 "), std::string::npos);
  RawConnection without(server_->address());
  without.Send("GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(without.ReadToEnd().find("WWW-Authenticate: Bearer"), std::string::npos);
}

TEST_F(HttpDoorsTest, StartedIsWhoWasReadyOnce) {
  reasons_ = {"has not caught up"};
  StartServer();
  EXPECT_EQ(Call("GET", "/startupz").status, 503);
  EXPECT_NE(Call("GET", "/startupz").body.find("has not caught up"), std::string::npos);
  reasons_.clear();
  EXPECT_EQ(Call("GET", "/startupz").status, 200);
  reasons_ = {"behind"};
  EXPECT_EQ(Call("GET", "/startupz").status, 200);
  EXPECT_EQ(Call("GET", "/readyz").status, 503);
}

TEST_F(HttpDoorsTest, AnAdminDoorHasNoRecallAndADoorNoAdmin) {
  int snapshots = 0;
  const auto admin = MakeHttpServer(options_, nullptr, &metrics_, {}, {}, [&] { ++snapshots; });
  ASSERT_OK(admin->Start());
  const auto status_of = [&](const HttpServer& server, const char* method, const char* target) {
    const auto reply = HttpCall(server.address(), method, target, "", 30'000);
    EXPECT_OK(reply);
    return reply.ok() ? reply->status : 0;
  };
  EXPECT_EQ(status_of(*admin, "POST", "/v1/admin/snapshots"), 202);
  EXPECT_EQ(snapshots, 1);
  for (const char* target : {"/v1/recall", "/v1/recall:batch", "/v1/score"}) {
    EXPECT_EQ(status_of(*admin, "POST", target), 404) << target;
  }
  for (const char* target : {"/v1/items/a", "/v1/users/u"}) EXPECT_EQ(status_of(*admin, "GET", target), 404) << target;
  for (const char* target : {"/livez", "/metrics", "/v1/status"}) EXPECT_EQ(status_of(*admin, "GET", target), 200);
  StartServer();
  EXPECT_EQ(status_of(*server_, "POST", "/v1/admin/snapshots"), 404);
}

}  // namespace
}  // namespace freshet
