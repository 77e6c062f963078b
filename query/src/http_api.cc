#include "http_api.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_binary.h"
#include "openapi.h"
#include "recall_json.h"
#include "request_json.h"

namespace freshet {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kItems = "/v1/items/";
constexpr std::string_view kUsers = "/v1/users/";
constexpr std::array<const char*, 13> kRouteNames = {
    "/v1/recall", "/v1/recall:batch", "/v1/score", "/v1/status",    "/v1/items/{id}",      "/v1/users/{id}", "/livez",
    "/startupz",  "/readyz",          "/metrics",  "/openapi.yaml", "/v1/admin/snapshots", "other"};
constexpr std::size_t kMaxBatch = 128;

HttpAnswer JsonAnswer(int status, std::string body) { return {status, std::string(kJson), std::move(body), "", 0}; }

// Media types are the same in upper case; what may follow a semicolon means nothing here.
bool IsBinary(std::string_view content_type) {
  const std::string_view type = Trim(content_type.substr(0, content_type.find(';')));
  return std::equal(type.begin(), type.end(), kBinaryRecallType.begin(), kBinaryRecallType.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// RFC 3986 percent-decoding of one path segment; nothing where it is malformed.
std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = HexDigit(text[i + 1]);
    const int low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

struct Kind {
  int status;
  const char* name;
  const char* title;
};

Kind KindOf(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return {400, "invalid-request", "The request is not valid"};
    case Code::kNotFound:
      return {404, "not-found", "What was asked for does not exist"};
    case Code::kUnavailable:
      return {503, "unavailable", "This cannot be answered now"};
    case Code::kDeadlineExceeded:
      return {504, "deadline-exceeded", "The answer was not ready in time"};
    case Code::kResourceExhausted:
      return {429, "overloaded", "Too much is asked at once"};
    case Code::kCancelled:
      return {503, "stopping", "The server is stopping"};
    case Code::kOk:
    case Code::kCorruption:
    case Code::kFailedPrecondition:
    case Code::kConfig:
    case Code::kIoError:
    case Code::kInternal:
      break;
  }
  return {500, "internal", "Something went wrong on our side"};
}

}  // namespace

HttpAnswer ProblemAnswer(int status, std::string_view name, std::string_view title, std::string_view detail,
                         std::string_view pointer) {
  JsonWriter out;
  out.BeginObject().Key("type").String(StrCat("urn:freshet:problem:", name)).Key("title").String(title);
  out.Key("status").Int(status);
  if (!detail.empty()) out.Key("detail").String(detail);
  if (!pointer.empty()) out.Key("pointer").String(pointer);
  return {status, "application/problem+json", out.EndObject().Take(), "", 0};
}

HttpAnswer ProblemAnswer(const Status& status) {
  const Kind kind = KindOf(status.code());
  std::string_view detail = status.message();
  std::string_view pointer;
  // Input errors name their field first: see ParseRecallRequest().
  if (const std::size_t end = detail.find(": ");
      status.category() == Category::kInput && detail.starts_with('/') && end != std::string_view::npos) {
    pointer = detail.substr(0, end);
    detail.remove_prefix(end + 2);
  }
  HttpAnswer answer = ProblemAnswer(kind.status, kind.name, kind.title, detail, pointer);
  if (kind.status == 429) answer.retry_after_seconds = 1;
  return answer;
}

HttpApi::HttpApi(const HttpOptions& options, const RecallService* service, Metrics* metrics, ReadyCheck ready,
                 StatusReport report, SnapshotRequest snapshot)
    : options_(options),
      service_(service),
      metrics_(metrics),
      ready_(std::move(ready)),
      report_(std::move(report)),
      snapshot_(std::move(snapshot)) {
  static_assert(kRouteNames.size() == kRoutes);
  for (std::size_t route = 0; route < kRoutes; ++route) {
    seconds_[route] =
        &metrics->GetHistogram("freshet_http_seconds", "Time from a whole request to its answer, without the network",
                               {{"route", kRouteNames[route]}});
  }
}

HttpAnswer HttpApi::Handle(const HttpRequestView& request) {
  const std::int64_t start_us = clock_.MonotonicUs();
  const std::string_view path = request.target.substr(0, request.target.find('?'));
  const Route route = RouteOf(path);
  HttpAnswer answer;
  try {
    const bool probe = route == kLive || route == kStarted || route == kReady;
    if (probe || !tokens_ || tokens_->Allows(request.authorization)) {
      answer = Dispatch(route, path, request);
    } else {
      answer = ProblemAnswer(401, "unauthorized", "A token is wanted", "send `Authorization: Bearer TOKEN`");
      answer.authenticate = true;
    }
  } catch (const std::exception& error) {
    answer = ProblemAnswer(Internal(StrCat("unexpected: ", error.what())));
  }
  return Finish(route, start_us, std::move(answer));
}

// Counts an answer; one that has to wait is counted when it comes.
HttpAnswer HttpApi::Finish(Route route, std::int64_t start_us, HttpAnswer answer) {
  if (answer.wait) {
    answer.wait->go_on = [this, route, start_us, go_on = std::move(answer.wait->go_on)](const Status& over) {
      HttpAnswer next;
      try {
        next = over.ok() ? go_on(over) : ProblemAnswer(over);
      } catch (const std::exception& error) {
        next = ProblemAnswer(Internal(StrCat("unexpected: ", error.what())));
      }
      return Finish(route, start_us, std::move(next));
    };
    return answer;
  }
  Count(route, answer.status);
  seconds_[route]->Observe(static_cast<double>(clock_.MonotonicUs() - start_us) * 1e-6);
  return answer;
}

void HttpApi::CountUnrouted(int status) { Count(kOther, status); }

HttpApi::Route HttpApi::RouteOf(std::string_view path) const {
  if (path == "/v1/status") return kStatus;
  if (path == "/openapi.yaml") return kOpenApi;
  if (path == "/livez") return kLive;
  if (path == "/startupz") return kStarted;
  if (path == "/readyz") return kReady;
  if (path == "/metrics") return kMetrics;
  if (path == "/v1/admin/snapshots" && snapshot_) return kSnapshots;
  if (service_ == nullptr) return kOther;
  if (path == "/v1/recall") return kRecall;
  if (path == "/v1/recall:batch") return kBatch;
  if (path == "/v1/score") return kScore;
  if (path.starts_with(kItems) && path.find('/', kItems.size()) == std::string_view::npos) return kItem;
  if (path.starts_with(kUsers) && path.find('/', kUsers.size()) == std::string_view::npos) return kUser;
  return kOther;
}

HttpAnswer HttpApi::Dispatch(Route route, std::string_view path, const HttpRequestView& request) {
  const auto& [method, target, body, authorization, content_type] = request;
  if (route == kOther) return ProblemAnswer(404, "no-such-path", "There is nothing at this path");
  const bool posted = route == kRecall || route == kBatch || route == kScore || route == kSnapshots;
  const bool allowed = posted ? method == "POST" : method == "GET" || method == "HEAD";
  if (!allowed) {
    const std::string_view allow = posted ? "POST" : "GET, HEAD";
    HttpAnswer answer =
        ProblemAnswer(405, "method-not-allowed", "This path does not know that method", StrCat("allowed: ", allow));
    answer.allow = allow;
    return answer;
  }
  switch (route) {
    case kRecall:
      return IsBinary(content_type) ? RecallBinary(body) : Recall(body);
    case kBatch:
      return Batch(body);
    case kScore:
      return Score(body);
    case kStatus:
      return JsonAnswer(200, report_ ? report_() : "{}");
    case kItem:
      return Item(path.substr(kItems.size()));
    case kUser:
      return User(path.substr(kUsers.size()));
    case kOpenApi:
      return {200, "application/yaml", std::string(kOpenApiYaml), "", 0};
    case kLive:
      return JsonAnswer(200, R"({"live":true})");
    case kStarted:
    case kReady:
      return Ready(route);
    case kMetrics:
      return {200, "text/plain; version=0.0.4; charset=utf-8", metrics_->Text(), "", 0};
    case kSnapshots:
      snapshot_();
      return JsonAnswer(202, R"({"requested":true})");
    case kOther:
    case kRoutes:
      break;
  }
  return ProblemAnswer(Internal("a route without a handler"));
}

std::int64_t HttpApi::Deadline() const {
  return clock_.MonotonicUs() + options_.request_timeout_ms * std::int64_t{1000};
}

bool HttpApi::MustWait(std::int64_t deadline_us, RecallRequest* request) const {
  request->deadline_us = deadline_us;
  if (request->min_as_of_ms <= service_->as_of_ms()) return false;
  const std::int64_t now_us = clock_.MonotonicUs();
  if (request->timeout_ms > 0) {
    request->deadline_us = std::min(deadline_us, now_us + std::exchange(request->timeout_ms, 0) * 1000);
  }
  return now_us < request->deadline_us;
}

HttpAnswer HttpApi::Recall(std::string_view body) {
  Result<RecallRequest> request = ParseRecallRequest(body);
  if (!request.ok()) return ProblemAnswer(request.status());
  if (!MustWait(Deadline(), &*request)) return RecallOne(*request);
  const auto kept = std::make_shared<const RecallRequest>(std::move(*request));
  HttpAnswer later;
  later.wait = std::make_shared<HttpWait>(
      HttpWait{kept->min_as_of_ms, kept->deadline_us, [this, kept](const Status&) { return RecallOne(*kept); }});
  return later;
}

HttpAnswer HttpApi::RecallBinary(std::string_view body) const {
  Result<RecallRequest> request = DecodeBinaryRequest(body);
  if (!request.ok()) return ProblemAnswer(request.status());
  request->deadline_us = Deadline();
  const Result<RecallResponse> response = service_->Recall(*request);
  if (!response.ok()) return ProblemAnswer(response.status());
  return {200, std::string(kBinaryRecallType), EncodeBinaryAnswer(*response), "", 0};
}

HttpAnswer HttpApi::RecallOne(const RecallRequest& request) const {
  const Result<RecallResponse> response = service_->Recall(request);
  if (!response.ok()) return ProblemAnswer(response.status());
  return JsonAnswer(200, RecallResponseToJson(*response));
}

struct HttpApi::BatchInFlight {
  std::vector<Result<RecallRequest>> requests;
  std::vector<std::optional<HttpAnswer>> answers;
};

// Each entry is answered by itself, as POST /v1/recall would; all within one request's time.
HttpAnswer HttpApi::Batch(std::string_view body) {
  const std::int64_t deadline_us = Deadline();
  const Result<std::unique_ptr<JsonDocument>> document = ParseJson(body, kMaxJsonDepth + 2);
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
    if (request.ok()) (void)MustWait(deadline_us, &*request);
  }
  return AnswerBatch(batch);
}

