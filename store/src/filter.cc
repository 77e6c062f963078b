#include "freshet/store/filter.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace freshet {
namespace {

constexpr double kTwo63 = 9'223'372'036'854'775'808.0;

// The integer that equals `value`, where there is one.
std::optional<std::int64_t> AsInteger(double value) {
  if (!(value >= -kTwo63 && value < kTwo63) || value != std::floor(value)) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

// Compares exactly: an integer above 2^53 may have no double.
int Compare(double a, std::int64_t b) {
  if (a >= kTwo63) return 1;
  if (a < -kTwo63) return -1;
  const double floor = std::floor(a);
  const auto integer = static_cast<std::int64_t>(floor);
  if (integer != b) return integer < b ? -1 : 1;
  return a > floor ? 1 : 0;
}

template <typename T>
void MakeEmpty(Interval<T>* range) {
  range->low = std::numeric_limits<T>::max();
  range->high = std::numeric_limits<T>::lowest();
}

void RaiseLow(Interval<std::int64_t>* range, std::int64_t bound, bool open) {
  if (open && bound == std::numeric_limits<std::int64_t>::max()) return MakeEmpty(range);
  range->low = std::max(range->low, open ? bound + 1 : bound);
}

void LowerHigh(Interval<std::int64_t>* range, std::int64_t bound, bool open) {
  if (open && bound == std::numeric_limits<std::int64_t>::min()) return MakeEmpty(range);
  range->high = std::min(range->high, open ? bound - 1 : bound);
}

void RaiseLow(Condition* condition, const FilterNumber& bound, bool open) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double as_double = 0;
  if (const auto* integer = std::get_if<std::int64_t>(&bound)) {
    RaiseLow(&condition->integer_range, *integer, open);
    as_double = static_cast<double>(*integer);
    const int order = Compare(as_double, *integer);
    // The nearest double above the bound belongs to the range whether the bound does or not; one below never does.
    open = order == 0 ? open : order < 0;
  } else {
    as_double = std::get<double>(bound);
    if (as_double >= kTwo63) {
      MakeEmpty(&condition->integer_range);
    } else if (as_double >= -kTwo63) {
      const double ceil = std::ceil(as_double);
      if (ceil >= kTwo63) {
        MakeEmpty(&condition->integer_range);
      } else {
        RaiseLow(&condition->integer_range, static_cast<std::int64_t>(ceil), open && ceil == as_double);
      }
    }
  }
  const double low = open ? std::nextafter(as_double, kInfinity) : as_double;
  condition->double_range.low = std::max(condition->double_range.low, low);
}

void LowerHigh(Condition* condition, const FilterNumber& bound, bool open) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double as_double = 0;
  if (const auto* integer = std::get_if<std::int64_t>(&bound)) {
    LowerHigh(&condition->integer_range, *integer, open);
    as_double = static_cast<double>(*integer);
    const int order = Compare(as_double, *integer);
    open = order == 0 ? open : order > 0;
  } else {
    as_double = std::get<double>(bound);
    if (as_double < -kTwo63) {
      MakeEmpty(&condition->integer_range);
    } else if (as_double < kTwo63) {
      const double floor = std::floor(as_double);
      LowerHigh(&condition->integer_range, static_cast<std::int64_t>(floor), open && floor == as_double);
    }
  }
  const double high = open ? std::nextafter(as_double, -kInfinity) : as_double;
  condition->double_range.high = std::min(condition->double_range.high, high);
}

template <typename T>
void SortUnique(std::vector<T>* values) {
  std::sort(values->begin(), values->end());
  values->erase(std::unique(values->begin(), values->end()), values->end());
}

