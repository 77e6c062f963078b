// Errors as values.
//
// Place in the flow: returned by everything that can fail. Exceptions of third-party libraries are turned into a Status
// once, in that library's adapter, and never travel further.
// The category of a code decides what the caller does (design.md, conventions.md): input -> dead letter or 4xx;
// transient -> retry with bounded backoff; permanent -> stop, exit non-zero. Branch on codes, never on message text.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace freshet {

enum class Code {
  kOk = 0,
  kInvalidArgument,     // input: the bytes or the request are wrong
  kNotFound,            // input: what was named does not exist
  kUnavailable,         // transient: a dependency does not answer
  kDeadlineExceeded,    // transient: it did not answer in time
  kResourceExhausted,   // transient: a bound was reached (queue, disk, memory)
  kCancelled,           // permanent: we are shutting down
  kCorruption,          // permanent: bytes on disk fail their checks
  kFailedPrecondition,  // permanent: the state does not allow it
  kConfig,              // permanent: the configuration is wrong (exit code 78)
  kIoError,             // permanent: a file operation failed
  kInternal,            // permanent: our own mistake, or a library's unexplained failure
};

enum class Category { kOk, kInput, kTransient, kPermanent };

[[nodiscard]] Category CategoryOf(Code code);
[[nodiscard]] std::string_view CodeName(Code code);

// Value type, cheap when ok. Thread-compatible.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] static Status Ok() { return {}; }
  [[nodiscard]] bool ok() const { return code_ == Code::kOk; }
  [[nodiscard]] Code code() const { return code_; }
  [[nodiscard]] Category category() const { return CategoryOf(code_); }
  [[nodiscard]] const std::string& message() const { return message_; }

  // The same status with `context: ` before its message; ok stays ok.
  [[nodiscard]] Status Prefixed(std::string_view context) const;
  // "corruption: items/a.bin: checksum differs"
  [[nodiscard]] std::string ToString() const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

[[nodiscard]] inline Status InvalidArgument(std::string m) { return {Code::kInvalidArgument, std::move(m)}; }
[[nodiscard]] inline Status NotFound(std::string m) { return {Code::kNotFound, std::move(m)}; }
[[nodiscard]] inline Status Unavailable(std::string m) { return {Code::kUnavailable, std::move(m)}; }
[[nodiscard]] inline Status DeadlineExceeded(std::string m) { return {Code::kDeadlineExceeded, std::move(m)}; }
[[nodiscard]] inline Status ResourceExhausted(std::string m) { return {Code::kResourceExhausted, std::move(m)}; }
[[nodiscard]] inline Status Cancelled(std::string m) { return {Code::kCancelled, std::move(m)}; }
[[nodiscard]] inline Status Corruption(std::string m) { return {Code::kCorruption, std::move(m)}; }
[[nodiscard]] inline Status FailedPrecondition(std::string m) { return {Code::kFailedPrecondition, std::move(m)}; }
[[nodiscard]] inline Status ConfigError(std::string m) { return {Code::kConfig, std::move(m)}; }
[[nodiscard]] inline Status IoError(std::string m) { return {Code::kIoError, std::move(m)}; }
[[nodiscard]] inline Status Internal(std::string m) { return {Code::kInternal, std::move(m)}; }

// A T, or the reason why there is none. REQUIRES for value access: ok().
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    assert(!status_.ok() && "a Result without a value needs a reason");
  }

  [[nodiscard]] bool ok() const { return value_.has_value(); }
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] T& value() & { return *value_; }
  [[nodiscard]] const T& value() const& { return *value_; }
  [[nodiscard]] T&& value() && { return std::move(*value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

#define FRESHET_CONCAT_INNER(a, b) a##b
#define FRESHET_CONCAT(a, b) FRESHET_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` is not ok.
#define FRESHET_TRY(expr)                                                                                   \
  do {                                                                                                      \
    if (::freshet::Status freshet_try_status = (expr); !freshet_try_status.ok()) return freshet_try_status; \
  } while (false)

// `FRESHET_ASSIGN(auto x, MakeX());` declares x or returns the error.
#define FRESHET_ASSIGN(lhs, expr) FRESHET_ASSIGN_INNER(FRESHET_CONCAT(freshet_result_, __LINE__), lhs, expr)
#define FRESHET_ASSIGN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                         \
  if (!tmp.ok()) return tmp.status();        \
  lhs = std::move(*tmp)

}  // namespace freshet
