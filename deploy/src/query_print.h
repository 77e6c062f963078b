// An answer on a terminal: for `freshet query`. Results to standard output, the rest to standard error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/json.h"

namespace freshet {

// A member that is text, without control bytes, as it comes from outside; else empty.
[[nodiscard]] std::string Member(const JsonValue& object, std::string_view key);
// The ids as they are printed, in order.
[[nodiscard]] std::vector<std::string> IdsOf(const JsonValue& results);
// With the ids of an answer `before`: what is new (+), has risen (^) or fallen (v), and below what is gone.
void PrintTable(const JsonValue& results, bool with_attributes, const std::vector<std::string>* before = nullptr);
// "12 items in 0.8 ms, as of 2011-05-31T17:39:00.123Z (35 ms ago), index version 4711, model demo-1"
void PrintFreshness(const JsonValue& answer, std::size_t count);

}  // namespace freshet