// `count` digits at `at`; -1 where there are none.
int Digits(std::string_view text, std::size_t at, std::size_t count) {
  if (at + count > text.size()) return -1;
  int value = 0;
  for (std::size_t i = at; i < at + count; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

bool IsAt(std::string_view text, std::size_t at, std::string_view one_of) {
  return at < text.size() && one_of.find(text[at]) != std::string_view::npos;
}

}  // namespace

std::optional<std::int64_t> ParseTimestampUs(std::string_view text) {
  using namespace std::chrono;  // NOLINT(google-build-using-namespace): one function of calendar arithmetic
  const int y = Digits(text, 0, 4);
  const int mo = Digits(text, 5, 2);
  const int d = Digits(text, 8, 2);
  const int h = Digits(text, 11, 2);
  const int mi = Digits(text, 14, 2);
  const int s = Digits(text, 17, 2);
  if (y < 0 || mo < 0 || d < 0 || h < 0 || mi < 0 || s < 0) return std::nullopt;
  if (text[4] != '-' || text[7] != '-' || !IsAt(text, 10, "Tt ") || text[13] != ':' || text[16] != ':') return {};
  const year_month_day date{year(y), month(static_cast<unsigned>(mo)), day(static_cast<unsigned>(d))};
  if (!date.ok() || h > 23 || mi > 59 || s > 60) return std::nullopt;  // 60: a leap second
  std::int64_t us = duration_cast<microseconds>(sys_days(date).time_since_epoch()).count();
  us += ((h * 60LL + mi) * 60 + s) * 1'000'000;
  std::size_t at = 19;
  if (IsAt(text, at, ".")) {
    std::int64_t unit = 100'000;
    const std::size_t first = ++at;
    for (; Digits(text, at, 1) >= 0; ++at, unit /= 10) us += unit * Digits(text, at, 1);
    if (at == first) return std::nullopt;
  }
  if (IsAt(text, at, "Zz")) return at + 1 == text.size() ? std::optional(us) : std::nullopt;
  const int offset_h = Digits(text, at + 1, 2);
  const int offset_m = Digits(text, at + 4, 2);
  if (!IsAt(text, at, "+-") || !IsAt(text, at + 3, ":") || at + 6 != text.size()) return std::nullopt;
  if (offset_h < 0 || offset_h > 23 || offset_m < 0 || offset_m > 59) return std::nullopt;
  const std::int64_t offset_us = (offset_h * 60LL + offset_m) * 60'000'000;
  return text[at] == '+' ? us - offset_us : us + offset_us;
}

Condition AnyCondition(std::string key, const std::vector<FilterValue>& values) {
  Condition condition;
  condition.kind = Condition::Kind::kAny;
  condition.key = std::move(key);
  for (const FilterValue& value : values) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      condition.texts.push_back(*text);
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      condition.integers.push_back(*integer);
      const auto nearest = static_cast<double>(*integer);
      if (Compare(nearest, *integer) == 0) condition.doubles.push_back(nearest);
    } else if (const auto* number = std::get_if<double>(&value)) {
      condition.doubles.push_back(*number);
      if (const auto whole = AsInteger(*number)) condition.integers.push_back(*whole);
    } else {
      (std::get<bool>(value) ? condition.match_true : condition.match_false) = true;
    }
  }
  SortUnique(&condition.texts);
  SortUnique(&condition.integers);
  SortUnique(&condition.doubles);
  return condition;
}

Condition NumberCondition(std::string key, const RangeBounds<FilterNumber>& bounds) {
  Condition condition;
  condition.kind = Condition::Kind::kNumbers;
  condition.key = std::move(key);
  if (bounds.gt) RaiseLow(&condition, *bounds.gt, true);
  if (bounds.gte) RaiseLow(&condition, *bounds.gte, false);
  if (bounds.lt) LowerHigh(&condition, *bounds.lt, true);
  if (bounds.lte) LowerHigh(&condition, *bounds.lte, false);
  return condition;
}

Condition TimeCondition(std::string key, const RangeBounds<std::int64_t>& bounds_us) {
  Condition condition;
  condition.kind = Condition::Kind::kTimes;
  condition.key = std::move(key);
  if (bounds_us.gt) RaiseLow(&condition.integer_range, *bounds_us.gt, true);
  if (bounds_us.gte) RaiseLow(&condition.integer_range, *bounds_us.gte, false);
  if (bounds_us.lt) LowerHigh(&condition.integer_range, *bounds_us.lt, true);
  if (bounds_us.lte) LowerHigh(&condition.integer_range, *bounds_us.lte, false);
  return condition;
}

Condition PrefixCondition(std::string key, std::string prefix) {
  Condition condition;
  condition.kind = Condition::Kind::kPrefix;
  condition.key = std::move(key);
  condition.prefix = std::move(prefix);
  return condition;
}

Condition ExistsCondition(std::string key, bool exists) {
  Condition condition;
  condition.key = std::move(key);
  condition.exists = exists;
  return condition;
}

}  // namespace freshet
