// A server with both doors, and callers of the one for gRPC.
#pragma once

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fake_replica.h"
#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/strings.h"
#include "freshet/query/http_client.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_service.h"
#include "freshet/v1/recall.grpc.pb.h"
#include "freshet_test/test_support.h"
#include "grpc_details.pb.h"

namespace freshet::test {

inline constexpr auto kCallTimeout = std::chrono::seconds(60);
inline constexpr char kRecallMethod[] = "/freshet.v1.Recall/Recall";

// A connection of its own: others of the process would be used again.
inline std::shared_ptr<grpc::Channel> Connect(
    const std::string& address,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials = grpc::InsecureChannelCredentials()) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

struct RawReply {
  grpc::Status status;
  std::string bytes;
};

inline grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

inline std::string ToBytes(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  if (!buffer.Valid() || !buffer.DumpToSingleSlice(&slice).ok()) return "";
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

// Any bytes to any method.
inline RawReply CallBytes(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                          const std::string& bytes, const std::string& token = "") {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const auto call = stub.PrepareUnaryCall(&context, method, ToBuffer(bytes), &queue);
  call->StartCall();
  RawReply reply;
  grpc::ByteBuffer answer;
  call->Finish(&answer, &reply.status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  EXPECT_TRUE(queue.Next(&tag, &ok));
  reply.bytes = ToBytes(answer);
  return reply;
}

// What the details of a status say.
struct Told {
  std::string reason, domain, type, pointer;  // of ErrorInfo
  std::string field, description;             // of BadRequest
  std::int64_t retry_seconds = 0;             // of RetryInfo
};

inline Told DetailsOf(const grpc::Status& status) {
  Told told;
  grpc_details::RpcStatus details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(details.message(), status.error_message());
  for (const auto& detail : details.details()) {
    if (detail.type_url() == "type.googleapis.com/google.rpc.ErrorInfo") {
      grpc_details::ErrorInfo info;
      EXPECT_TRUE(info.ParseFromString(detail.value()));
      told.reason = info.reason();
      told.domain = info.domain();
      told.type = info.metadata().at("type");
      if (info.metadata().contains("pointer")) told.pointer = info.metadata().at("pointer");
    } else if (detail.type_url() == "type.googleapis.com/google.rpc.BadRequest") {
      grpc_details::BadRequest request;
      EXPECT_TRUE(request.ParseFromString(detail.value()));
      EXPECT_EQ(request.field_violations_size(), 1);
      told.field = request.field_violations(0).field();
      told.description = request.field_violations(0).description();
    } else if (detail.type_url() == "type.googleapis.com/google.rpc.RetryInfo") {
      grpc_details::RetryInfo retry;
      EXPECT_TRUE(retry.ParseFromString(detail.value()));
      told.retry_seconds = retry.retry_delay().seconds();
    } else {
      ADD_FAILURE() << "unexpected: " << detail.type_url();
    }
  }
  return told;
}

inline v1::RecallRequest RequestOfUser(const std::string& user) {
  v1::RecallRequest request;
  request.mutable_user()->set_id(user);
  return request;
}

inline v1::RecallRequest RequestOfItem(const std::string& item) {
  v1::RecallRequest request;
  request.set_item(item);
  return request;
}

class GrpcTest : public ::testing::Test {
 protected:
  GrpcTest() { options_.grpc_listen = "127.0.0.1:0"; }

  void StartServer() {
    server_ = MakeHttpServer(
        options_, &service_, &metrics_,
        [this] {
          const std::lock_guard lock(mu_);
          return not_ready_;
        },
        [] { return std::string(R"({"items_live":2})"); });
    ASSERT_OK(server_->Start());
    Reconnect();
  }
  void Reconnect() {
    channel_ = Connect(server_->grpc_address());
    stub_ = v1::Recall::NewStub(channel_);
  }
  static void Prepare(grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  }
  grpc::Status Recall(const v1::RecallRequest& request, v1::RecallResponse* response = nullptr) {
    grpc::ClientContext context;
    Prepare(&context);
    v1::RecallResponse ignored;
    return stub_->Recall(&context, request, response == nullptr ? &ignored : response);
  }
  std::future<grpc::Status> RecallLater(v1::RecallRequest request) {
    return std::async(std::launch::async, [this, request = std::move(request)] { return Recall(request); });
  }
  HttpReply Http(std::string_view method, std::string_view target, std::string_view body = "") {
    Result<HttpReply> reply = HttpCall(server_->address(), method, target, body, 60'000);
    EXPECT_OK(reply);
    return reply.ok() ? *reply : HttpReply{};
  }
  std::future<HttpReply> HttpLater(std::string target, std::string body) {
    return std::async(std::launch::async, [this, target = std::move(target), body = std::move(body)] {
      return Http("POST", target, body);
    });
  }
  double Requests(const std::string& method, const std::string& code) {
    return metrics_.GetCounter("freshet_grpc_requests_total", "", {{"method", method}, {"code", code}}).Value();
  }
  [[nodiscard]] bool GaugeIs(const std::string& name, double count) {
    return WaitFor([&] { return metrics_.GetGauge(name, "").Value() == count; });
  }
  [[nodiscard]] bool Queued(double count) { return GaugeIs("freshet_http_queued_requests", count); }
  [[nodiscard]] bool Calls(double count) { return GaugeIs("freshet_grpc_calls", count); }
  void SetNotReady(std::vector<std::string> reasons) {
    const std::lock_guard lock(mu_);
    not_ready_ = std::move(reasons);
  }

  FakeReplica replica_;
  FakeUserEncoder encoder_;
  SystemClock clock_;
  Metrics metrics_;
  FakeReranker reranker_;
  RecallService service_{&replica_, &encoder_, &clock_, &metrics_, {}, &reranker_};
  HttpOptions options_;
  std::mutex mu_;
  std::vector<std::string> not_ready_;  // guarded by mu_
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Recall::Stub> stub_;
  std::unique_ptr<HttpServer> server_;  // goes first
};

}  // namespace freshet::test
