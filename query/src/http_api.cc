#include "http_api.h"

#include <algorithm>
#include <exception>
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

constexpr std::string_view kItems = "/v1/items/";
constexpr std::string_view kUsers = "/v1/users/";
constexpr std::array<const char*, 13> kRouteNames = {
    "/v1/recall", "/v1/recall:batch", "/v1/score", "/v1/status",    "/v1/items/{id}",      "/v1/users/{id}", "/livez",
    "/startupz",  "/readyz",          "/metrics",  "/openapi.yaml", "/v1/admin/snapshots", "other"};

std::string_view PathOf(const HttpRequestView& request) { return request.target.substr(0, request.target.find('?')); }

// What throws is a 500.
template <typename Make>
HttpAnswer Caught(const Make& make) {
  try {
    return make();
  } catch (const std::exception& error) {
    return ProblemAnswer(Internal(StrCat("unexpected: ", error.what())));
  }
}

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

}  // namespace

HttpApi::HttpApi(const HttpOptions& options, const RecallService* service, Metrics* metrics, ReadyCheck ready,
                 StatusReport report, SnapshotRequest snapshot, BeforeMetrics before_metrics)
    : options_(options),
      service_(service),
      metrics_(metrics),
      ready_(std::move(ready)),
      report_(std::move(report)),
      snapshot_(std::move(snapshot)),
      before_metrics_(std::move(before_metrics)) {
  static_assert(kRouteNames.size() == kRoutes);
  for (std::size_t route = 0; route < kRoutes; ++route) {
    seconds_[route] =
        &metrics->GetHistogram("freshet_http_seconds", "Time from a whole request to its answer, without the network",
                               {{"route", kRouteNames[route]}});
  }
}

std::optional<HttpAnswer> HttpApi::AnswerAtOnce(const HttpRequestView& request) {
  const Route route = RouteOf(PathOf(request));
  std::optional<HttpAnswer> answer = Refusal(route, request);
  if (!answer) {
    if (Searches(route)) return std::nullopt;
    answer = Caught([&] { return Report(route); });
  }
  return Finish(route, request.arrived_us, std::move(*answer));
}

HttpAnswer HttpApi::Answer(const HttpRequestView& request) {
  const Route route = RouteOf(PathOf(request));
  return Finish(route, request.arrived_us, Caught([&] { return Search(route, request); }));
}

HttpAnswer HttpApi::Refuse(const HttpRequestView& request) {
  return Finish(RouteOf(PathOf(request)), request.arrived_us,
                ProblemAnswer(ResourceExhausted("too many requests queue for a place to search")));
}

