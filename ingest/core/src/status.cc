#include "freshet/core/status.h"

namespace freshet {

Category CategoryOf(Code code) {
  switch (code) {
    case Code::kOk:
      return Category::kOk;
    case Code::kInvalidArgument:
    case Code::kNotFound:
      return Category::kInput;
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
    case Code::kResourceExhausted:
      return Category::kTransient;
    case Code::kCancelled:
    case Code::kCorruption:
    case Code::kFailedPrecondition:
    case Code::kConfig:
    case Code::kIoError:
    case Code::kInternal:
      return Category::kPermanent;
  }
  return Category::kPermanent;
}

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDeadlineExceeded:
      return "deadline_exceeded";
    case Code::kResourceExhausted:
      return "resource_exhausted";
    case Code::kCancelled:
      return "cancelled";
    case Code::kCorruption:
      return "corruption";
    case Code::kFailedPrecondition:
      return "failed_precondition";
    case Code::kConfig:
      return "config";
    case Code::kIoError:
      return "io_error";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

Status Status::Prefixed(std::string_view context) const {
  if (ok()) return *this;
  return {code_, std::string(context) + ": " + message_};
}

std::string Status::ToString() const {
  if (ok()) return "ok";
  return std::string(CodeName(code_)) + ": " + message_;
}

}  // namespace freshet
