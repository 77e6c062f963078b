#include "http_log.h"

#include <algorithm>
#include <random>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr int kFailuresPerSecond = 10;
constexpr std::int64_t kSecondUs = 1'000'000;
constexpr std::size_t kMaxRequestIdBytes = 128;
constexpr std::size_t kTraceIdAt = 3;
constexpr std::size_t kTraceIdDigits = 32;
constexpr std::size_t kParentIdAt = 36;
constexpr std::size_t kParentIdDigits = 16;
constexpr std::size_t kFlagsAt = 53;
constexpr std::size_t kTraceparentBytes = 55;

std::uint64_t Seed() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

// SplitMix64's finalizer: one to one, so that different numbers stay different.
std::uint64_t Mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

bool IsRequestId(std::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestIdBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '0'; });
}

}  // namespace

std::string_view TraceIdOf(std::string_view traceparent) {
  if (traceparent.size() != kTraceparentBytes || !traceparent.starts_with("00-")) return {};
  const std::string_view trace_id = traceparent.substr(kTraceIdAt, kTraceIdDigits);
  const std::string_view parent_id = traceparent.substr(kParentIdAt, kParentIdDigits);
  const std::string_view flags = traceparent.substr(kFlagsAt);
  const bool separated = traceparent[kParentIdAt - 1] == '-' && traceparent[kFlagsAt - 1] == '-';
  if (!separated || !IsLowerHex(trace_id) || !IsLowerHex(parent_id) || !IsLowerHex(flags)) return {};
  return IsZero(trace_id) || IsZero(parent_id) ? std::string_view() : trace_id;
}

std::optional<std::uint64_t> LineLimit::Take(std::int64_t now_us) {
  const std::lock_guard lock(mu_);
  if (!second_us_ || now_us - *second_us_ >= kSecondUs) {
    second_us_ = now_us;
    lines_ = 0;
  }
  if (lines_ == per_second_) {
    ++left_out_;
    return std::nullopt;
  }
  ++lines_;
  return std::exchange(left_out_, 0);
}

RequestLog::RequestLog(bool every_request, const Clock* clock)
    : every_request_(every_request), clock_(clock), seed_(Seed()), failures_(kFailuresPerSecond) {}

void RequestLog::Name(std::string_view request_id, std::string_view traceparent, RequestTag* tag) {
  tag->trace_id.assign(TraceIdOf(traceparent));
  if (IsRequestId(request_id)) {
    tag->request_id.assign(request_id);
    return;
  }
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::uint64_t id = Mix(seed_ + named_.fetch_add(1, std::memory_order_relaxed));
  tag->request_id.resize(16);
  for (char& digit : tag->request_id) {
    digit = kDigits[id & 15];
    id >>= 4;
  }
}

void RequestLog::Write(const RequestTag& tag, const RequestOutcome& outcome) {
  const std::int64_t now_us = clock_->MonotonicUs();
  const bool every = every_request_ && LogEnabled(LogLevel::kInfo);
  std::uint64_t left_out = 0;
  if (!every) {
    if (!IsFailure(outcome)) return;
    const std::optional<std::uint64_t> taken = failures_.Take(now_us);
    if (!taken) return;
    left_out = *taken;
  }
  LogFields fields = {{"request_id", tag.request_id}};
  if (!tag.trace_id.empty()) fields.emplace_back("trace_id", tag.trace_id);
  fields.emplace_back("route", outcome.route);
  if (!outcome.method.empty()) fields.emplace_back("method", outcome.method);
  if (!outcome.protocol.empty()) fields.emplace_back("protocol", outcome.protocol);
  fields.emplace_back("status", StrCat(outcome.status));
  fields.emplace_back("milliseconds", StrCat(static_cast<double>(now_us - outcome.arrived_us) * 1e-3));
  if (left_out > 0) fields.emplace_back("not_logged", StrCat(left_out));
  if (every) return LogInfo("query", "request", fields);
  if (outcome.status == 500) return LogError("query", "request failed", fields);
  LogWarning("query", "request failed", fields);
}

}  // namespace freshet