// Counts an answer; one that has to wait is counted when it comes.
HttpAnswer HttpApi::Finish(Route route, std::int64_t arrived_us, HttpAnswer answer) {
  if (answer.wait) {
    answer.wait->go_on = [this, route, arrived_us, go_on = std::move(answer.wait->go_on)](const Status& over) {
      return Finish(route, arrived_us, Caught([&] { return go_on(over); }));
    };
    return answer;
  }
  answer.route = kRouteNames[route];
  answer.is_probe = IsProbe(route);
  Count(route, answer.status);
  seconds_[route]->Observe(static_cast<double>(clock_.MonotonicUs() - arrived_us) * 1e-6);
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

bool HttpApi::Searches(Route route) {
  return route == kRecall || route == kBatch || route == kScore || route == kItem || route == kUser;
}

bool HttpApi::IsProbe(Route route) { return route == kLive || route == kStarted || route == kReady; }

std::optional<HttpAnswer> HttpApi::Refusal(Route route, const HttpRequestView& request) const {
  if (!IsProbe(route) && tokens_ && !tokens_->Allows(request.authorization)) {
    HttpAnswer answer = ProblemAnswer(401, "unauthorized", "A token is wanted", "send `Authorization: Bearer TOKEN`");
    answer.authenticate = true;
    return answer;
  }
  if (route == kOther) return ProblemAnswer(404, "no-such-path", "There is nothing at this path");
  const bool posted = route == kRecall || route == kBatch || route == kScore || route == kSnapshots;
  if (posted ? request.method == "POST" : request.method == "GET" || request.method == "HEAD") return std::nullopt;
  const std::string_view allow = posted ? "POST" : "GET, HEAD";
  HttpAnswer answer =
      ProblemAnswer(405, "method-not-allowed", "This path does not know that method", StrCat("allowed: ", allow));
  answer.allow = allow;
  return answer;
}

HttpAnswer HttpApi::Report(Route route) {
  switch (route) {
    case kStatus:
      return JsonAnswer(200, report_ ? report_() : "{}");
    case kOpenApi:
      return {200, "application/yaml", std::string(kOpenApiYaml), "", 0};
    case kLive:
      return JsonAnswer(200, R"({"live":true})");
    case kStarted:
    case kReady:
      return Ready(route);
    case kMetrics:
      if (before_metrics_) before_metrics_();
      return {200, "text/plain; version=0.0.4; charset=utf-8", metrics_->Text(), "", 0};
    case kSnapshots:
      snapshot_();
      return JsonAnswer(202, R"({"requested":true})");
    default:
      return ProblemAnswer(Internal("a route without a handler"));
  }
}

HttpAnswer HttpApi::Search(Route route, const HttpRequestView& request) const {
  // Nobody waits for it any more.
  if (clock_.MonotonicUs() >= Deadline(request.arrived_us)) {
    return ProblemAnswer(DeadlineExceeded("the deadline passed while the request queued for a place to search"));
  }
  switch (route) {
    case kRecall:
      return IsBinary(request.content_type) ? RecallBinary(request) : Recall(request);
    case kBatch:
      return Batch(request);
    case kScore:
      return Score(request);
    case kItem:
      return Item(PathOf(request).substr(kItems.size()));
    case kUser:
      return User(PathOf(request).substr(kUsers.size()));
    default:
      return ProblemAnswer(Internal("a route without a handler"));
  }
}

std::int64_t HttpApi::Deadline(std::int64_t arrived_us) const {
  return arrived_us + options_.request_timeout_ms * std::int64_t{1000};
}

void HttpApi::SetDeadline(std::int64_t arrived_us, RecallRequest* request) const {
  request->deadline_us = Deadline(arrived_us);
  if (request->timeout_ms <= 0) return;
  const std::int64_t own_us = arrived_us + std::exchange(request->timeout_ms, 0) * 1000;
  request->deadline_us = std::min(request->deadline_us, own_us);
}

bool HttpApi::MustWait(const RecallRequest& request) const {
  return request.min_as_of_ms > service_->as_of_ms() && clock_.MonotonicUs() < request.deadline_us;
}

HttpAnswer HttpApi::Recall(const HttpRequestView& view) const {
  Result<RecallRequest> request = ParseRecallRequest(view.body);
  if (!request.ok()) return ProblemAnswer(request.status());
  SetDeadline(view.arrived_us, &*request);
  if (!MustWait(*request)) return RecallOne(*request);
  const auto kept = std::make_shared<const RecallRequest>(std::move(*request));
  HttpAnswer later;
  later.wait =
      std::make_shared<HttpWait>(HttpWait{kept->min_as_of_ms, kept->deadline_us, [this, kept](const Status& over) {
                                            return over.ok() ? RecallOne(*kept) : ProblemAnswer(over);
                                          }});
  return later;
}

HttpAnswer HttpApi::RecallBinary(const HttpRequestView& view) const {
  Result<RecallRequest> request = DecodeBinaryRequest(view.body);
  if (!request.ok()) return ProblemAnswer(request.status());
  SetDeadline(view.arrived_us, &*request);
  const Result<RecallResponse> response = service_->Recall(*request);
  if (!response.ok()) return ProblemAnswer(response.status());
  return {200, std::string(kBinaryRecallType), EncodeBinaryAnswer(*response), "", 0};
}

HttpAnswer HttpApi::RecallOne(const RecallRequest& request) const {
  const Result<RecallResponse> response = service_->Recall(request);
  if (!response.ok()) return ProblemAnswer(response.status());
  return JsonAnswer(200, RecallResponseToJson(*response));
}

HttpAnswer HttpApi::Score(const HttpRequestView& view) const {
  Result<ScoreRequest> request = ReadScoreRequest(view.body);
  if (!request.ok()) return ProblemAnswer(request.status());
  SetDeadline(view.arrived_us, &request->target);
  const bool wait = MustWait(request->target);
  const auto kept = std::make_shared<const ScoreRequest>(std::move(*request));
  const auto answer = [this, kept](const Status& over) {
    if (!over.ok()) return ProblemAnswer(over);
    const Result<ScoreResponse> response = service_->Score(kept->target, kept->ids);
    return response.ok() ? JsonAnswer(200, ScoreResponseToJson(*response)) : ProblemAnswer(response.status());
  };
  if (!wait) return answer(Status::Ok());
  HttpAnswer later;
  later.wait = std::make_shared<HttpWait>(HttpWait{kept->target.min_as_of_ms, kept->target.deadline_us, answer});
  return later;
}

HttpAnswer HttpApi::Item(std::string_view encoded_id) const {
  const std::optional<std::string> id = PercentDecode(encoded_id);
  if (!id) return ProblemAnswer(InvalidArgument("the id in the path is not percent-encoded rightly"));
  const Result<ItemView> item = service_->GetItem(*id);
  if (!item.ok()) return ProblemAnswer(item.status());
  return JsonAnswer(200, ItemViewToJson(*item));
}

HttpAnswer HttpApi::User(std::string_view encoded_id) const {
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
