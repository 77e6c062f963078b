#include "grpc_status.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "freshet/core/strings.h"
#include "grpc_details.pb.h"

namespace freshet {
namespace {

// Trailers are bounded, by 8 KiB where a client does not say otherwise, and a detail may quote a model's complaint.
constexpr std::size_t kMaxDetailBytes = 1024;
constexpr std::string_view kTypePrefix = "urn:freshet:problem:";

std::string Cut(const std::string& text) {
  if (text.size() <= kMaxDetailBytes) return text;
  std::size_t end = kMaxDetailBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // within a character
  return text.substr(0, end);
}

// "urn:freshet:problem:invalid-request" as reasons are written: "INVALID_REQUEST".
std::string ReasonOf(std::string_view type) {
  if (type.starts_with(kTypePrefix)) type.remove_prefix(kTypePrefix.size());
  std::string reason(type);
  std::transform(reason.begin(), reason.end(), reason.begin(), [](char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  });
  return reason;
}

// `name`: of the message in google/rpc/error_details.proto.
template <typename Message>
void AddDetail(const char* name, const Message& message, grpc_details::RpcStatus* status) {
  google::protobuf::Any* detail = status->add_details();
  detail->set_type_url(StrCat("type.googleapis.com/google.rpc.", name));
  message.SerializeToString(detail->mutable_value());
}

}  // namespace

grpc::StatusCode GrpcCodeOf(int http_status) {
  switch (http_status) {
    case 200:
    case 202:
      return grpc::StatusCode::OK;
    case 400:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case 401:
      return grpc::StatusCode::UNAUTHENTICATED;
    case 404:
      return grpc::StatusCode::NOT_FOUND;
    case 429:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case kCallerLeft:
      return grpc::StatusCode::CANCELLED;
    case 503:
      return grpc::StatusCode::UNAVAILABLE;
    case 504:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    default:
      return grpc::StatusCode::INTERNAL;
  }
}

std::string GrpcCodeName(grpc::StatusCode code) {
  static constexpr std::array<const char*, 17> kNames = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const auto i = static_cast<std::size_t>(code);
  return i < kNames.size() ? kNames[i] : "UNKNOWN";
}

grpc::Status ToGrpcStatus(const HttpAnswer& answer) {
  if (answer.problem == nullptr) return grpc::Status::OK;
  const Problem& problem = *answer.problem;
  const grpc::StatusCode code = GrpcCodeOf(answer.status);
  const std::string what = Cut(problem.detail.empty() ? problem.title : problem.detail);
  const std::string pointer = Cut(problem.pointer);
  grpc_details::RpcStatus status;
  status.set_code(static_cast<int>(code));
  status.set_message(pointer.empty() ? what : StrCat(pointer, ": ", what));

  grpc_details::ErrorInfo info;
  info.set_reason(ReasonOf(problem.type));
  info.set_domain(kDetailsDomain);
  (*info.mutable_metadata())["type"] = problem.type;
  if (!pointer.empty()) (*info.mutable_metadata())["pointer"] = pointer;
  AddDetail("ErrorInfo", info, &status);
  if (code == grpc::StatusCode::INVALID_ARGUMENT) {
    grpc_details::BadRequest request;
    grpc_details::BadRequest::FieldViolation* field = request.add_field_violations();
    field->set_field(pointer);
    field->set_description(what);
    AddDetail("BadRequest", request, &status);
  }
  if (answer.retry_after_seconds > 0) {
    grpc_details::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(answer.retry_after_seconds);
    AddDetail("RetryInfo", retry, &status);
  }
  return {code, status.message(), status.SerializeAsString()};
}

}  // namespace freshet
