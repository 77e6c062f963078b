// Small text helpers. Stateless, thread-safe.
#pragma once

#include <cstddef>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace freshet {

// Concatenates streamable parts: StrCat("offset ", 7). For messages, not for hot paths.
template <typename... Parts>
[[nodiscard]] std::string StrCat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

[[nodiscard]] std::vector<std::string> Split(std::string_view text, char separator);
[[nodiscard]] std::string_view Trim(std::string_view text);
[[nodiscard]] std::string ToLower(std::string_view text);  // ASCII only

// Well-formed UTF-8 by Unicode 15 table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool IsValidUtf8(std::string_view bytes);

// Item and user ids: 1 to 512 bytes of valid UTF-8.
inline constexpr std::size_t kMaxIdBytes = 512;
[[nodiscard]] bool IsValidId(std::string_view id);

// Levenshtein distance, for "did you mean"; O(a*b).
[[nodiscard]] std::size_t EditDistance(std::string_view a, std::string_view b);
// The candidate nearest to `word` when it is plausibly a slip (distance <= 1 + length/3).
[[nodiscard]] std::optional<std::string> Nearest(std::string_view word, const std::vector<std::string>& candidates);

// Whole-string numbers; nothing for trailing junk, overflow or empty text.
[[nodiscard]] std::optional<double> ParseDouble(std::string_view text);
[[nodiscard]] std::optional<long long> ParseInt(std::string_view text);

}  // namespace freshet
