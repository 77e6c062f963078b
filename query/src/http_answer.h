// What the door answers, before it is bytes: statuses, problems, and answers that have to wait.
//
// Place in the flow: made by HttpApi, written by HttpSession or by a call of gRPC. Plain values.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

struct HttpAnswer;

// The status of who did not wait for the answer. It is never sent: it is counted.
inline constexpr int kCallerLeft = 499;

// An answer that has to wait until others would be fresh enough (`min_as_of`), or for the deadline.
struct HttpWait {
  std::int64_t min_as_of_ms = 0;
  std::int64_t deadline_us = 0;  // monotonic
  // The answer, or another wait. Called once: with ok when the wait is over, by who holds a place; else with why there
  // is no waiting, which is then told instead of what was waited for, without a search. REQUIRES: the api.
  std::function<HttpAnswer(const Status& over)> go_on;
};

// What is wrong, as an RFC 9457 problem tells it.
struct Problem {
  std::string type;     // "urn:freshet:problem:<name>"
  std::string title;    // the same for all of a type
  std::string detail;   // may be empty
  std::string pointer;  // JSON pointer of the field; empty: the whole request, or none of it
};

struct HttpAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
  std::string allow;            // for a 405
  int retry_after_seconds = 0;  // for a 429 or a 503; 0: not sent
  bool authenticate = false;    // for a 401: how
  // Then this is no answer yet.
  std::shared_ptr<HttpWait> wait = {};
  // What the body says, where it is a problem.
  std::shared_ptr<const Problem> problem = {};
  // For the log: the template of the path, and whether it is a probe, of which a 503 is no failure.
  const char* route = "other";
  bool is_probe = false;
};

[[nodiscard]] HttpAnswer JsonAnswer(int status, std::string body);
// RFC 9457: {"type": "urn:freshet:problem:<name>", "title", "status", "detail"?, "pointer"?}
[[nodiscard]] HttpAnswer ProblemAnswer(int status, std::string_view name, std::string_view title,
                                       std::string_view detail = "", std::string_view pointer = "");
// The problem that tells this error. REQUIRES: !status.ok()
[[nodiscard]] HttpAnswer ProblemAnswer(const Status& status);

}  // namespace freshet
