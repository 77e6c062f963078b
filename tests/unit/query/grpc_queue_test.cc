// Calls that queue, wait, come too late or too many, that nobody waits for, and that a stop meets on their way. Places
// and queue are those of HTTP.
#include <thread>

#include "grpc_fixture.h"
#include "held_searches.h"
#include "json_at.h"

namespace freshet {
namespace {

using test::At;
using test::DetailsOf;
using test::RequestOfItem;
using test::RequestOfUser;
using test::Told;
using test::WaitFor;

// Whether the next step of a call went well.
bool NextStep(grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  EXPECT_TRUE(queue->Next(&tag, &ok));
  return ok;
}

class GrpcQueueTest : protected test::HeldSearches, public test::GrpcTest {
 protected:
  void SetUp() override { HoldSearches(&replica_, &encoder_, &options_); }
  void TearDown() override { gate_is_open_ = true; }
  // The only place is taken, until the gate is opened.
  std::future<grpc::Status> TakeThePlace() {
    auto busy = RecallLater(RequestOfUser("busy"));
    EXPECT_TRUE(PlaceIsTaken());
    return busy;
  }
  void PassTime(std::int64_t us) {
    const std::int64_t until_us = clock_.MonotonicUs() + us;
    EXPECT_TRUE(WaitFor([&] { return clock_.MonotonicUs() >= until_us; }));
  }
};

TEST_F(GrpcQueueTest, PlacesAndQueueAreThoseOfHttp) {
  options_.max_queued = 2;
  StartServer();
  auto busy = TakeThePlace();
  auto http = HttpLater("/v1/recall", R"({"user": "first"})");
  ASSERT_TRUE(Queued(1));
  auto grpc = RecallLater(RequestOfUser("second"));
  ASSERT_TRUE(Queued(2));
  const HttpReply refused = Http("POST", "/v1/recall", R"({"item": "a"})");
  EXPECT_EQ(refused.status, 429) << refused.body;
  const grpc::Status refused_too = Recall(RequestOfItem("a"));
  EXPECT_EQ(refused_too.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const Told told = DetailsOf(refused_too);
  EXPECT_EQ(told.type, "urn:freshet:problem:overloaded");
  EXPECT_EQ(told.reason, "OVERLOADED");
  EXPECT_EQ(told.retry_seconds, 1);
  EXPECT_EQ(Requests("Recall", "RESOURCE_EXHAUSTED"), 1);
  // What needs no place is answered meanwhile.
  grpc::ClientContext context;
  Prepare(&context);
  v1::StatusResponse status;
  EXPECT_TRUE(stub_->Status(&context, {}, &status).ok());
  gate_is_open_ = true;
  EXPECT_TRUE(busy.get().ok());
  EXPECT_EQ(http.get().status, 200);
  EXPECT_TRUE(grpc.get().ok());
  EXPECT_EQ(Searched(), (std::vector<std::string>{"busy", "first", "second"})) << "one line for both";
  EXPECT_TRUE(Queued(0));
  EXPECT_TRUE(Calls(0));
}

TEST_F(GrpcQueueTest, TooManyCallsAreToldSo) {
  options_.max_connections = 2;
  StartServer();
  auto busy = TakeThePlace();
  auto queued = RecallLater(RequestOfUser("first"));
  ASSERT_TRUE(Calls(2));
  ASSERT_TRUE(Queued(1));
  const grpc::Status refused = Recall(RequestOfItem("a"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(refused.error_message().find("too many calls"), std::string::npos) << refused.error_message();
  EXPECT_EQ(DetailsOf(refused).retry_seconds, 1);
  gate_is_open_ = true;
  EXPECT_TRUE(busy.get().ok());
  EXPECT_TRUE(queued.get().ok());
  EXPECT_TRUE(Calls(0));
  EXPECT_TRUE(Recall(RequestOfItem("a")).ok());
}

TEST_F(GrpcQueueTest, TheCallsDeadlineHolds) {
  StartServer();
  auto busy = TakeThePlace();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  v1::RecallResponse response;
  EXPECT_EQ(stub_->Recall(&context, RequestOfUser("first"), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  PassTime(50'000);  // the server's clock may be a little behind the caller's
  gate_is_open_ = true;
  EXPECT_TRUE(busy.get().ok());
  ASSERT_TRUE(Calls(0));
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"}) << "nobody waits for the other's answer";
}

// Ours too: of the server, and what the message asks for, where it is earlier.
TEST_F(GrpcQueueTest, OtherTimeoutsHoldAsOverHttp) {
  StartServer();
  auto busy = TakeThePlace();
  v1::RecallRequest request = RequestOfUser("first");
  request.set_timeout_ms(20);
  auto late = RecallLater(request);
  ASSERT_TRUE(Queued(1));
  PassTime(20'000);
  gate_is_open_ = true;
  const grpc::Status status = late.get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(DetailsOf(status).type, "urn:freshet:problem:deadline-exceeded");
  EXPECT_TRUE(busy.get().ok());
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"});
  EXPECT_EQ(Requests("Recall", "DEADLINE_EXCEEDED"), 1);
}

TEST_F(GrpcQueueTest, TheServersTimeoutHoldsForWhoGivesNone) {
  options_.request_timeout_ms = 40;
  StartServer();
  auto busy = TakeThePlace();
  auto late = RecallLater(RequestOfUser("first"));
  ASSERT_TRUE(Queued(1));
  PassTime(40'000);
  gate_is_open_ = true;
  EXPECT_EQ(late.get().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(busy.get().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"});
}

TEST_F(GrpcQueueTest, NobodySearchesForWhoHasLeft) {
  StartServer();
  auto busy = TakeThePlace();
  grpc::ClientContext context;
  Prepare(&context);
  auto left = std::async(std::launch::async, [&] {
    v1::RecallResponse response;
    return stub_->Recall(&context, RequestOfUser("first"), &response);
  });
  ASSERT_TRUE(Queued(1));
  context.TryCancel();
  EXPECT_EQ(left.get().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(WaitFor([&] { return metrics_.GetCounter("freshet_grpc_abandoned_total", "").Value() == 1; }));
  gate_is_open_ = true;
  EXPECT_TRUE(busy.get().ok());
  ASSERT_TRUE(Calls(0));
  EXPECT_EQ(Searched(), std::vector<std::string>{"busy"});
  EXPECT_EQ(Requests("Recall", "CANCELLED"), 1);
}

TEST_F(GrpcQueueTest, WaitsForFreshnessWithoutAThread) {
  StartServer();
  const std::int64_t soon = replica_.as_of + 1'000;
  v1::RecallRequest request = RequestOfItem("a");
  request.set_min_as_of(soon);
  auto waiting = RecallLater(request);
  ASSERT_TRUE(GaugeIs("freshet_http_waiting_requests", 1));
  EXPECT_TRUE(Recall(RequestOfItem("a")).ok()) << "the only place is free";
  replica_.as_of = soon;
  EXPECT_TRUE(waiting.get().ok());

  request.set_min_as_of(soon + 1);
  request.set_timeout_ms(20);
  EXPECT_EQ(Recall(request).error_code(), grpc::StatusCode::UNAVAILABLE) << "503 over HTTP";
}

TEST_F(GrpcQueueTest, TooManyWhoWaitAreToldSo) {
  options_.max_waiting = 0;
  StartServer();
  v1::RecallRequest request = RequestOfItem("a");
  request.set_min_as_of(replica_.as_of + 1'000);
  const grpc::Status status = Recall(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).retry_seconds, 1);
}

TEST_F(GrpcQueueTest, StoppingAnswersWhatIsUnderWayAndRefusesWhatComes) {
  options_.max_waiting = 1;
  StartServer();
  v1::RecallRequest fresh = RequestOfItem("a");
  fresh.set_min_as_of(replica_.as_of + 1'000);
  auto waiting = RecallLater(fresh);
  ASSERT_TRUE(GaugeIs("freshet_http_waiting_requests", 1));
  auto busy = TakeThePlace();
  auto queued = RecallLater(RequestOfUser("first"));
  ASSERT_TRUE(Queued(1));
  std::thread stopper([this] { server_->Stop(); });
  const grpc::Status told = waiting.get();
  EXPECT_EQ(told.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(told).type, "urn:freshet:problem:stopping");
  const grpc::Status late = Recall(RequestOfItem("a"));
  EXPECT_EQ(late.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(late).type, "urn:freshet:problem:stopping");
  gate_is_open_ = true;
  EXPECT_TRUE(busy.get().ok());
  EXPECT_TRUE(queued.get().ok());
  stopper.join();
  EXPECT_TRUE(Calls(0));
  EXPECT_EQ(Recall(RequestOfItem("a")).error_code(), grpc::StatusCode::UNAVAILABLE) << "nobody listens";
}

// A search that does not come to its end in time: those behind it are told so, and nothing of them stays.
TEST_F(GrpcQueueTest, StoppingEndsThoughAPlaceIsNotLeft) {
  options_.request_timeout_ms = 20;
  StartServer();
  auto busy = TakeThePlace();
  auto first = RecallLater(RequestOfItem("a"));
  ASSERT_TRUE(Queued(1));
  auto second = RecallLater(RequestOfItem("a"));
  ASSERT_TRUE(Queued(2));
  std::thread stopper([this] { server_->Stop(); });
  PassTime(1'500'000);  // longer than Stop() waits for them
  gate_is_open_ = true;
  stopper.join();
  for (auto* one : {&first, &second}) {
    const grpc::StatusCode code = one->get().error_code();
    EXPECT_TRUE(code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED) << code;
  }
  EXPECT_FALSE(busy.get().ok());
  server_.reset();
  EXPECT_EQ(metrics_.GetGauge("freshet_http_queued_requests", "").Value(), 0);
  EXPECT_EQ(metrics_.GetGauge("freshet_grpc_calls", "").Value(), 0);
}

// Somebody watches our health for ever: no reason to wait for them.
TEST_F(GrpcQueueTest, WatchersOfHealthDoNotHoldUpAStop) {
  options_.request_timeout_ms = 30'000;
  StartServer();
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel_);
  const auto watch = stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  const auto next = [&queue] { return NextStep(&queue); };
  watch->StartCall(nullptr);
  ASSERT_TRUE(next());
  watch->WriteLast(test::ToBuffer(""), {}, nullptr);
  ASSERT_TRUE(next());
  std::string last;
  const auto read = [&] {
    grpc::ByteBuffer answer;
    watch->Read(&answer, nullptr);
    const bool ok = next();
    if (ok) last = test::ToBytes(answer);
    return ok;
  };
  while (last != "\x08\x01") ASSERT_TRUE(read());
  const std::int64_t began_us = clock_.MonotonicUs();
  server_->Stop();
  EXPECT_LT(clock_.MonotonicUs() - began_us, 25'000'000) << "of 31 s that it would wait for a call";
  while (read()) {
  }
  EXPECT_EQ(last, "\x08\x02") << "NOT_SERVING was the last word";
  grpc::Status status;
  watch->Finish(&status, nullptr);
  (void)next();
  EXPECT_FALSE(status.ok());
}

TEST_F(GrpcQueueTest, WhoDoesNotReadIsCutOff) {
  options_.write_timeout_ms = 100;
  for (int i = 0; i < 64; ++i) {
    replica_.Put(StrCat("large-", i), {1, 0}, {{"text", std::string(256 * 1024, 'x')}});
  }
  StartServer();
  v1::RecallRequest request;
  request.add_vector(1);
  request.add_vector(0);
  request.set_with_attributes(true);
  v1::RecallResponse all;
  ASSERT_TRUE(Recall(request, &all).ok()) << "who reads, has it";
  EXPECT_EQ(all.results_size(), 65);
  ASSERT_TRUE(Calls(0));

  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // or the window of flow control would grow
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel =
      grpc::CreateCustomChannel(server_->grpc_address(), grpc::InsecureChannelCredentials(), arguments);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const auto call = stub.PrepareCall(&context, test::kRecallMethod, &queue);
  const auto next = [&queue] { return NextStep(&queue); };
  call->StartCall(nullptr);
  ASSERT_TRUE(next());
  call->WriteLast(test::ToBuffer(request.SerializeAsString()), {}, nullptr);
  ASSERT_TRUE(next());
  EXPECT_TRUE(WaitFor([&] { return metrics_.GetCounter("freshet_grpc_timeouts_total", "").Value() == 1; }));
  EXPECT_TRUE(Calls(0)) << "and nothing of it is kept";
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  EXPECT_FALSE(next()) << "too late";
  grpc::Status status;
  call->Finish(&status, nullptr);
  (void)next();
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(Recall(RequestOfItem("a")).ok()) << "others are none the worse";
}

TEST_F(GrpcQueueTest, ManyCallersAreAllAnswered) {
  options_.threads = 2;
  gate_is_open_ = true;
  StartServer();
  std::vector<std::future<int>> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.push_back(std::async(std::launch::async, [this, caller] {
      const auto stub = v1::Recall::NewStub(test::Connect(server_->grpc_address()));
      int good = 0;
      for (int i = 0; i < 50; ++i) {
        grpc::ClientContext context;
        Prepare(&context);
        v1::RecallResponse response;
        const auto request = caller % 2 == 0 ? RequestOfUser("first") : RequestOfItem("a");
        good += stub->Recall(&context, request, &response).ok() ? 1 : 0;
      }
      return good;
    }));
  }
  for (auto& caller : callers) EXPECT_EQ(caller.get(), 50);
  EXPECT_TRUE(Queued(0));
  EXPECT_TRUE(Calls(0));
}

}  // namespace
}  // namespace freshet
