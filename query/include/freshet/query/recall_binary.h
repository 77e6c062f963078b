// The binary body of POST /v1/recall, for the hot path: a vector in, ids and scores out.
//
// Place in the flow: instead of JSON where a request's Content-Type is kBinaryRecallType; the answer then has it too,
// errors are problems in JSON as ever. The bytes are written down in deploy/docs/api.md; a change of them is another
// version, with another type and other first bytes. Stateless; every byte from outside is validated.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "freshet/core/status.h"
#include "freshet/query/recall_service.h"

namespace freshet {

inline constexpr std::string_view kBinaryRecallType = "application/vnd.freshet.recall.v1";

struct BinaryParams {
  std::uint32_t k = 100;
  std::uint32_t ef = 0;  // 0: the index's own
  bool exact = false;
  std::uint32_t timeout_ms = 0;  // 0: the server's
};

// What a client sends.
[[nodiscard]] std::string EncodeBinaryRequest(std::span<const float> vector, const BinaryParams& params = {});
// What the server makes of it. Errors: kInvalidArgument, the message starts with a pointer as those of JSON bodies do.
[[nodiscard]] Result<RecallRequest> DecodeBinaryRequest(std::string_view body);

// What the server sends: of a response the hits' ids and scores, index_version, as_of_ms, model_version and took_ms.
[[nodiscard]] std::string EncodeBinaryAnswer(const RecallResponse& response);
// What a client makes of it. Errors: kCorruption.
[[nodiscard]] Result<RecallResponse> DecodeBinaryAnswer(std::string_view body);

}  // namespace freshet
