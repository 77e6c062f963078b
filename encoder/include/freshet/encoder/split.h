// Which interactions train, which choose, which judge.
//
// Place in the flow: one definition for training and for judging, so that a model never sees what it is judged by.
// Every positive interaction belongs to exactly one part. Plain values, stateless functions, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"

namespace freshet {

enum class SplitKind {
  kFraction,  // by time: the last `test_fraction` is test, the `validation_fraction` before it validation
  kTime,      // by date: from `validation_from_ms`, from `test_from_ms`, until `test_until_ms`
  kLastItem,  // of each user the last is test, the one before validation; users with fewer than three only train
  kRandom,    // shares by chance, by seed: for protocols of others; it lets the future into training
};
[[nodiscard]] Result<SplitKind> ParseSplitKind(std::string_view name);  // fraction, time, last-item, random
[[nodiscard]] std::string_view SplitKindName(SplitKind kind);

struct SplitOptions {
  SplitKind kind = SplitKind::kFraction;
  double validation_fraction = 0.1;  // of all positives
  double test_fraction = 0;          // of all positives
  std::int64_t validation_from_ms = 0;
  std::int64_t test_from_ms = 0;   // 0: there is no test part
  std::int64_t test_until_ms = 0;  // 0: no end
  std::uint64_t seed = 1;          // kRandom
  // What the validation and the test part ask for: interactions of these events; empty: all. The others stand in
  // histories all the same, and are cut by the same times.
  std::vector<std::string> events;
  Status Validate() const;
};

enum class Part : std::uint8_t { kTrain, kValidation, kTest, kNone };

// One positive interaction, as far as splitting needs it.
struct SplitEvent {
  std::int32_t user = 0;
  std::int64_t timestamp_ms = 0;
};

struct SplitResult {
  std::vector<Part> parts;  // one an event
  // Where a part begins and the test part ends in time; the largest number where the split is not one by time.
  std::int64_t validation_from_ms = 0;
  std::int64_t test_from_ms = 0;
  std::int64_t test_until_ms = 0;
};

// REQUIRES: `events` in time order (ties in the order of the file), options.Validate().ok(). What shares a timestamp
// with the first event of a part by time belongs to it: a basket is never cut.
[[nodiscard]] SplitResult SplitEvents(const SplitOptions& options, std::span<const SplitEvent> events);

}  // namespace freshet