// Entries that have to wait do not hold up the others.
HttpAnswer HttpApi::AnswerBatch(const std::shared_ptr<BatchInFlight>& batch) const {
  HttpWait wait{std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::max(), {}};
  bool all = true;
  for (std::size_t i = 0; i < batch->requests.size(); ++i) {
    if (batch->answers[i]) continue;
    const Result<RecallRequest>& request = batch->requests[i];
    if (request.ok() && request->min_as_of_ms > service_->as_of_ms() && clock_.MonotonicUs() < request->deadline_us) {
      all = false;
      wait.min_as_of_ms = std::min(wait.min_as_of_ms, request->min_as_of_ms);
      wait.deadline_us = std::min(wait.deadline_us, request->deadline_us);
      continue;
    }
    batch->answers[i] = request.ok() ? RecallOne(*request) : ProblemAnswer(request.status());
  }
  if (!all) {
    HttpAnswer later;
    wait.go_on = [this, batch](const Status&) { return AnswerBatch(batch); };
    later.wait = std::make_shared<HttpWait>(std::move(wait));
    return later;
  }
  JsonWriter out;
  out.BeginObject().Key("responses").BeginArray();
  for (const std::optional<HttpAnswer>& answer : batch->answers) {
    out.BeginObject().Key("status").Int(answer->status);
    out.Key(answer->status == 200 ? "answer" : "problem").Raw(answer->body).EndObject();
  }
  return JsonAnswer(200, out.EndArray().EndObject().Take());
}

