// POST /v1/recall:batch: each entry is answered by itself, as POST /v1/recall would; all within one request's time.
#include <limits>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "http_api.h"
#include "recall_json.h"
#include "request_json.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxBatch = 128;

}  // namespace

struct HttpApi::BatchInFlight {
  std::vector<Result<RecallRequest>> requests;
  std::vector<std::optional<HttpAnswer>> answers;
  std::size_t bytes = 0;  // of the answers' bodies
};

HttpAnswer HttpApi::Batch(const HttpRequestView& view) const {
  const Result<std::unique_ptr<JsonDocument>> document = ParseJson(view.body, kMaxJsonDepth + 2);
  if (!document.ok()) return ProblemAnswer(document.status());
  const Status fields = CheckFields(**document, "", {"requests"});
  if (!fields.ok()) return ProblemAnswer(fields);
  const JsonValue* requests = JsonFind(**document, "requests");
  if (requests == nullptr || !requests->IsArray() || requests->Empty() || requests->Size() > kMaxBatch) {
    return ProblemAnswer(Wrong("/requests", StrCat("must be an array of 1 to ", kMaxBatch, " recall requests")));
  }
  const auto batch = std::make_shared<BatchInFlight>();
  batch->answers.resize(requests->Size());
  for (const JsonValue& one : requests->GetArray()) {
    Result<RecallRequest>& request = batch->requests.emplace_back(ReadRecallRequest(one));
    if (request.ok()) SetDeadline(view.arrived_us, &*request);
  }
  return AnswerBatch(batch, Status::Ok());
}

// Entries that have to wait do not hold up the others; where they may not wait (`over`), they alone are told so.
HttpAnswer HttpApi::AnswerBatch(const std::shared_ptr<BatchInFlight>& batch, const Status& over) const {
  HttpWait wait{std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::max(), {}};
  const auto answer = [&](const Result<RecallRequest>& request) {
    if (!request.ok()) return ProblemAnswer(request.status());
    if (!over.ok()) return ProblemAnswer(over);
    if (batch->bytes <= options_.max_batch_bytes) return RecallOne(*request);
    return ProblemAnswer(InvalidArgument(StrCat("the answers before this one are more than ", options_.max_batch_bytes,
                                                " bytes: ask for fewer at once")));
  };
  bool all = true;
  for (std::size_t i = 0; i < batch->requests.size(); ++i) {
    if (batch->answers[i]) continue;
    const Result<RecallRequest>& request = batch->requests[i];
    if (request.ok() && over.ok() && MustWait(*request)) {
      all = false;
      wait.min_as_of_ms = std::min(wait.min_as_of_ms, request->min_as_of_ms);
      wait.deadline_us = std::min(wait.deadline_us, request->deadline_us);
      continue;
    }
    batch->answers[i] = answer(request);
    batch->bytes += batch->answers[i]->body.size();
  }
  if (!all) {
    HttpAnswer later;
    wait.go_on = [this, batch](const Status& ended) { return AnswerBatch(batch, ended); };
    later.wait = std::make_shared<HttpWait>(std::move(wait));
    return later;
  }
  // Appended one after the other, each freed then: these may be many megabytes.
  constexpr std::size_t kAround = 32;  // status, names and braces of one
  std::string body = R"({"responses":[)";
  body.reserve(batch->bytes + kAround * batch->answers.size() + kAround);
  for (std::optional<HttpAnswer>& one : batch->answers) {
    if (body.back() != '[') body += ',';
    body += StrCat(R"({"status":)", one->status, one->status == 200 ? R"(,"answer":)" : R"(,"problem":)");
    body += one->body;
    body += '}';
    one.reset();
  }
  return JsonAnswer(200, body + "]}");
}

}  // namespace freshet
