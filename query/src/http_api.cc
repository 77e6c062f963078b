#include "http_api.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "body_codec.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_binary.h"
#include "openapi.h"

namespace freshet {
namespace {

constexpr std::string_view kItems = "/v1/items/";
constexpr std::string_view kUsers = "/v1/users/";

constexpr RequestMeter::Form kHttpForm = {
    "freshet_http_requests_total",
    "Requests answered",
    "freshet_http_seconds",
    "Time from a whole request to its answer, without the network",
    "route",
    {"/v1/recall", "/v1/recall:batch", "/v1/score", "/v1/status", "/v1/items/{id}", "/v1/users/{id}", "/livez",
     "/startupz", "/readyz", "/metrics", "/openapi.yaml", "/v1/admin/snapshots", "other"},
    {},
    [](int status) { return status == 0 ? std::string("other") : StrCat(status); }};

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

}  // namespace

HttpApi::HttpApi(const HttpOptions& options, const RecallService* service, Metrics* metrics, ReadyCheck ready,
                 StatusReport report, SnapshotRequest snapshot, BeforeMetrics before_metrics)
    : options_(options),
      service_(service),
      metrics_(metrics),
      ready_(std::move(ready)),
      report_(std::move(report)),
      snapshot_(std::move(snapshot)),
      before_metrics_(std::move(before_metrics)),
      meter_(kHttpForm, metrics) {}

std::optional<HttpAnswer> HttpApi::AnswerAtOnce(const HttpRequestView& request) {
  const Route route = RouteOf(PathOf(request));
  std::optional<HttpAnswer> answer = Refusal(route, request);
  if (!answer) {
    if (Searches(route)) return std::nullopt;
    answer = Caught([&] { return Report(route, request); });
  }
  return Finish(route, request, std::move(*answer));
}

HttpAnswer HttpApi::Answer(const HttpRequestView& request) {
  const Route route = RouteOf(PathOf(request));
  return Finish(route, request, Caught([&] { return Search(route, request); }));
}

HttpAnswer HttpApi::Refuse(const HttpRequestView& request, HttpAnswer answer) {
  return Finish(RouteOf(PathOf(request)), request, std::move(answer));
}

// Counts an answer; one that has to wait is counted when it comes.
HttpAnswer HttpApi::Finish(Route route, const HttpRequestView& request, HttpAnswer answer) {
  if (answer.wait) {
    // What else the view shows may be gone when it goes on.
    HttpRequestView counted{};
    counted.arrived_us = request.arrived_us;
    counted.meter = request.meter;
    answer.wait->go_on = [this, route, counted, go_on = std::move(answer.wait->go_on)](const Status& over) {
      return Finish(route, counted, Caught([&] { return go_on(over); }));
    };
    return answer;
  }
  RequestMeter& meter = request.meter == nullptr ? meter_ : *request.meter;
  answer.route = meter.RouteName(route);
  answer.is_probe = IsProbe(route);
  meter.Count(route, answer.status, static_cast<double>(clock_.MonotonicUs() - request.arrived_us) * 1e-6);
  return answer;
}

void HttpApi::CountUnrouted(int status) { meter_.Count(kOtherRoute, status); }

Route HttpApi::RouteOf(std::string_view path) const {
  if (path == "/v1/status") return kStatusRoute;
  if (path == "/openapi.yaml") return kOpenApiRoute;
  if (path == "/livez") return kLiveRoute;
  if (path == "/startupz") return kStartedRoute;
  if (path == "/readyz") return kReadyRoute;
  if (path == "/metrics") return kMetricsRoute;
  if (path == "/v1/admin/snapshots" && snapshot_) return kSnapshotsRoute;
  if (service_ == nullptr) return kOtherRoute;
  if (path == "/v1/recall") return kRecallRoute;
  if (path == "/v1/recall:batch") return kBatchRoute;
  if (path == "/v1/score") return kScoreRoute;
  if (path.starts_with(kItems) && path.find('/', kItems.size()) == std::string_view::npos) return kItemRoute;
  if (path.starts_with(kUsers) && path.find('/', kUsers.size()) == std::string_view::npos) return kUserRoute;
  return kOtherRoute;
}

bool HttpApi::Searches(Route route) {
  return route == kRecallRoute || route == kBatchRoute || route == kScoreRoute || route == kItemRoute ||
         route == kUserRoute;
}

bool HttpApi::IsProbe(Route route) { return route == kLiveRoute || route == kStartedRoute || route == kReadyRoute; }

std::optional<HttpAnswer> HttpApi::Refusal(Route route, const HttpRequestView& request) const {
  if (!IsProbe(route) && tokens_ && !tokens_->Allows(request.authorization)) {
    HttpAnswer answer = ProblemAnswer(401, "unauthorized", "A token is wanted", "send `Authorization: Bearer TOKEN`");
    answer.authenticate = true;
    return answer;
  }
  if (route == kOtherRoute) return ProblemAnswer(404, "no-such-path", "There is nothing at this path");
  const bool posted = route == kRecallRoute || route == kBatchRoute || route == kScoreRoute || route == kSnapshotsRoute;
  if (posted ? request.method == "POST" : request.method == "GET" || request.method == "HEAD") return std::nullopt;
  const std::string_view allow = posted ? "POST" : "GET, HEAD";
  HttpAnswer answer =
      ProblemAnswer(405, "method-not-allowed", "This path does not know that method", StrCat("allowed: ", allow));
  answer.allow = allow;
  return answer;
}

HttpAnswer HttpApi::Report(Route route, const HttpRequestView& request) {
  switch (route) {
    case kStatusRoute: {
      const BodyCodec& codec = CodecOf(route, request);
      const Status read = codec.ReadNothing(request.body);
      return read.ok() ? codec.Report(report_ ? report_() : "{}") : ProblemAnswer(read);
    }
    case kOpenApiRoute:
      return {200, "application/yaml", std::string(kOpenApiYaml), "", 0};
    case kLiveRoute:
      return JsonAnswer(200, R"({"live":true})");
    case kStartedRoute:
    case kReadyRoute:
      return Ready(route);
    case kMetricsRoute:
      if (before_metrics_) before_metrics_();
      return {200, "text/plain; version=0.0.4; charset=utf-8", metrics_->Text(), "", 0};
    case kSnapshotsRoute:
      snapshot_();
      return JsonAnswer(202, R"({"requested":true})");
    default:
      return ProblemAnswer(Internal("a route without a handler"));
  }
}

HttpAnswer HttpApi::Search(Route route, const HttpRequestView& request) const {
  // Nobody waits for it any more.
  if (clock_.MonotonicUs() >= Deadline(request)) {
    return ProblemAnswer(DeadlineExceeded("the deadline passed while the request queued for a place to search"));
  }
  const BodyCodec& codec = CodecOf(route, request);
  switch (route) {
    case kRecallRoute:
      return Recall(request, codec);
    case kBatchRoute:
      return Batch(request, codec);
    case kScoreRoute:
      return Score(request, codec);
    case kItemRoute:
      return Item(request, codec);
    case kUserRoute:
      return User(request, codec);
    default:
      return ProblemAnswer(Internal("a route without a handler"));
  }
}

const BodyCodec& HttpApi::CodecOf(Route route, const HttpRequestView& request) {
  if (request.codec != nullptr) return *request.codec;
  return route == kRecallRoute && IsBinary(request.content_type) ? BinaryCodec() : JsonCodec();
}

std::int64_t HttpApi::Deadline(const HttpRequestView& request) const {
  const std::int64_t ours_us = request.arrived_us + options_.request_timeout_ms * std::int64_t{1000};
  return request.deadline_us == 0 ? ours_us : std::min(ours_us, request.deadline_us);
}

void HttpApi::SetDeadline(const HttpRequestView& view, RecallRequest* request) const {
  request->deadline_us = Deadline(view);
  if (request->timeout_ms <= 0) return;
  const std::int64_t own_us = view.arrived_us + std::exchange(request->timeout_ms, 0) * 1000;
  request->deadline_us = std::min(request->deadline_us, own_us);
}

bool HttpApi::MustWait(const RecallRequest& request) const {
  return request.min_as_of_ms > service_->as_of_ms() && clock_.MonotonicUs() < request.deadline_us;
}

HttpAnswer HttpApi::Recall(const HttpRequestView& view, const BodyCodec& codec) const {
  Result<RecallRequest> request = codec.ReadRecall(view.body);
  if (!request.ok()) return ProblemAnswer(request.status());
  SetDeadline(view, &*request);
  if (!MustWait(*request)) return RecallOne(*request, codec);
  const auto kept = std::make_shared<const RecallRequest>(std::move(*request));
  HttpAnswer later;
  later.wait = std::make_shared<HttpWait>(HttpWait{
      kept->min_as_of_ms, kept->deadline_us,
      [this, kept, &codec](const Status& over) { return over.ok() ? RecallOne(*kept, codec) : ProblemAnswer(over); }});
  return later;
}

HttpAnswer HttpApi::RecallOne(const RecallRequest& request, const BodyCodec& codec) const {
  const Result<RecallResponse> response = service_->Recall(request);
  return response.ok() ? codec.Recall(*response) : ProblemAnswer(response.status());
}

HttpAnswer HttpApi::Score(const HttpRequestView& view, const BodyCodec& codec) const {
  Result<ScoreRequest> request = codec.ReadScore(view.body);
  if (!request.ok()) return ProblemAnswer(request.status());
  SetDeadline(view, &request->target);
  const bool wait = MustWait(request->target);
  const auto kept = std::make_shared<const ScoreRequest>(std::move(*request));
  const auto answer = [this, kept, &codec](const Status& over) {
    if (!over.ok()) return ProblemAnswer(over);
    const Result<ScoreResponse> response = service_->Score(kept->target, kept->ids);
    return response.ok() ? codec.Score(*response) : ProblemAnswer(response.status());
  };
  if (!wait) return answer(Status::Ok());
  HttpAnswer later;
  later.wait = std::make_shared<HttpWait>(HttpWait{kept->target.min_as_of_ms, kept->target.deadline_us, answer});
  return later;
}

HttpAnswer HttpApi::Item(const HttpRequestView& view, const BodyCodec& codec) const {
  const Result<std::string> id = codec.ReadItemId(PathOf(view).substr(kItems.size()), view.body);
  if (!id.ok()) return ProblemAnswer(id.status());
  const Result<ItemView> item = service_->GetItem(*id);
  return item.ok() ? codec.Item(*item) : ProblemAnswer(item.status());
}

HttpAnswer HttpApi::User(const HttpRequestView& view, const BodyCodec& codec) const {
  const Result<std::string> id = codec.ReadUserId(PathOf(view).substr(kUsers.size()), view.body);
  if (!id.ok()) return ProblemAnswer(id.status());
  const Result<UserView> user = service_->GetUser(*id);
  return user.ok() ? codec.User(*user) : ProblemAnswer(user.status());
}

// Started is who was ready once: an orchestrator waits for that before it looks at the other two.
HttpAnswer HttpApi::Ready(Route route) {
  std::vector<std::string> reasons;
  if (route == kReadyRoute || !started_) reasons = NotReady();
  if (reasons.empty()) started_ = true;
  JsonWriter out;
  out.BeginObject().Key(route == kStartedRoute ? "started" : "ready").Bool(reasons.empty());
  if (!reasons.empty()) {
    out.Key("reasons").BeginArray();
    for (const std::string& reason : reasons) out.String(reason);
    out.EndArray();
  }
  return JsonAnswer(reasons.empty() ? 200 : 503, out.EndObject().Take());
}

}  // namespace freshet
