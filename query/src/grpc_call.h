// One call of gRPC: reads what came with it, goes its way (RequestFlow), ends with an answer or a status.
//
// Place in the flow: made by grpc_door.cc, on a thread of gRPC, when the whole request has come; its steps run on the
// threads that search. Owned by GrpcCalls until gRPC says that it is over, and by whatever step of it is posted then.
// Only in builds with FRESHET_GRPC.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "freshet/core/metrics.h"
#include "request_flow.h"

namespace freshet {

class GrpcCall;

// The calls under way, and what they share. Thread-safe.
class GrpcCalls {
 public:
  GrpcCalls(RequestDesk* desk, RequestMeter* meter, std::size_t max, Metrics* metrics);

  // Takes a call in. `method`: the route as HTTP has it.
  grpc::ServerUnaryReactor* Begin(Route method, grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response);
  void Await(std::chrono::milliseconds timeout);
  // Ends those that are left. REQUIRES: no step of them runs any more.
  void AbandonAll();

 private:
  friend class GrpcCall;
  [[nodiscard]] bool AreTooMany();
  void Remove(const GrpcCall* call);

  RequestDesk* const desk_;
  RequestMeter* const meter_;
  const std::size_t max_;
  Gauge& open_calls_;
  Counter& slow_readers_;
  Counter& left_;  // callers, before their answer
  std::mutex mu_;
  std::condition_variable changed_;
  std::unordered_map<const GrpcCall*, std::shared_ptr<GrpcCall>> open_;  // guarded by mu_
};

class GrpcCall final : public grpc::ServerUnaryReactor,
                       public RequestFlow,
                       public std::enable_shared_from_this<GrpcCall> {
 public:
  GrpcCall(GrpcCalls* calls, Route method, grpc::CallbackServerContext* context, const grpc::ByteBuffer& request,
           grpc::ByteBuffer* response);
  ~GrpcCall() override = default;

  void Begin();                    // on its way
  void Refuse(const Status& why);  // instead
  void Abandon();                  // where it has not ended yet
  void OnCancel() override;        // the caller has left, or its deadline has passed
  void OnDone() override;          // the last word of gRPC

 private:
  [[nodiscard]] HttpRequestView View() const override;
  void Post(std::function<void()> task) override;
  void Write(HttpAnswer answer) override;
  [[nodiscard]] std::shared_ptr<RequestFlow> Self() override { return shared_from_this(); }
  [[nodiscard]] bool CallerHasLeft() const override { return left_; }
  [[nodiscard]] std::string_view Metadata(const char* name) const;
  void CutOff();  // who does not read the answer
  void Fail(const std::exception& error);
  void End(const grpc::Status& status);  // once; more of it is nothing

  GrpcCalls* const calls_;
  const Route method_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  grpc::Slice body_;
  std::int64_t arrived_us_ = 0;
  std::int64_t deadline_us_ = 0;
  RequestTag tag_;
  std::atomic<bool> left_{false};
  std::atomic<bool> finished_{false};
  std::mutex mu_;
  bool over_ = false;  // guarded by mu_: the context is gone
  grpc::Alarm alarm_;  // for a large answer, until it is read
};

}  // namespace freshet
