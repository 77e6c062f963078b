// More requests than places to search: they queue, within bounds, and what needs no place never does.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>

#include "fake_replica.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet_test/test_support.h"
#include "held_searches.h"
#include "json_at.h"
#include "raw_connection.h"

namespace freshet {
namespace {

using test::At;
using test::RawConnection;
using test::WaitFor;

constexpr char kOverloaded[] = R"("urn:freshet:problem:overloaded")";

class HttpQueueTest : protected test::HeldSearches, public ::testing::Test {
 protected:
  void SetUp() override { HoldSearches(&replica_, &encoder_, &options_); }
  void TearDown() override { gate_is_open_ = true; }
  void StartServer() {
    server_ = MakeHttpServer(options_, &service_, &metrics_, {}, [] { return std::string("{}"); });
    ASSERT_OK(server_->Start());
  }
  HttpReply Call(std::string_view method, std::string_view target, std::string_view body = "") {
    Result<HttpReply> reply = HttpCall(server_->address(), method, target, body, 60'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }
  std::future<HttpReply> CallLater(std::string target, std::string body) {
    return std::async(std::launch::async, [this, target = std::move(target), body = std::move(body)] {
      return Call(body.empty() ? "GET" : "POST", target, body);
    });
  }
  // The only place is taken, until the gate is opened.
  std::future<HttpReply> TakeThePlace() {
    auto busy = CallLater("/v1/recall", R"({"user": "busy"})");
    EXPECT_TRUE(PlaceIsTaken());
    return busy;
  }
  [[nodiscard]] bool Queued(double count) {
    return WaitFor([&] { return metrics_.GetGauge("freshet_http_queued_requests", "").Value() == count; });
  }
  double Requests(const std::string& route, const std::string& code) {
    return metrics_.GetCounter("freshet_http_requests_total", "", {{"route", route}, {"code", code}}).Value();
  }

  test::FakeReplica replica_;
  test::FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_};
  HttpOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpQueueTest, ProbesAnswerWhileEveryPlaceIsTaken) {
  StartServer();
  auto busy = TakeThePlace();
  auto queued = CallLater("/v1/recall", R"({"item": "a"})");
  ASSERT_TRUE(Queued(1));
  for (const char* path : {"/livez", "/startupz", "/readyz", "/metrics", "/v1/status", "/openapi.yaml"}) {
    EXPECT_EQ(Call("GET", path).status, 200) << path;
  }
  // Refusals neither.
  EXPECT_EQ(Call("GET", "/nothing").status, 404);
  EXPECT_EQ(Call("GET", "/v1/recall").status, 405);
  gate_is_open_ = true;
  EXPECT_EQ(busy.get().status, 200);
  EXPECT_EQ(queued.get().status, 200);
}

TEST_F(HttpQueueTest, ThoseThatQueueAreAnsweredInTheirOrder) {
  StartServer();
  auto busy = TakeThePlace();
  auto first = CallLater("/v1/recall", R"({"user": "first"})");
  ASSERT_TRUE(Queued(1));
  auto second = CallLater("/v1/recall:batch", R"({"requests": [{"user": "second"}]})");
  ASSERT_TRUE(Queued(2));
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"});
  gate_is_open_ = true;
  for (auto* one : {&busy, &first, &second}) EXPECT_EQ(one->get().status, 200);
  EXPECT_EQ(Searched(), (std::vector<std::string>{"busy", "first", "second"}));
  EXPECT_TRUE(Queued(0));
  EXPECT_EQ(metrics_.GetHistogram("freshet_http_queue_seconds", "").Count(), 2) << "busy did not queue";
}

TEST_F(HttpQueueTest, AFullQueueIsToldSo) {
  options_.max_queued = 1;
  StartServer();
  auto busy = TakeThePlace();
  auto queued = CallLater("/v1/recall", R"({"user": "first"})");
  ASSERT_TRUE(Queued(1));
  const std::string item = R"({"item": "a"})";
  for (const auto& [route, target, body] : std::vector<std::array<std::string, 3>>{
           {"/v1/recall", "/v1/recall", item},
           {"/v1/recall:batch", "/v1/recall:batch", R"({"requests": [{"item": "a"}]})"},
           {"/v1/score", "/v1/score", R"({"item": "a", "ids": ["a"]})"},
           {"/v1/items/{id}", "/v1/items/a", ""},
           {"/v1/users/{id}", "/v1/users/first", ""}}) {
    const HttpReply reply = Call(body.empty() ? "GET" : "POST", target, body);
    EXPECT_EQ(reply.status, 429) << route;
    EXPECT_EQ(At(reply.body, "/type"), kOverloaded);
    EXPECT_EQ(Requests(route, "429"), 1) << route;
  }
  RawConnection raw(server_->address());
  raw.Send(StrCat("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: ", item.size(), "\r\n\r\n", item));
  EXPECT_NE(raw.ReadAnswer().find("\r\nRetry-After: 1\r\n"), std::string::npos);
  EXPECT_EQ(Call("GET", "/livez").status, 200);
  gate_is_open_ = true;
  EXPECT_EQ(busy.get().status, 200);
  EXPECT_EQ(queued.get().status, 200);
  // The connection that was told so is as good as ever.
  raw.Send(StrCat("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: ", item.size(), "\r\n\r\n", item));
  EXPECT_NE(raw.ReadAnswer().find(" 200 "), std::string::npos);
}

TEST_F(HttpQueueTest, TimeInTheQueueCountsForTheDeadline) {
  options_.request_timeout_ms = 60;
  StartServer();
  auto busy = TakeThePlace();
  // The server's deadline passes for one; of the other, less was asked for.
  std::vector<std::future<HttpReply>> late;
  late.push_back(CallLater("/v1/items/a", ""));
  late.push_back(CallLater("/v1/recall", R"({"user": "first"})"));
  late.push_back(CallLater("/v1/recall:batch", R"({"requests": [{"user": "second"}]})"));
  ASSERT_TRUE(Queued(3));
  const std::int64_t until_us = clock_.MonotonicUs() + 60'000;
  EXPECT_TRUE(WaitFor([&] { return clock_.MonotonicUs() >= until_us; }));
  gate_is_open_ = true;
  for (auto& one : late) {
    const HttpReply reply = one.get();
    EXPECT_EQ(reply.status, 504) << reply.body;
    EXPECT_NE(reply.body.find("queued"), std::string::npos) << reply.body;
  }
  EXPECT_EQ(busy.get().status, 504);
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"}) << "nobody waits for the others' answers";
}

TEST_F(HttpQueueTest, ARequestsOwnTimeoutCountsInTheQueueToo) {
  StartServer();
  auto busy = TakeThePlace();
  auto late = CallLater("/v1/recall", R"({"user": "first", "timeout_ms": 20})");
  auto batch = CallLater("/v1/recall:batch", R"({"requests": [{"user": "second", "timeout_ms": 20}, {"item": "a"}]})");
  ASSERT_TRUE(Queued(2));
  const std::int64_t until_us = clock_.MonotonicUs() + 20'000;
  EXPECT_TRUE(WaitFor([&] { return clock_.MonotonicUs() >= until_us; }));
  gate_is_open_ = true;
  EXPECT_EQ(late.get().status, 504);
  const HttpReply answers = batch.get();
  EXPECT_EQ(At(answers.body, "/responses/0/status"), "504") << answers.body;
  EXPECT_EQ(At(answers.body, "/responses/1/status"), "200") << answers.body;
  EXPECT_EQ(busy.get().status, 200);
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"});
}

TEST_F(HttpQueueTest, WhoWaitedForFreshnessQueuesToo) {
  options_.max_queued = 0;
  StartServer();
  const std::int64_t soon = replica_.as_of + 1'000;
  auto fresh = CallLater("/v1/recall", StrCat(R"({"item": "a", "min_as_of": )", soon, "}"));
  ASSERT_TRUE(WaitFor([&] { return metrics_.GetGauge("freshet_http_waiting_requests", "").Value() == 1; }));
  auto busy = TakeThePlace();
  replica_.as_of = soon;
  ASSERT_TRUE(Queued(1)) << "it is not refused";
  EXPECT_EQ(Call("POST", "/v1/recall", R"({"item": "a"})").status, 429);
  gate_is_open_ = true;
  const HttpReply reply = fresh.get();
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(At(reply.body, "/as_of_ms"), StrCat(soon));
  EXPECT_EQ(busy.get().status, 200);
}

TEST_F(HttpQueueTest, StoppingAnswersThoseThatQueue) {
  StartServer();
  auto busy = TakeThePlace();
  auto queued = CallLater("/v1/recall", R"({"user": "first"})");
  ASSERT_TRUE(Queued(1));
  std::thread stopper([this] { server_->Stop(); });
  EXPECT_TRUE(WaitFor([&] { return !RawConnection(server_->address()).connected(); }));
  gate_is_open_ = true;
  EXPECT_EQ(busy.get().status, 200);
  EXPECT_EQ(queued.get().status, 200);
  stopper.join();
}

// A search that does not come to its end in time: those behind it are dropped, and nothing of them stays.
TEST_F(HttpQueueTest, StoppingEndsThoughAPlaceIsNotLeft) {
  options_.request_timeout_ms = 20;
  StartServer();
  auto busy = TakeThePlace();
  const std::string request = "GET /v1/items/a HTTP/1.1\r\nHost: x\r\n\r\n";
  RawConnection first(server_->address());
  first.Send(request);
  ASSERT_TRUE(Queued(1));
  RawConnection second(server_->address());
  second.Send(request);
  ASSERT_TRUE(Queued(2));
  const std::int64_t until_us = clock_.MonotonicUs() + 1'500'000;  // longer than Stop() waits for the sessions
  std::thread stopper([this] { server_->Stop(); });
  EXPECT_TRUE(WaitFor([&] { return clock_.MonotonicUs() >= until_us; }));
  gate_is_open_ = true;
  stopper.join();
  server_.reset();
  (void)busy.get();
  EXPECT_EQ(first.ReadToEnd(), "");
  EXPECT_EQ(second.ReadToEnd(), "");
  EXPECT_EQ(metrics_.GetGauge("freshet_http_queued_requests", "").Value(), 0);
  EXPECT_EQ(metrics_.GetGauge("freshet_http_connections", "").Value(), 0);
}

TEST_F(HttpQueueTest, APeerThatLeavesTheQueueHarmsNobody) {
  StartServer();
  auto busy = TakeThePlace();
  {
    RawConnection gone(server_->address());
    gone.Send("GET /v1/items/a HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_TRUE(Queued(1));
  }
  auto behind = CallLater("/v1/items/a", "");
  ASSERT_TRUE(Queued(2));
  gate_is_open_ = true;
  EXPECT_EQ(behind.get().status, 200);
  EXPECT_EQ(busy.get().status, 200);
}

TEST_F(HttpQueueTest, ManyMoreClientsThanPlacesAreAllAnswered) {
  options_.threads = 2;
  gate_is_open_ = true;
  StartServer();
  std::vector<std::future<int>> clients;
  for (int client = 0; client < 16; ++client) {
    clients.push_back(std::async(std::launch::async, [this, client] {
      RawConnection connection(server_->address());
      const std::string body = client % 2 == 0 ? R"({"user": "first"})" : R"({"item": "a"})";
      int good = 0;
      for (int i = 0; i < 50; ++i) {
        connection.Send(
            StrCat("POST /v1/recall HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
        good += connection.ReadAnswer().starts_with("HTTP/1.1 200 ") ? 1 : 0;
      }
      return good;
    }));
  }
  for (auto& client : clients) EXPECT_EQ(client.get(), 50);
  EXPECT_TRUE(Queued(0));
}

}  // namespace
}  // namespace freshet
