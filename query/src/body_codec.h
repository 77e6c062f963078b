// How the body of a request is read and that of its answer written: as JSON, in the binary form of /v1/recall, or as
// messages of gRPC.
//
// Place in the flow: HttpApi asks the codec of each request and knows no form itself, so that what is answered is the
// same in all of them. Stateless, thread-safe. Errors of reading: kInvalidArgument; the message starts with the field's
// JSON pointer, also where the body is no JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/query/recall_service.h"
#include "http_answer.h"
#include "recall_json.h"

namespace freshet {

inline constexpr std::size_t kMaxBatch = 128;

class BodyCodec {
 public:
  BodyCodec() = default;
  virtual ~BodyCodec() = default;
  BodyCodec(const BodyCodec&) = delete;
  BodyCodec& operator=(const BodyCodec&) = delete;

  [[nodiscard]] virtual Result<RecallRequest> ReadRecall(std::string_view body) const = 0;
  // 1 to kMaxBatch requests, each of them read by itself.
  [[nodiscard]] virtual Result<std::vector<Result<RecallRequest>>> ReadBatch(std::string_view body) const = 0;
  [[nodiscard]] virtual Result<ScoreRequest> ReadScore(std::string_view body) const = 0;
  // Of which item or user. `segment`: the last one of the path, as it came.
  [[nodiscard]] virtual Result<std::string> ReadItemId(std::string_view segment, std::string_view body) const = 0;
  [[nodiscard]] virtual Result<std::string> ReadUserId(std::string_view segment, std::string_view body) const = 0;
  // Nothing but what is a request of a report, which has no fields.
  [[nodiscard]] virtual Status ReadNothing(std::string_view body) const = 0;

  [[nodiscard]] virtual HttpAnswer Recall(const RecallResponse& response) const = 0;
  // Of one answer for each request, which are taken; `bytes`: of their bodies.
  [[nodiscard]] virtual HttpAnswer Batch(std::vector<std::optional<HttpAnswer>>* answers, std::size_t bytes) const = 0;
  [[nodiscard]] virtual HttpAnswer Score(const ScoreResponse& response) const = 0;
  [[nodiscard]] virtual HttpAnswer Item(const ItemView& item) const = 0;
  [[nodiscard]] virtual HttpAnswer User(const UserView& user) const = 0;
  [[nodiscard]] virtual HttpAnswer Report(std::string json) const = 0;  // of the process
};

[[nodiscard]] const BodyCodec& JsonCodec();
// Recalls in binary; all else as JSON.
[[nodiscard]] const BodyCodec& BinaryCodec();

}  // namespace freshet
