// POST /v1/recall:batch: each entry is answered by itself, as POST /v1/recall would; all within one request's time.
#include <limits>
#include <vector>

#include "body_codec.h"
#include "freshet/core/strings.h"
#include "http_api.h"

namespace freshet {

struct HttpApi::BatchInFlight {
  const BodyCodec* codec = nullptr;
  std::vector<Result<RecallRequest>> requests;
  std::vector<std::optional<HttpAnswer>> answers;
  std::size_t bytes = 0;  // of the answers' bodies
};

HttpAnswer HttpApi::Batch(const HttpRequestView& view, const BodyCodec& codec) const {
  Result<std::vector<Result<RecallRequest>>> requests = codec.ReadBatch(view.body);
  if (!requests.ok()) return ProblemAnswer(requests.status());
  const auto batch = std::make_shared<BatchInFlight>();
  batch->codec = &codec;
  batch->answers.resize(requests->size());
  batch->requests = std::move(*requests);
  for (Result<RecallRequest>& request : batch->requests) {
    if (request.ok()) SetDeadline(view, &*request);
  }
  return AnswerBatch(batch, Status::Ok());
}

// Entries that have to wait do not hold up the others; where they may not wait (`over`), they alone are told so.
HttpAnswer HttpApi::AnswerBatch(const std::shared_ptr<BatchInFlight>& batch, const Status& over) const {
  HttpWait wait{std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::max(), {}};
  const auto answer = [&](const Result<RecallRequest>& request) {
    if (!request.ok()) return ProblemAnswer(request.status());
    if (!over.ok()) return ProblemAnswer(over);
    if (batch->bytes <= options_.max_batch_bytes) return RecallOne(*request, *batch->codec);
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
  return batch->codec->Batch(&batch->answers, batch->bytes);
}

}  // namespace freshet
