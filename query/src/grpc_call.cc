#include "grpc_call.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "freshet/core/log.h"
#include "grpc_codec.h"
#include "grpc_status.h"

namespace freshet {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Less than this leaves at once, whether or not anybody reads it: it fits into the flow control window that HTTP/2
// begins with.
constexpr std::size_t kSentAtOnceBytes = 64 * 1024 - 1024;
constexpr char kRequestId[] = "x-request-id";

struct Target {
  const char* method;
  const char* path;
};

// A call as a request of HTTP; the id of an item or user is in the body.
Target TargetOf(Route method) {
  switch (method) {
    case kRecallRoute:
      return {"POST", "/v1/recall"};
    case kBatchRoute:
      return {"POST", "/v1/recall:batch"};
    case kScoreRoute:
      return {"POST", "/v1/score"};
    case kItemRoute:
      return {"GET", "/v1/items/"};
    case kUserRoute:
      return {"GET", "/v1/users/"};
    default:
      return {"GET", "/v1/status"};
  }
}

// The bytes in one piece; none are copied where they came so.
grpc::Slice OnePiece(const grpc::ByteBuffer& buffer) {
  grpc::Slice piece;
  if (buffer.Valid() && !buffer.TrySingleSlice(&piece).ok() && !buffer.DumpToSingleSlice(&piece).ok()) return {};
  return piece;
}

// Refers to the text, which it takes.
grpc::ByteBuffer ToBuffer(std::string text) {
  auto* kept = new std::string(std::move(text));
  const grpc::Slice slice(
      kept->data(), kept->size(), [](void* owned) { delete static_cast<std::string*>(owned); }, kept);
  return {&slice, 1};
}

// 0: none. The clock of the deadline is the wall's.
std::int64_t MonotonicDeadline(std::chrono::system_clock::time_point deadline, std::int64_t now_us) {
  if (deadline == std::chrono::system_clock::time_point::max()) return 0;
  const auto left = std::chrono::duration_cast<microseconds>(deadline - std::chrono::system_clock::now());
  return now_us + std::max<std::int64_t>(left.count(), 1);
}

}  // namespace

GrpcCalls::GrpcCalls(RequestDesk* desk, RequestMeter* meter, std::size_t max, Metrics* metrics)
    : desk_(desk),
      meter_(meter),
      max_(max),
      open_calls_(metrics->GetGauge("freshet_grpc_calls", "Calls of gRPC under way")),
      slow_readers_(metrics->GetCounter("freshet_grpc_timeouts_total",
                                        "Calls of gRPC cut off because their answer was not read in time")),
      left_(metrics->GetCounter("freshet_grpc_abandoned_total",
                                "Calls of gRPC whose caller did not wait for the answer")) {}

grpc::ServerUnaryReactor* GrpcCalls::Begin(Route method, grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  std::shared_ptr<GrpcCall> call;
  try {
    call = std::make_shared<GrpcCall>(this, method, context, *request, response);
    const std::lock_guard lock(mu_);
    open_.emplace(call.get(), call);
  } catch (const std::exception& error) {
    LogError("query", "a call of gRPC is lost", {{"reason", error.what()}});
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "out of memory"});
    return reactor;
  }
  open_calls_.Add(1);
  call->Begin();
  return call.get();
}

bool GrpcCalls::AreTooMany() {
  const std::lock_guard lock(mu_);
  return open_.size() > max_;
}

void GrpcCalls::Await(milliseconds timeout) {
  std::unique_lock lock(mu_);
  changed_.wait_for(lock, timeout, [this] { return open_.empty(); });
}

void GrpcCalls::AbandonAll() {
  std::vector<std::shared_ptr<GrpcCall>> left;
  {
    const std::lock_guard lock(mu_);
    for (const auto& [raw, call] : open_) left.push_back(call);
  }
  for (const auto& call : left) call->Abandon();
}

void GrpcCalls::Remove(const GrpcCall* call) {
  std::shared_ptr<GrpcCall> last;  // goes without the lock
  {
    const std::lock_guard lock(mu_);
    const auto it = open_.find(call);
    last = std::move(it->second);
    open_.erase(it);
    open_calls_.Add(-1);
    if (open_.empty()) changed_.notify_all();
  }
}

