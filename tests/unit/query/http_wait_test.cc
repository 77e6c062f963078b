// Requests that wait for freshness: bounded, with a deadline, and without a thread.
#include <gtest/gtest.h>

#include <future>
#include <memory>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "http_fixture.h"
#include "json_at.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::At;
using test::RawConnection;
using test::WaitFor;

class HttpWaitTest : public test::HttpTest {
 protected:
  void SetUp() override {
    replica_.Put("a", {1, 0});
    options_.threads = 1;
    options_.request_timeout_ms = 30'000;
    soon_ = replica_.as_of + 1'000;
  }
  void StartServer() {
    server_ = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    ASSERT_OK(server_->Start());
  }
  HttpReply Call(std::string_view target, std::string_view body) {
    Result<HttpReply> reply = HttpCall(server_->address(), "POST", target, body, 60'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }
  std::future<HttpReply> CallLater(std::string target, std::string body) {
    return std::async(std::launch::async,
                      [this, target = std::move(target), body = std::move(body)] { return Call(target, body); });
  }
  [[nodiscard]] std::string Fresh(std::string_view more = "") const {
    return StrCat(R"({"item": "a", "min_as_of": )", soon_, more, "}");
  }
  [[nodiscard]] bool Waiting(double count) {
    return WaitFor([&] { return metrics_.GetGauge("freshet_http_waiting_requests", "").Value() == count; });
  }

  std::int64_t soon_ = 0;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpWaitTest, WhoWaitsHoldsNoThread) {
  StartServer();
  std::vector<std::future<HttpReply>> waiting;
  waiting.push_back(CallLater("/v1/recall", Fresh()));
  waiting.push_back(CallLater("/v1/score", StrCat(R"({"item": "a", "ids": ["a"], "min_as_of": )", soon_, "}")));
  waiting.push_back(CallLater("/v1/recall:batch", StrCat(R"({"requests": [)", Fresh(), "]}")));
  ASSERT_TRUE(Waiting(3));
  // The only thread answers others.
  EXPECT_EQ(Call("/v1/recall", R"({"item": "a"})").status, 200);
  EXPECT_EQ(metrics_.GetCounter("freshet_http_requests_total", "", {{"route", "/v1/score"}, {"code", "200"}}).Value(),
            0);
  replica_.as_of = soon_;
  for (auto& one : waiting) {
    const HttpReply reply = one.get();
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_NE(reply.body.find(StrCat(R"("as_of_ms":)", soon_)), std::string::npos) << reply.body;
  }
  EXPECT_TRUE(Waiting(0));
  EXPECT_EQ(metrics_.GetCounter("freshet_http_requests_total", "", {{"route", "/v1/score"}, {"code", "200"}}).Value(),
            1);
}

TEST_F(HttpWaitTest, TheDeadlineIsTheRequestsOrTheServers) {
  options_.request_timeout_ms = 20;
  StartServer();
  for (const char* more : {"", R"(, "timeout_ms": 1)", R"(, "timeout_ms": 60000)"}) {
    const HttpReply reply = Call("/v1/recall", Fresh(more));
    EXPECT_EQ(reply.status, 503) << more;
    EXPECT_EQ(At(reply.body, "/type"), R"("urn:freshet:problem:unavailable")");
  }
}

TEST_F(HttpWaitTest, TooManyAreToldSo) {
  options_.max_waiting = 1;
  StartServer();
  auto first = CallLater("/v1/recall", Fresh());
  ASSERT_TRUE(Waiting(1));
  const HttpReply second = Call("/v1/recall", Fresh());
  EXPECT_EQ(second.status, 503);
  EXPECT_NE(second.body.find("too many"), std::string::npos) << second.body;
  EXPECT_EQ(Call("/v1/recall", R"({"item": "a"})").status, 200);
  replica_.as_of = soon_;
  EXPECT_EQ(first.get().status, 200);
}

TEST_F(HttpWaitTest, OnlyWhatWouldWaitIsRefusedOfABatch) {
  options_.max_waiting = 1;
  StartServer();
  auto first = CallLater("/v1/recall", Fresh());
  ASSERT_TRUE(Waiting(1));
  const HttpReply reply =
      Call("/v1/recall:batch", StrCat(R"({"requests": [)", Fresh(), R"(, {"item": "a"}, {"item": "nobody"}, {}]})"));
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(At(reply.body, "/responses/0/status"), "503");
  EXPECT_NE(At(reply.body, "/responses/0/problem/detail").find("too many"), std::string::npos) << reply.body;
  EXPECT_EQ(At(reply.body, "/responses/1/answer/as_of_ms"), StrCat(soon_ - 1'000));
  EXPECT_EQ(At(reply.body, "/responses/2/status"), "404");
  EXPECT_EQ(At(reply.body, "/responses/3/status"), "400");
  // By itself it is told when to come again.
  RawConnection peer(server_->address());
  const std::string body = Fresh();
  peer.Send(StrCat("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  const std::string answer = peer.ReadAnswer();
  EXPECT_NE(answer.find(" 503 "), std::string::npos) << answer;
  EXPECT_NE(answer.find("\r\nRetry-After: 1\r\n"), std::string::npos) << answer;
  replica_.as_of = soon_;
  EXPECT_EQ(first.get().status, 200);
}

TEST_F(HttpWaitTest, StoppingKeepsWhatWasReadyOfABatch) {
  StartServer();
  auto reply = CallLater("/v1/recall:batch", StrCat(R"({"requests": [{"item": "a"}, )", Fresh(), "]}"));
  ASSERT_TRUE(Waiting(1));
  server_->Stop();
  const HttpReply answer = reply.get();
  EXPECT_EQ(At(answer.body, "/responses/0/status"), "200") << answer.body;
  EXPECT_EQ(At(answer.body, "/responses/1/problem/type"), R"("urn:freshet:problem:stopping")") << answer.body;
}

TEST_F(HttpWaitTest, EachEntryOfABatchWaitsByItself) {
  StartServer();
  // The last one asks for more than comes, and has little time.
  auto reply =
      CallLater("/v1/recall:batch", StrCat(R"({"requests": [)", Fresh(), R"(, {"item": "a"}, {"item": "nobody"}, )",
                                           R"({"item": "a", "timeout_ms": 1, "min_as_of": )", soon_ + 1, "}]}"));
  ASSERT_TRUE(Waiting(1));
  replica_.as_of = soon_;
  const HttpReply answer = reply.get();
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(At(answer.body, "/responses/0/status"), "200");
  EXPECT_EQ(At(answer.body, "/responses/0/answer/as_of_ms"), StrCat(soon_));
  EXPECT_EQ(At(answer.body, "/responses/1/status"), "200");
  EXPECT_EQ(At(answer.body, "/responses/1/answer/as_of_ms"), StrCat(soon_ - 1'000));
  EXPECT_EQ(At(answer.body, "/responses/2/status"), "404");
  EXPECT_EQ(At(answer.body, "/responses/3/status"), "503");
}

TEST_F(HttpWaitTest, StoppingAnswersWhoWaits) {
  StartServer();
  auto reply = CallLater("/v1/recall", Fresh());
  ASSERT_TRUE(Waiting(1));
  server_->Stop();
  const HttpReply answer = reply.get();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(At(answer.body, "/type"), R"("urn:freshet:problem:stopping")");
}

TEST_F(HttpWaitTest, APeerThatLeavesWhileItWaitsHarmsNobody) {
  StartServer();
  {
    RawConnection peer(server_->address());
    const std::string body = Fresh();
    ASSERT_TRUE(
        peer.Send(StrCat("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body)));
    ASSERT_TRUE(Waiting(1));
  }
  replica_.as_of = soon_;
  EXPECT_TRUE(Waiting(0));
  EXPECT_EQ(Call("/v1/recall", Fresh()).status, 200);
}

// Pipelined requests are answered in their order, though the first one has to wait.
TEST_F(HttpWaitTest, AnswersKeepTheOrderOfTheirRequests) {
  StartServer();
  RawConnection peer(server_->address());
  const std::string first = Fresh();
  const auto post = [](const std::string& path, const std::string& body) {
    return StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
  };
  ASSERT_TRUE(peer.Send(post("/v1/recall", first) + post("/v1/recall", R"({"item": "nobody"})")));
  ASSERT_TRUE(Waiting(1));
  replica_.as_of = soon_;
  EXPECT_NE(peer.ReadAnswer().find(" 200 "), std::string::npos);
  EXPECT_NE(peer.ReadAnswer().find(" 404 "), std::string::npos);
}

}  // namespace
}  // namespace freshet