HttpAnswer HttpApi::Score(std::string_view body) {
  Result<ScoreRequest> request = ReadScoreRequest(body);
  if (!request.ok()) return ProblemAnswer(request.status());
  const bool wait = MustWait(Deadline(), &request->target);
  const auto kept = std::make_shared<const ScoreRequest>(std::move(*request));
  const auto answer = [this, kept](const Status&) {
    const Result<ScoreResponse> response = service_->Score(kept->target, kept->ids);
    return response.ok() ? JsonAnswer(200, ScoreResponseToJson(*response)) : ProblemAnswer(response.status());
  };
  if (!wait) return answer(Status::Ok());
  HttpAnswer later;
  later.wait = std::make_shared<HttpWait>(HttpWait{kept->target.min_as_of_ms, kept->target.deadline_us, answer});
  return later;
}

HttpAnswer HttpApi::Item(std::string_view encoded_id) {
  const std::optional<std::string> id = PercentDecode(encoded_id);
  if (!id) return ProblemAnswer(InvalidArgument("the id in the path is not percent-encoded rightly"));
  const Result<ItemView> item = service_->GetItem(*id);
  if (!item.ok()) return ProblemAnswer(item.status());
  return JsonAnswer(200, ItemViewToJson(*item));
}

HttpAnswer HttpApi::User(std::string_view encoded_id) {
  const std::optional<std::string> id = PercentDecode(encoded_id);
  if (!id) return ProblemAnswer(InvalidArgument("the id in the path is not percent-encoded rightly"));
  const Result<UserView> user = service_->GetUser(*id);
  if (!user.ok()) return ProblemAnswer(user.status());
  return JsonAnswer(200, UserViewToJson(*user));
}

