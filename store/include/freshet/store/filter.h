// Which items an answer may contain, by their attributes: a tree of must / should / must_not over typed conditions.
//
// Place in the flow: made from JSON or from the filter language by query, evaluated by the Catalog's attribute index.
// Conditions are made by the functions below, which bring their values into the form that the index compares: numbers
// exactly whatever their JSON form (1990 equals 1990.0, 2^53 + 1 equals no double), texts by bytes, timestamps as
// instants. Types are never converted into each other: the text "1990" is not the number 1990. Plain values.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace freshet {

// Longer texts are compared by this many of their first bytes; a filter's own texts may not be longer.
inline constexpr std::size_t kMaxFilterTextBytes = 256;
inline constexpr std::size_t kMaxFilterDepth = 8;         // groups in groups
inline constexpr std::size_t kMaxFilterConditions = 256;  // in all groups together
inline constexpr std::size_t kMaxFilterValues = 4096;     // in all `any` lists together

using FilterValue = std::variant<bool, std::int64_t, double, std::string>;
using FilterNumber = std::variant<std::int64_t, double>;

// Microseconds since 1970 of an RFC 3339 timestamp ("1995-11-22T10:00:00+01:00"); finer digits are cut off. Nothing
// for any other text.
[[nodiscard]] std::optional<std::int64_t> ParseTimestampUs(std::string_view text);

template <typename T>
struct Interval {  // both ends belong to it
  T low = std::numeric_limits<T>::lowest();
  T high = std::numeric_limits<T>::max();
};

struct Condition {
  enum class Kind { kAny, kNumbers, kTimes, kPrefix, kExists };
  Kind kind = Kind::kExists;
  std::string key;
  // kAny: equal to one of them; of an array, one of its values. Each sorted.
  std::vector<std::string> texts;
  std::vector<std::int64_t> integers;
  std::vector<double> doubles;
  bool match_true = false;
  bool match_false = false;
  // kNumbers: integers within `integer_range`, others within `double_range`. kTimes: within `integer_range`.
  Interval<std::int64_t> integer_range;
  Interval<double> double_range;
  std::string prefix;  // kPrefix
  bool exists = true;  // kExists
};

struct Filter {
  // A condition, or a group: all of `must`, at least one of `should` unless it is empty, none of `must_not`.
  std::optional<Condition> condition;
  std::vector<Filter> must;
  std::vector<Filter> should;
  std::vector<Filter> must_not;
};

template <typename T>
struct RangeBounds {
  std::optional<T> gt, gte, lt, lte;
};

[[nodiscard]] Condition AnyCondition(std::string key, const std::vector<FilterValue>& values);
[[nodiscard]] Condition NumberCondition(std::string key, const RangeBounds<FilterNumber>& bounds);
[[nodiscard]] Condition TimeCondition(std::string key, const RangeBounds<std::int64_t>& bounds_us);
[[nodiscard]] Condition PrefixCondition(std::string key, std::string prefix);
[[nodiscard]] Condition ExistsCondition(std::string key, bool exists);

}  // namespace freshet
