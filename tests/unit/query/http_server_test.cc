#include "freshet/query/http_server.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "fake_replica.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet_test/test_support.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::RawConnection;
using test::WaitFor;

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    replica_.Put("a", {1, 0}, {{"title", std::string("Toy Story")}});
    replica_.Put("b", {0.5F, 0});
    replica_.users["u"].history = {{"a", "view", 1, 1}};
    replica_.Put("c d/é", {0.25F, 0});
  }
  void StartServer() {
    server_ = MakeHttpServer(
        options_, &service_, &metrics_, [this] { return reasons_; }, [] { return std::string(R"({"state":"up"})"); });
    ASSERT_OK(server_->Start());
  }
  HttpReply Call(std::string_view method, std::string_view target, std::string_view body = "") {
    Result<HttpReply> reply = HttpCall(server_->address(), method, target, body, 30'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }
  // The member's text, or its JSON; "" where there is none.
  static std::string Member(const std::string& json, const std::string& key) {
    const auto document = ParseJson(json);
    if (!document.ok()) return "not JSON: " + json;
    const JsonValue* value = JsonFind(**document, key);
    if (value == nullptr) return "";
    return value->IsString() ? std::string(JsonText(*value)) : ToJson(*value);
  }
  static void ExpectProblem(const HttpReply& reply, int status, const std::string& name, const std::string& pointer) {
    EXPECT_EQ(reply.status, status) << reply.body;
    EXPECT_EQ(reply.content_type, "application/problem+json");
    EXPECT_EQ(Member(reply.body, "type"), "urn:freshet:problem:" + name) << reply.body;
    EXPECT_EQ(Member(reply.body, "status"), StrCat(status));
    EXPECT_EQ(Member(reply.body, "pointer"), pointer) << reply.body;
    EXPECT_NE(Member(reply.body, "title"), "");
  }
  double Requests(const std::string& route, const std::string& code) {
    return metrics_.GetCounter("freshet_http_requests_total", "Requests answered", {{"route", route}, {"code", code}})
        .Value();
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

TEST_F(HttpServerTest, AnswersARecall) {
  StartServer();
  const HttpReply reply = Call("POST", "/v1/recall", R"({"vector": [1, 0], "k": 1, "with_attributes": true})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.content_type, "application/json");
  EXPECT_EQ(Member(reply.body, "results"), R"([{"id":"a","score":1,"attributes":{"title":"Toy Story"}}])");
  EXPECT_EQ(Member(reply.body, "index_version"), "7");
  EXPECT_EQ(Member(reply.body, "as_of"), "2011-05-31T17:39:00.123Z");
  EXPECT_EQ(Requests("/v1/recall", "200"), 1);
}

TEST_F(HttpServerTest, TellsWhichFieldIsWrong) {
  StartServer();
  ExpectProblem(Call("POST", "/v1/recall", R"({"vector": [1, 0], "kk": 1})"), 400, "invalid-request", "/kk");
  ExpectProblem(Call("POST", "/v1/recall", R"({"vector": [1, 0, 0]})"), 400, "invalid-request", "/vector");
  ExpectProblem(Call("POST", "/v1/recall", R"({"vector": [1, 0], "exclude_ids": [""]})"), 400, "invalid-request",
                "/exclude_ids/0");
  ExpectProblem(Call("POST", "/v1/recall", "{"), 400, "invalid-request", "");
  ExpectProblem(Call("POST", "/v1/recall"), 400, "invalid-request", "");
  EXPECT_EQ(Requests("/v1/recall", "400"), 5);
}

TEST_F(HttpServerTest, MapsEachErrorToItsStatus) {
  StartServer();
  ExpectProblem(Call("POST", "/v1/recall", R"({"item": "nope"})"), 404, "not-found", "/item");
  encoder_.result = Internal("broken");
  ExpectProblem(Call("POST", "/v1/recall", R"({"user": "u"})"), 500, "internal", "");
  encoder_.result = DeadlineExceeded("slow");
  ExpectProblem(Call("POST", "/v1/recall", R"({"user": "u"})"), 504, "deadline-exceeded", "");
  encoder_.result = ResourceExhausted("full");
  ExpectProblem(Call("POST", "/v1/recall", R"({"user": "u"})"), 429, "overloaded", "");
  encoder_.space = "other";
  ExpectProblem(Call("POST", "/v1/recall", R"({"user": "u"})"), 503, "unavailable", "");
}

TEST_F(HttpServerTest, OverloadSaysWhenToRetry) {
  StartServer();
  encoder_.result = ResourceExhausted("full");
  RawConnection connection(server_->address());
  connection.Send("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"user\": \"u\"}");
  EXPECT_NE(connection.ReadAnswer().find("\r\nRetry-After: 1\r\n"), std::string::npos);
}

TEST_F(HttpServerTest, AnExceptionBelowBecomesA500) {
  StartServer();
  encoder_.on_encode = [](const UserContext&) { throw std::runtime_error("boom"); };
  ExpectProblem(Call("POST", "/v1/recall", R"({"user": "u"})"), 500, "internal", "");
  EXPECT_EQ(Call("GET", "/livez").status, 200);
}

TEST_F(HttpServerTest, TheRequestsTimeoutIsADeadline) {
  StartServer();
  encoder_.on_encode = [this](const UserContext&) {
    const std::int64_t until_us = clock_.MonotonicUs() + 5'000;
    EXPECT_TRUE(WaitFor([&] { return clock_.MonotonicUs() >= until_us; }));
  };
  ExpectProblem(Call("POST", "/v1/recall", R"({"user": "u", "timeout_ms": 2})"), 504, "deadline-exceeded", "");
}

TEST_F(HttpServerTest, ShowsOneItem) {
  StartServer();
  HttpReply reply = Call("GET", "/v1/items/a?pretty");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(
      reply.body,
      R"({"id":"a","live":true,"sequence":7,"attributes":{"title":"Toy Story"},"vector":[1,0],"index_version":7})");
  reply = Call("GET", "/v1/items/c%20d%2F%c3%A9");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(Member(reply.body, "id"), "c d/é");
  ExpectProblem(Call("GET", "/v1/items/zzz"), 404, "not-found", "");
  ExpectProblem(Call("GET", "/v1/items/a%2"), 400, "invalid-request", "");
  ExpectProblem(Call("GET", "/v1/items/a%zz"), 400, "invalid-request", "");
  ExpectProblem(Call("GET", "/v1/items/%ff"), 400, "invalid-request", "");
  ExpectProblem(Call("GET", "/v1/items/"), 400, "invalid-request", "");
  ExpectProblem(Call("GET", "/v1/items/" + std::string(513, 'x')), 400, "invalid-request", "");
  ExpectProblem(Call("GET", "/v1/items/a/b"), 404, "no-such-path", "");
}

TEST_F(HttpServerTest, ReportsStatusAndHealth) {
  StartServer();
  EXPECT_EQ(Call("GET", "/v1/status").body, R"({"state":"up"})");
  EXPECT_EQ(Call("GET", "/livez").status, 200);
  EXPECT_EQ(Call("GET", "/readyz").status, 200);
  reasons_ = {"restoring", "lag of 5,000 records"};
  const HttpReply reply = Call("GET", "/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.body, R"({"ready":false,"reasons":["restoring","lag of 5,000 records"]})");
  EXPECT_EQ(Call("GET", "/livez").status, 200);
}

TEST_F(HttpServerTest, ServesItsMetrics) {
  StartServer();
  Call("GET", "/livez");
  const HttpReply reply = Call("GET", "/metrics");
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.content_type.starts_with("text/plain; version=0.0.4")) << reply.content_type;
  EXPECT_NE(reply.body.find(R"(freshet_http_requests_total{code="200",route="/livez"} 1)"), std::string::npos);
  EXPECT_NE(reply.body.find("freshet_http_connections "), std::string::npos);
  EXPECT_NE(reply.body.find(R"(freshet_http_seconds_count{route="/livez"} 1)"), std::string::npos);
}

TEST_F(HttpServerTest, KnowsItsPathsAndMethods) {
  StartServer();
  ExpectProblem(Call("GET", "/"), 404, "no-such-path", "");
  ExpectProblem(Call("GET", "/v1/recall/x"), 404, "no-such-path", "");
  ExpectProblem(Call("GET", "/v1/recall"), 405, "method-not-allowed", "");
  ExpectProblem(Call("DELETE", "/v1/items/a"), 405, "method-not-allowed", "");
  RawConnection connection(server_->address());
  connection.Send("PUT /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(connection.ReadAnswer().find("\r\nAllow: GET, HEAD\r\n"), std::string::npos);
}

TEST_F(HttpServerTest, HeadHasTheLengthAndNoBody) {
  StartServer();
  RawConnection connection(server_->address());
  connection.Send("HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string head = connection.ReadAnswer(false);
  EXPECT_TRUE(head.starts_with("HTTP/1.1 200 OK\r\n")) << head;
  EXPECT_NE(head.find("\r\nContent-Length: 14\r\n"), std::string::npos) << head;
  const std::string get = connection.ReadAnswer();
  EXPECT_TRUE(get.starts_with("HTTP/1.1 200 OK\r\n")) << get;
  EXPECT_TRUE(get.ends_with(R"({"state":"up"})")) << get;
}

TEST_F(HttpServerTest, KeepsConnections) {
  StartServer();
  RawConnection connection(server_->address());
  for (int i = 0; i < 3; ++i) {
    connection.Send("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"item\": \"a\"}");
    EXPECT_TRUE(connection.ReadAnswer().starts_with("HTTP/1.1 200 OK\r\n"));
  }
  connection.Send("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(connection.ReadToEnd().ends_with(R"({"live":true})"));
}

TEST_F(HttpServerTest, ReadsChunkedAndAnnouncedBodies) {
  StartServer();
  RawConnection chunked(server_->address());
  chunked.Send(
      "POST /v1/recall HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "6\r\n{\"item\r\n7\r\n\": \"a\"}\r\n0\r\n\r\n");
  EXPECT_TRUE(chunked.ReadAnswer().starts_with("HTTP/1.1 200 OK\r\n"));
  RawConnection announced(server_->address());
  announced.Send("POST /v1/recall HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n");
  EXPECT_TRUE(announced.ReadAnswer().starts_with("HTTP/1.1 100 "));
  announced.Send("{\"item\": \"a\"}");
  EXPECT_TRUE(announced.ReadAnswer().starts_with("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpServerTest, RefusesMalformedHttp) {
  StartServer();
  for (const char* text :
       {"\r\n\r\n\r\n\r\nhello\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/recall HTTP/1.1\r\nContent-Length: minus\r\n\r\n", "\x16\x03\x01\x02\x01\x01\x01\xfc\r\n\r\n"}) {
    RawConnection connection(server_->address());
    connection.Send(text);
    const std::string answer = connection.ReadToEnd();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << text << " -> " << answer;
    EXPECT_NE(answer.find("urn:freshet:problem:malformed-http"), std::string::npos) << answer;
  }
  EXPECT_EQ(Requests("other", "400"), 5);
}

TEST_F(HttpServerTest, BoundsTheHeader) {
  StartServer();
  RawConnection fits(server_->address());
  fits.Send("GET /livez HTTP/1.1\r\nHost: x\r\nX: " + std::string(15'000, 'x') + "\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(fits.ReadToEnd().starts_with("HTTP/1.1 200 "));
  RawConnection connection(server_->address());
  connection.Send("GET /livez HTTP/1.1\r\nHost: x\r\nX: " + std::string(17'000, 'x') + "\r\n\r\n");
  EXPECT_TRUE(connection.ReadToEnd().starts_with("HTTP/1.1 431 "));
  RawConnection endless(server_->address());  // a request line without end
  endless.Send("GET /" + std::string(100'000, 'x'));
  EXPECT_TRUE(endless.ReadToEnd().starts_with("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, BoundsTheBody) {
  StartServer();
  ExpectProblem(Call("POST", "/v1/recall", std::string((1 << 20) + 1, ' ')), 413, "body-too-large", "");
  ExpectProblem(Call("POST", "/v1/recall", std::string(1 << 20, ' ')), 400, "invalid-request", "");
  RawConnection chunked(server_->address());
  chunked.Send("POST /v1/recall HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(0x10000, ' ') + "\r\n";
  for (int i = 0; i < 20; ++i) chunked.Send(chunk);
  EXPECT_TRUE(chunked.ReadToEnd().starts_with("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, CutsOffASlowHeader) {
  options_.header_timeout_ms = 50;
  StartServer();
  RawConnection silent(server_->address());
  EXPECT_EQ(silent.ReadToEnd(), "");
  // A byte now and then does not move the deadline.
  RawConnection slow(server_->address());
  slow.Send("GET /livez HTTP/1.1\r\nX: ");
  EXPECT_TRUE(WaitFor([&] { return !slow.Send("x") || slow.ClosedByPeer(0); }));
  EXPECT_EQ(Requests("/livez", "200"), 0);
  EXPECT_EQ(metrics_.GetCounter("freshet_http_timeouts_total", "").Value(), 2);
}

TEST_F(HttpServerTest, CutsOffASlowBody) {
  options_.request_timeout_ms = 50;
  StartServer();
  RawConnection slow(server_->address());
  slow.Send("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{");
  EXPECT_EQ(slow.ReadToEnd(), "");
}

TEST_F(HttpServerTest, ClosesIdleConnections) {
  options_.idle_timeout_ms = 50;
  StartServer();
  RawConnection idle(server_->address());
  idle.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(idle.ReadToEnd().starts_with("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, CutsOffWhoDoesNotReadItsAnswer) {
  options_.write_timeout_ms = 50;
  const std::string large((std::size_t{64} << 20), ' ');  // more than the sockets between take
  const auto server = MakeHttpServer(options_, &service_, &metrics_, {}, [&] { return large; });
  ASSERT_OK(server->Start());
  RawConnection deaf(server->address());
  deaf.Send("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
  Counter& timeouts = metrics_.GetCounter("freshet_http_timeouts_total", "");
  EXPECT_TRUE(WaitFor([&] { return timeouts.Value() == 1; }, 10'000));
  EXPECT_TRUE(WaitFor([&] { return metrics_.GetGauge("freshet_http_connections", "").Value() == 0; }));
  EXPECT_LT(deaf.ReadToEnd().size(), large.size());
}

TEST_F(HttpServerTest, BoundsTheConnections) {
  options_.max_connections = 1;
  StartServer();
  {
    RawConnection first(server_->address());
    first.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(first.ReadAnswer().starts_with("HTTP/1.1 200 "));
    RawConnection second(server_->address());
    EXPECT_TRUE(second.ReadToEnd().starts_with("HTTP/1.1 503 "));
    EXPECT_EQ(metrics_.GetCounter("freshet_http_refused_connections_total", "").Value(), 1);
  }
  Gauge& open = metrics_.GetGauge("freshet_http_connections", "Open HTTP connections");
  EXPECT_TRUE(WaitFor([&] { return open.Value() == 0; }));
  EXPECT_EQ(Call("GET", "/livez").status, 200);
}

TEST_F(HttpServerTest, ServesManyAtOnce) {
  StartServer();
  std::vector<std::future<int>> workers;
  for (int worker = 0; worker < 8; ++worker) {
    workers.push_back(std::async(std::launch::async, [this] {
      int good = 0;
      for (int i = 0; i < 25; ++i) {
        const auto reply = HttpCall(server_->address(), "POST", "/v1/recall", R"({"vector": [1, 0], "k": 2})", 30'000);
        if (reply.ok() && reply->status == 200 &&
            Member(reply->body, "results") == R"([{"id":"a","score":1},{"id":"b","score":0.5}])") {
          ++good;
        }
      }
      return good;
    }));
  }
  for (auto& worker : workers) EXPECT_EQ(worker.get(), 25);
  EXPECT_EQ(Requests("/v1/recall", "200"), 200);
}

TEST_F(HttpServerTest, FinishesRequestsInFlightWhenStopped) {
  options_.request_timeout_ms = 60'000;
  StartServer();
  std::promise<void> entered;
  std::promise<void> release;
  encoder_.on_encode = [&](const UserContext&) {
    entered.set_value();
    release.get_future().wait();
  };
  RawConnection idle(server_->address());
  idle.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(idle.ReadAnswer().starts_with("HTTP/1.1 200 "));
  RawConnection busy(server_->address());
  busy.Send("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"user\": \"u\"}");
  entered.get_future().wait();
  std::thread stopper([this] { server_->Stop(); });
  EXPECT_EQ(idle.ReadToEnd(), "");  // idle connections go at once
  EXPECT_TRUE(WaitFor([&] { return !RawConnection(server_->address()).connected(); }));
  EXPECT_FALSE(busy.ClosedByPeer(0));
  release.set_value();
  const std::string answer = busy.ReadToEnd();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 ")) << answer;
  EXPECT_NE(answer.find("\r\nConnection: close\r\n"), std::string::npos) << answer;
  stopper.join();
  server_->Stop();
}

TEST_F(HttpServerTest, StopsThoughAClientNeverFinishesItsRequest) {
  options_.request_timeout_ms = 20;
  options_.header_timeout_ms = 600'000;
  StartServer();
  RawConnection half(server_->address());
  half.Send("GET /live");
  Gauge& open = metrics_.GetGauge("freshet_http_connections", "Open HTTP connections");
  EXPECT_TRUE(WaitFor([&] { return open.Value() == 1; }));
  server_->Stop();
  server_.reset();
  EXPECT_EQ(half.ReadToEnd(), "");
}

TEST_F(HttpServerTest, ListensOnLoopbackOnly) {
  const auto refused = [&](const std::string& listen) {
    options_.listen = listen;
    const auto server = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    EXPECT_EQ(server->Start().code(), Code::kConfig) << listen;
  };
  for (const char* listen : {"0.0.0.0:0", "[::]:0", "10.0.0.1:80", "192.168.1.1:0", "[::ffff:127.0.0.1]:0", "", ":80",
                             "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8x", "::1:80",
                             "[127.0.0.1]:0", "example.org:80", "127.1:0"}) {
    refused(listen);
  }
  for (const char* listen : {"127.0.0.1:0", "127.8.9.1:0", "localhost:0"}) {
    options_.listen = listen;
    const auto server = MakeHttpServer(options_, &service_, &metrics_, {}, {});
    ASSERT_OK(server->Start());
    const auto reply = HttpCall(server->address(), "GET", "/readyz", "", 30'000);
    ASSERT_OK(reply);
    EXPECT_EQ(reply->status, 200);
  }
}

TEST_F(HttpServerTest, SaysWhenThePortIsTaken) {
  StartServer();
  options_.listen = server_->address();
  const auto second = MakeHttpServer(options_, &service_, &metrics_, {}, {});
  const Status status = second->Start();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find(options_.listen), std::string::npos);
}

TEST_F(HttpServerTest, ListensOnIpv6Loopback) {
  options_.listen = "[::1]:0";
  const auto server = MakeHttpServer(options_, &service_, &metrics_, {}, {});
  const Status status = server->Start();
  if (status.code() == Code::kUnavailable) GTEST_SKIP() << "no IPv6 here: " << status.message();
  ASSERT_OK(status);
  EXPECT_TRUE(server->address().starts_with("[::1]:"));
  EXPECT_OK(HttpCall(server->address(), "GET", "/livez", "", 30'000));
}

TEST_F(HttpServerTest, RefusesOptionsOutOfRange) {
  EXPECT_OK(HttpOptions{}.Validate());
  for (int HttpOptions::*field :
       {&HttpOptions::threads, &HttpOptions::header_timeout_ms, &HttpOptions::request_timeout_ms,
        &HttpOptions::write_timeout_ms, &HttpOptions::idle_timeout_ms}) {
    HttpOptions options;
    options.*field = 0;
    EXPECT_EQ(options.Validate().code(), Code::kConfig);
  }
  HttpOptions options;
  options.max_connections = 0;
  EXPECT_EQ(options.Validate().code(), Code::kConfig);
  for (std::size_t HttpOptions::*field : {&HttpOptions::max_queued, &HttpOptions::max_waiting}) {
    HttpOptions none;
    none.*field = 0;
    EXPECT_OK(none.Validate());
    none.*field = 65'537;
    EXPECT_EQ(none.Validate().code(), Code::kConfig);
  }
}

}  // namespace
}  // namespace freshet
