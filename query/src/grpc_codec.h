// The bodies of gRPC: the messages of proto/freshet/v1/recall.proto.
//
// Place in the flow: a BodyCodec beside JSON's. A request becomes the tree that its JSON would be read as (without the
// text), and is read by the same code: defaults, bounds, errors and their pointers are JSON's. Stateless, thread-safe.
// Only in builds with FRESHET_GRPC.
#pragma once

#include <string_view>

#include "body_codec.h"
#include "freshet/core/json.h"
#include "freshet/core/status.h"

namespace freshet {

[[nodiscard]] const BodyCodec& GrpcCodec();

// grpc_request.cc: from the bytes of a message.
// Errors: kInvalidArgument.
[[nodiscard]] Result<RecallRequest> ReadRecallMessage(std::string_view bytes);
[[nodiscard]] Result<std::vector<Result<RecallRequest>>> ReadBatchMessage(std::string_view bytes);
[[nodiscard]] Result<ScoreRequest> ReadScoreMessage(std::string_view bytes);
[[nodiscard]] Result<std::string> ReadItemMessage(std::string_view bytes);
[[nodiscard]] Result<std::string> ReadUserMessage(std::string_view bytes);
[[nodiscard]] Status ReadStatusMessage(std::string_view bytes);

}  // namespace freshet
