#include "freshet/encoder/split.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

constexpr std::pair<SplitKind, std::string_view> kKinds[] = {{SplitKind::kFraction, "fraction"},
                                                             {SplitKind::kTime, "time"},
                                                             {SplitKind::kLastItem, "last-item"},
                                                             {SplitKind::kRandom, "random"}};

void SplitByTime(std::span<const SplitEvent> events, SplitResult* result) {
  for (const SplitEvent& event : events) {
    result->parts.push_back(event.timestamp_ms >= result->test_until_ms        ? Part::kNone
                            : event.timestamp_ms >= result->test_from_ms       ? Part::kTest
                            : event.timestamp_ms >= result->validation_from_ms ? Part::kValidation
                                                                               : Part::kTrain);
  }
}

// The time of the event at which the last `fraction` begins.
std::int64_t TimeAt(std::span<const SplitEvent> events, double fraction) {
  if (events.empty() || fraction <= 0) return kNever;
  const auto at = static_cast<std::size_t>(static_cast<double>(events.size()) * (1.0 - fraction));
  return events[std::min(at, events.size() - 1)].timestamp_ms;
}

void SplitLastItem(std::span<const SplitEvent> events, SplitResult* result) {
  constexpr std::size_t kFewest = 3;
  std::int32_t users = 0;
  for (const SplitEvent& event : events) users = std::max(users, event.user + 1);
  std::vector<std::size_t> left(static_cast<std::size_t>(users));
  for (const SplitEvent& event : events) ++left[static_cast<std::size_t>(event.user)];
  const std::vector<std::size_t> all = left;
  for (const SplitEvent& event : events) {
    const auto user = static_cast<std::size_t>(event.user);
    const std::size_t rest = left[user]--;
    result->parts.push_back(all[user] < kFewest || rest > 2 ? Part::kTrain
                            : rest == 2                     ? Part::kValidation
                                                            : Part::kTest);
  }
}

void SplitRandomly(const SplitOptions& options, std::span<const SplitEvent> events, SplitResult* result) {
  std::vector<std::size_t> order(events.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937_64 random(options.seed);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  const auto count = [&](double fraction) {
    return static_cast<std::size_t>(std::llround(fraction * static_cast<double>(events.size())));
  };
  const std::size_t test = count(options.test_fraction);
  const std::size_t validation = std::min(count(options.validation_fraction), events.size() - test);
  result->parts.assign(events.size(), Part::kTrain);
  for (std::size_t i = 0; i < test + validation; ++i) {
    result->parts[order[i]] = i < test ? Part::kTest : Part::kValidation;
  }
}

}  // namespace

Result<SplitKind> ParseSplitKind(std::string_view name) {
  for (const auto& [kind, text] : kKinds) {
    if (text == name) return kind;
  }
  return ConfigError(StrCat("`", name, "` is no split: fraction, time, last-item or random"));
}

std::string_view SplitKindName(SplitKind kind) {
  for (const auto& [value, text] : kKinds) {
    if (value == kind) return text;
  }
  return "unknown";
}

Status SplitOptions::Validate() const {
  if (std::any_of(events.begin(), events.end(), [](const std::string& event) { return event.empty(); })) {
    return ConfigError("an event that is asked for has no name");
  }
  if (kind == SplitKind::kTime) {
    if (validation_from_ms <= 0) return ConfigError("a split by time needs the time from which validation runs");
    if (test_from_ms != 0 && test_from_ms <= validation_from_ms) {
      return ConfigError("the test part must begin after the validation part");
    }
    if (test_until_ms != 0 && (test_from_ms == 0 || test_until_ms <= test_from_ms)) {
      return ConfigError("the test part must end after it begins");
    }
    return Status::Ok();
  }
  if (kind == SplitKind::kLastItem) return Status::Ok();
  if (!(validation_fraction > 0 && validation_fraction < 1)) {
    return ConfigError("the validation fraction must lie between 0 and 1");
  }
  if (!(test_fraction >= 0 && test_fraction < 1)) return ConfigError("the test fraction must be at least 0, below 1");
  if (test_fraction + validation_fraction >= 1) return ConfigError("validation and test leave nothing to train on");
  return Status::Ok();
}

SplitResult SplitEvents(const SplitOptions& options, std::span<const SplitEvent> events) {
  SplitResult result{{}, kNever, kNever, kNever};
  result.parts.reserve(events.size());
  switch (options.kind) {
    case SplitKind::kFraction:
      result.test_from_ms = TimeAt(events, options.test_fraction);
      result.validation_from_ms = TimeAt(events, options.test_fraction + options.validation_fraction);
      SplitByTime(events, &result);
      break;
    case SplitKind::kTime:
      result.validation_from_ms = options.validation_from_ms;
      if (options.test_from_ms != 0) result.test_from_ms = options.test_from_ms;
      if (options.test_until_ms != 0) result.test_until_ms = options.test_until_ms;
      SplitByTime(events, &result);
      break;
    case SplitKind::kLastItem:
      SplitLastItem(events, &result);
      break;
    case SplitKind::kRandom:
      SplitRandomly(options, events, &result);
      break;
  }
  return result;
}

}  // namespace freshet
