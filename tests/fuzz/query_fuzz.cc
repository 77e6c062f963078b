// Any bytes are a request, or refused with a reason; within the limits either way, and never anything else.
//
// Three targets: the JSON bodies of POST /v1/recall and /v1/score, (FRESHET_FUZZ_RECALL_BINARY) the binary bodies of
// /v1/recall, and (FRESHET_FUZZ_FILTER_TEXT) the filter language.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "freshet/query/filter_text.h"
#include "freshet/query/http_server.h"
#include "freshet/query/recall_binary.h"
#include "recall_json.h"

namespace freshet {
namespace {

#define FUZZ_CHECK(condition)                                               \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::fprintf(stderr, "%d: %s does not hold\n", __LINE__, #condition); \
      std::abort();                                                         \
    }                                                                       \
  } while (false)

#ifdef FRESHET_FUZZ_FILTER_TEXT

void Try(std::string_view bytes) {
  const Result<std::string> json = FilterTextToJson(bytes);
  if (!json.ok()) {
    FUZZ_CHECK(json.status().code() == Code::kInvalidArgument);
    FUZZ_CHECK(json.status().message().starts_with("column "));
    return;
  }
  // What the language says is JSON, and a filter or beyond its bounds.
  const auto document = ParseJson(*json, kMaxJsonDepth);
  if (!document.ok()) {
    FUZZ_CHECK(document.status().code() == Code::kInvalidArgument);
    return;
  }
  const Result<Filter> filter = ParseFilter(**document);
  FUZZ_CHECK(filter.ok() || filter.status().code() == Code::kInvalidArgument);
}

#elif defined(FRESHET_FUZZ_RECALL_BINARY)

void Try(std::string_view bytes) {
  const Result<RecallRequest> request = DecodeBinaryRequest(bytes);
  FUZZ_CHECK(request.ok() || request.status().code() == Code::kInvalidArgument);
  if (request.ok()) {
    FUZZ_CHECK(request->k >= 1 && request->k <= kMaxK && request->ef <= kMaxEf);
    for (const float x : *request->vector) FUZZ_CHECK(std::isfinite(x));
    const BinaryParams params{static_cast<std::uint32_t>(request->k), static_cast<std::uint32_t>(request->ef),
                              request->exact, static_cast<std::uint32_t>(request->timeout_ms)};
    FUZZ_CHECK(EncodeBinaryRequest(*request->vector, params) == bytes);
  }
  // What a client reads.
  const Result<RecallResponse> answer = DecodeBinaryAnswer(bytes);
  FUZZ_CHECK(answer.ok() || answer.status().code() == Code::kCorruption);
  if (answer.ok()) {
    const Result<RecallResponse> again = DecodeBinaryAnswer(EncodeBinaryAnswer(*answer));
    FUZZ_CHECK(again.ok() && again->results.size() == answer->results.size());
    for (std::size_t i = 0; i < again->results.size(); ++i) FUZZ_CHECK(again->results[i].id == answer->results[i].id);
  }
}

#else

void CheckBounds(const RecallRequest& request) {
  FUZZ_CHECK(request.k >= 1 && request.k <= kMaxK);
  FUZZ_CHECK(request.exclude_ids.size() <= kMaxExcludeIds);
  FUZZ_CHECK(request.items.size() <= kMaxExamples);
  if (request.vector) {
    for (const float x : *request.vector) FUZZ_CHECK(std::isfinite(x));
  }
}

void Try(std::string_view bytes) {
  const Result<RecallRequest> recall = ParseRecallRequest(bytes);
  FUZZ_CHECK(recall.ok() || recall.status().code() == Code::kInvalidArgument);
  if (recall.ok()) CheckBounds(*recall);
  const Result<ScoreRequest> score = ReadScoreRequest(bytes);
  FUZZ_CHECK(score.ok() || score.status().code() == Code::kInvalidArgument);
  if (score.ok()) {
    CheckBounds(score->target);
    FUZZ_CHECK(score->ids.size() <= kMaxScoreIds);
  }
}

#endif

}  // namespace
}  // namespace freshet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  freshet::Try({reinterpret_cast<const char*>(data), size});
  return 0;
}
