#include "http_log.h"

#include <gtest/gtest.h>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::RawConnection;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";

std::size_t Lines(const std::string& text, const std::string& part) {
  std::size_t lines = 0;
  for (const std::string& line : Split(text, '\n')) lines += line.find(part) != std::string::npos ? 1 : 0;
  return lines;
}

TEST(TraceIdOf, ReadsVersion00AndNothingElse) {
  const std::string trace = kTrace;
  EXPECT_EQ(TraceIdOf(StrCat("00-", trace, "-00f067aa0ba902b7-01")), trace);
  for (const std::string& wrong :
       {std::string(), trace, StrCat("01-", trace, "-00f067aa0ba902b7-01"), StrCat("00-", trace, "-00f067aa0ba902b7"),
        StrCat("00-", trace, "-00f067aa0ba902b7-01-"), StrCat("00-", trace, "-00F067AA0BA902B7-01"),
        StrCat("00-", std::string(32, '0'), "-00f067aa0ba902b7-01"), StrCat("00-", trace, "-0000000000000000-01"),
        StrCat("00-", trace, "-00f067aa0ba902b7-0g"), StrCat("00_", trace, "-00f067aa0ba902b7-01"),
        StrCat("00-", trace, "x00f067aa0ba902b7-01"), StrCat("00-", trace, "-00f067aa0ba902b7x01")}) {
    EXPECT_EQ(TraceIdOf(wrong), "") << wrong;
  }
}

TEST(LineLimit, LeavesOutAndCounts) {
  LineLimit limit(2);
  EXPECT_EQ(limit.Take(5), 0U);
  EXPECT_EQ(limit.Take(6), 0U);
  EXPECT_EQ(limit.Take(7), std::nullopt);
  EXPECT_EQ(limit.Take(1'000'004), std::nullopt);
  EXPECT_EQ(limit.Take(1'000'005), 2U);
  EXPECT_EQ(limit.Take(1'000'006), 0U);
  EXPECT_EQ(limit.Take(1'000'007), std::nullopt);
}

