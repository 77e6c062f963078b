#include "http_answer.h"

#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

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

HttpAnswer JsonAnswer(int status, std::string body) { return {status, "application/json", std::move(body), "", 0}; }

HttpAnswer ProblemAnswer(int status, std::string_view name, std::string_view title, std::string_view detail,
                         std::string_view pointer) {
  const auto problem = std::make_shared<const Problem>(
      Problem{StrCat("urn:freshet:problem:", name), std::string(title), std::string(detail), std::string(pointer)});
  JsonWriter out;
  out.BeginObject().Key("type").String(problem->type).Key("title").String(title);
  out.Key("status").Int(status);
  if (!detail.empty()) out.Key("detail").String(detail);
  if (!pointer.empty()) out.Key("pointer").String(pointer);
  HttpAnswer answer{status, "application/problem+json", out.EndObject().Take(), "", 0};
  answer.problem = problem;
  return answer;
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

}  // namespace freshet
