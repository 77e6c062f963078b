// Answers that are problems, as gRPC tells them: a canonical code, and details of google.rpc.
//
// Place in the flow: grpc_call.cc ends a call with it; grpc_answer.cc names the codes of entries. Stateless.
// Only in builds with FRESHET_GRPC.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "http_answer.h"

namespace freshet {

inline constexpr char kDetailsDomain[] = "freshet";

// The canonical code of a status of HTTP, of those that HttpApi answers.
[[nodiscard]] grpc::StatusCode GrpcCodeOf(int http_status);
// "INVALID_ARGUMENT"
[[nodiscard]] std::string GrpcCodeName(grpc::StatusCode code);
// The whole of it: OK, or code, message ("/k: must be between 1 and 1000") and details. Cut to what fits into trailers.
[[nodiscard]] grpc::Status ToGrpcStatus(const HttpAnswer& answer);

}  // namespace freshet