// Started is who was ready once: an orchestrator waits for that before it looks at the other two.
HttpAnswer HttpApi::Ready(Route route) {
  std::vector<std::string> reasons;
  if (ready_ && (route == kReady || !started_)) reasons = ready_();
  if (reasons.empty()) started_ = true;
  JsonWriter out;
  out.BeginObject().Key(route == kStarted ? "started" : "ready").Bool(reasons.empty());
  if (!reasons.empty()) {
    out.Key("reasons").BeginArray();
    for (const std::string& reason : reasons) out.String(reason);
    out.EndArray();
  }
  return JsonAnswer(reasons.empty() ? 200 : 503, out.EndObject().Take());
}

void HttpApi::Count(Route route, int status) {
  const std::size_t i = static_cast<std::size_t>(std::find(kCodes.begin(), kCodes.end() - 1, status) - kCodes.begin());
  std::atomic<Counter*>& slot = requests_[route][i];
  Counter* counter = slot.load(std::memory_order_acquire);
  if (counter == nullptr) {
    counter =
        &metrics_->GetCounter("freshet_http_requests_total", "Requests answered",
                              {{"route", kRouteNames[route]}, {"code", kCodes[i] == 0 ? "other" : StrCat(kCodes[i])}});
    slot.store(counter, std::memory_order_release);
  }
  counter->Add();
}

}  // namespace freshet