TEST(RequestLog, FailuresDoNotFloodTheLog) {
  ManualClock clock;
  RequestLog log(false, &clock);
  RequestTag tag{"id-1", ""};
  testing::internal::CaptureStderr();
  for (int i = 0; i < 25; ++i) log.Answered(tag, {"/v1/recall", "POST", 429, clock.MonotonicUs()});
  log.Answered(tag, {"/v1/recall", "POST", 200, clock.MonotonicUs()});
  log.Answered(tag, {"/v1/recall", "POST", 404, clock.MonotonicUs()});
  log.Answered(tag, {"/readyz", "GET", 503, clock.MonotonicUs(), true});
  EXPECT_EQ(Lines(testing::internal::GetCapturedStderr(), "query: "), 10U);
  clock.AdvanceMs(1'000);
  testing::internal::CaptureStderr();
  log.Answered(tag, {"/v1/score", "POST", 504, clock.MonotonicUs() - 2'500});
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_NE(line.find("request_id=id-1 route=/v1/score method=POST status=504 milliseconds=2.5 not_logged=15"),
            std::string::npos)
      << line;
}

class HttpLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    replica_.Put("secret-item", {1, 0});
    replica_.users["u"].history = {{"secret-item", "view", 1, 1}};
  }
  void StartServer() {
    server_ = MakeHttpServer(options_, &service_, &metrics_, [this] { return reasons_; }, {});
    ASSERT_OK(server_->Start());
  }
  // The whole answer to a request with these headers.
  std::string Ask(const std::string& start, const std::string& headers, const std::string& body = "") {
    RawConnection connection(server_->address());
    connection.Send(StrCat(start, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ", body.size(), "\r\n",
                           headers, "\r\n", body));
    return connection.ReadToEnd();
  }
  static std::string IdIn(const std::string& answer) {
    static constexpr std::string_view kHeader = "\r\nX-Request-Id: ";
    const std::size_t at = answer.find(kHeader);
    if (at == std::string::npos) return "";
    const std::size_t begin = at + kHeader.size();
    return answer.substr(begin, answer.find("\r\n", begin) - begin);
  }

  test::FakeReplica replica_;
  test::FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
  std::vector<std::string> reasons_;
  HttpOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpLogTest, EveryAnswerCarriesTheRequestsId) {
  StartServer();
  EXPECT_EQ(IdIn(Ask("GET /livez", "x-request-id: Order-7/a\r\n")), "Order-7/a");
  EXPECT_EQ(IdIn(Ask("GET /nothing", "X-Request-Id: " + std::string(128, 'x') + "\r\n")), std::string(128, 'x'));
  std::vector<std::string> made;
  for (const std::string& wrong :
       {std::string(), std::string("X-Request-Id: \r\n"), std::string("X-Request-Id: a b\r\n"),
        std::string("X-Request-Id: \xc3\xa9\r\n"), "X-Request-Id: " + std::string(129, 'x') + "\r\n"}) {
    made.push_back(IdIn(Ask("GET /livez", wrong)));
    EXPECT_EQ(made.back().size(), 16U) << wrong;
    EXPECT_EQ(made.back().find_first_not_of("0123456789abcdef"), std::string::npos) << made.back();
  }
  made.push_back(IdIn(Ask("no HTTP at all", "")));
  std::sort(made.begin(), made.end());
  EXPECT_EQ(std::adjacent_find(made.begin(), made.end()), made.end()) << "an id twice";
  EXPECT_NE(made.front(), "");
  const std::string too_large = Ask("POST /v1/recall", "X-Request-Id: large\r\n", std::string((1 << 20) + 1, ' '));
  EXPECT_TRUE(too_large.starts_with("HTTP/1.1 413 ")) << too_large;
  EXPECT_EQ(IdIn(too_large), "large");
}

TEST_F(HttpLogTest, ARefusedConnectionGetsAnIdToo) {
  options_.max_connections = 1;
  StartServer();
  RawConnection first(server_->address());
  first.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(IdIn(first.ReadAnswer()), "");
  RawConnection refused(server_->address());
  EXPECT_EQ(IdIn(refused.ReadToEnd()).size(), 16U);
}

TEST_F(HttpLogTest, OneConnectionsRequestsHaveTheirOwnIds) {
  StartServer();
  RawConnection connection(server_->address());
  connection.Send(
      "GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: first\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(IdIn(connection.ReadAnswer()), "first");
  EXPECT_EQ(IdIn(connection.ReadAnswer()).size(), 16U);
}

TEST_F(HttpLogTest, WhatFailsIsLoggedAndNothingElse) {
  reasons_ = {"has not caught up"};
  StartServer();
  testing::internal::CaptureStderr();
  (void)Ask("GET /v1/items/secret-item", "");
  (void)Ask("GET /v1/items/nobody", "");
  (void)Ask("GET /readyz", "");
  encoder_.space = "other";
  (void)Ask("POST /v1/recall", StrCat("X-Request-Id: r-1\r\ntraceparent: 00-", kTrace, "-00f067aa0ba902b7-01\r\n"),
            R"({"user": "u"})");
  // One that waits, and gives up.
  (void)Ask("POST /v1/score", "X-Request-Id: r-2\r\n",
            StrCat(R"({"item": "secret-item", "ids": ["a"], "timeout_ms": 1, "min_as_of": )", replica_.as_of + 9, "}"));
  server_->Stop();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(Lines(log, "query: "), 2U) << log;
  EXPECT_NE(log.find(StrCat("query: request failed request_id=r-1 trace_id=", kTrace,
                            " route=/v1/recall method=POST status=503 milliseconds=")),
            std::string::npos)
      << log;
  EXPECT_NE(log.find("request_id=r-2 route=/v1/score method=POST status=503"), std::string::npos) << log;
  EXPECT_EQ(log.find("secret-item"), std::string::npos) << log;
}

TEST_F(HttpLogTest, EveryRequestIsLoggedWhereThatIsAskedFor) {
  options_.access_log = true;
  StartServer();
  testing::internal::CaptureStderr();
  (void)Ask("GET /v1/items/secret-item?x=secret", "X-Request-Id: r-1\r\n");
  (void)Ask("HEAD /livez", "X-Request-Id: r-2\r\n");
  (void)Ask("INVENTED /v1/users/u", "X-Request-Id: r-3\r\n");
  encoder_.space = "other";
  (void)Ask("POST /v1/recall", "X-Request-Id: r-4\r\n", R"({"user": "u"})");
  (void)Ask("no HTTP at all", "");
  server_->Stop();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(Lines(log, "query: request "), 5U) << log;
  for (const char* part :
       {"request_id=r-1 route=/v1/items/{id} method=GET status=200 milliseconds=",
        "request_id=r-2 route=/livez method=HEAD status=200", "request_id=r-3 route=/v1/users/{id} status=405",
        "request_id=r-4 route=/v1/recall method=POST status=503", "route=other status=400"}) {
    EXPECT_EQ(Lines(log, part), 1U) << part << "\n in \n" << log;
  }
  EXPECT_EQ(log.find("secret"), std::string::npos) << log;
}

}  // namespace
}  // namespace freshet