GrpcCall::GrpcCall(GrpcCalls* calls, Route method, grpc::CallbackServerContext* context,
                   const grpc::ByteBuffer& request, grpc::ByteBuffer* response)
    : RequestFlow(calls->desk_),
      calls_(calls),
      method_(method),
      context_(context),
      response_(response),
      body_(OnePiece(request)),
      arrived_us_(desk_->clock.MonotonicUs()),
      deadline_us_(MonotonicDeadline(context->deadline(), arrived_us_)) {
  desk_->log.Name(Metadata(kRequestId), Metadata("traceparent"), &tag_);
  context_->AddInitialMetadata(kRequestId, tag_.request_id);
}

std::string_view GrpcCall::Metadata(const char* name) const {
  const auto& metadata = context_->client_metadata();
  const auto it = metadata.find(name);
  return it == metadata.end() ? std::string_view() : std::string_view(it->second.data(), it->second.size());
}

void GrpcCall::Begin() {
  try {
    if (desk_->stopping) return Refuse(Cancelled("try another sidecar"));  // nothing that is posted runs for long now
    if (calls_->AreTooMany()) return Refuse(ResourceExhausted("too many calls are under way"));
  } catch (const std::exception& error) {
    return Fail(error);
  }
  // gRPC's threads go back to the network.
  Post([self = shared_from_this()] { self->Answer(); });
}

void GrpcCall::Post(std::function<void()> task) {
  try {
    desk_->post([self = shared_from_this(), step = std::move(task)] {
      try {
        step();
      } catch (const std::exception& error) {
        self->Fail(error);
      }
    });
  } catch (const std::exception& error) {
    Fail(error);
  }
}

// Of memory, most likely. Nobody but us would tell the caller.
void GrpcCall::Fail(const std::exception& error) {
  End({grpc::StatusCode::INTERNAL, "unexpected"});
  LogError("query", "a call of gRPC failed", {{"reason", error.what()}});
}

void GrpcCall::Refuse(const Status& why) { Write(desk_->api->Refuse(View(), ProblemAnswer(why))); }

void GrpcCall::Abandon() {
  if (!finished_) Refuse(Cancelled("try another sidecar"));
}

HttpRequestView GrpcCall::View() const {
  const auto [method, path] = TargetOf(method_);
  HttpRequestView view{
      method, path, {reinterpret_cast<const char*>(body_.begin()), body_.size()}, Metadata("authorization")};
  view.arrived_us = arrived_us_;
  view.deadline_us = deadline_us_;
  view.codec = &GrpcCodec();
  view.meter = calls_->meter_;
  return view;
}

void GrpcCall::Write(HttpAnswer answer) {
  if (finished_) return;
  RequestOutcome outcome{answer.route, "", answer.status, arrived_us_, answer.is_probe};
  outcome.protocol = "grpc";
  desk_->log.Answered(tag_, outcome);
  const grpc::Status status = ToGrpcStatus(answer);
  if (status.ok()) {
    if (answer.body.size() > kSentAtOnceBytes) {
      alarm_.Set(std::chrono::system_clock::now() + milliseconds(desk_->options.write_timeout_ms),
                 [weak = weak_from_this()](bool expired) {
                   if (const auto self = weak.lock(); self && expired) self->CutOff();
                 });
    }
    *response_ = ToBuffer(std::move(answer.body));
  }
  End(status);
}

void GrpcCall::End(const grpc::Status& status) {
  if (!finished_.exchange(true)) Finish(status);
}

void GrpcCall::OnCancel() {
  if (finished_) return;
  left_ = true;
  calls_->left_.Add();
}

void GrpcCall::OnDone() {
  {
    const std::lock_guard lock(mu_);
    over_ = true;
  }
  calls_->Remove(this);
}

void GrpcCall::CutOff() {
  const std::lock_guard lock(mu_);
  if (over_) return;
  calls_->slow_readers_.Add();
  context_->TryCancel();
}

}  // namespace freshet
