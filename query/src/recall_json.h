// Requests and answers as JSON, beside POST /v1/recall's own (http_server.h). Errors: kInvalidArgument, the message
// starts with the JSON pointer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/query/recall_service.h"

namespace freshet {

inline constexpr int kMaxJsonDepth = 32;  // kMaxFilterDepth groups are two levels each

struct ScoreRequest {
  RecallRequest target;
  std::vector<std::string> ids;
};

[[nodiscard]] Result<RecallRequest> ReadRecallRequest(const JsonValue& root);
[[nodiscard]] Result<ScoreRequest> ReadScoreRequest(const JsonValue& root);
[[nodiscard]] Result<ScoreRequest> ReadScoreRequest(std::string_view body);
[[nodiscard]] std::string ScoreResponseToJson(const ScoreResponse& response);
[[nodiscard]] std::string UserViewToJson(const UserView& user);
[[nodiscard]] std::string ItemViewToJson(const ItemView& item);

}  // namespace freshet
