#include "json_values.h"

#include <chrono>
#include <cmath>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::int64_t kYear10000Ms = 253'402'300'800'000;

// `count` digits at the front of `text`, which moves on.
std::optional<int> Digits(std::string_view* text, std::size_t count) {
  if (text->size() < count) return std::nullopt;
  int number = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const char c = (*text)[i];
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + (c - '0');
  }
  text->remove_prefix(count);
  return number;
}

bool Take(std::string_view* text, std::string_view one_of) {
  if (text->empty() || one_of.find(text->front()) == std::string_view::npos) return false;
  text->remove_prefix(1);
  return true;
}

// Milliseconds of ".123456", rounded down; any number of digits.
std::optional<int> Fraction(std::string_view* text) {
  if (!Take(text, ".")) return 0;
  int milliseconds = 0;
  std::size_t digits = 0;
  for (; digits < text->size() && (*text)[digits] >= '0' && (*text)[digits] <= '9'; ++digits) {
    if (digits < 3) milliseconds = milliseconds * 10 + ((*text)[digits] - '0');
  }
  if (digits == 0) return std::nullopt;
  for (std::size_t i = digits; i < 3; ++i) milliseconds *= 10;
  text->remove_prefix(digits);
  return milliseconds;
}

// Minutes east of Greenwich.
std::optional<int> Offset(std::string_view* text) {
  if (Take(text, "Zz")) return 0;
  const bool east = !text->empty() && text->front() == '+';
  if (!Take(text, "+-")) return std::nullopt;
  const auto hours = Digits(text, 2);
  if (!hours || *hours > 23 || !Take(text, ":")) return std::nullopt;
  const auto minutes = Digits(text, 2);
  if (!minutes || *minutes > 59) return std::nullopt;
  return (east ? 1 : -1) * (*hours * 60 + *minutes);
}

}  // namespace

Status CompilePart(std::string_view name, const std::string& pointer, std::optional<SchemaPart>* part) {
  if (pointer.empty()) return Status::Ok();
  SchemaPart compiled{pointer, JsonPointer(pointer.data(), pointer.size())};
  if (pointer.front() != '/' || !compiled.pointer.IsValid()) {
    return ConfigError(
        StrCat("schema.", name, ": `", pointer, "` is no JSON pointer (RFC 6901), such as /features/price"));
  }
  part->emplace(std::move(compiled));
  return Status::Ok();
}

const JsonValue* GetPart(const std::optional<SchemaPart>& part, const JsonValue& root) {
  if (!part) return nullptr;
  const JsonValue* value = part->pointer.Get(root);
  return value == nullptr || value->IsNull() ? nullptr : value;
}

Status Mismatch(std::string_view where, std::string_view wanted) {
  return InvalidArgument(StrCat(where, " is not ", wanted));
}

Result<std::string> ToText(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (!value.IsString()) return Mismatch(where, "a text");
  if (value.GetStringLength() > limits.max_string_bytes) {
    return InvalidArgument(StrCat(where, " is longer than ", limits.max_string_bytes, " bytes"));
  }
  return std::string(JsonText(value));
}

namespace {

Status CheckList(const JsonValue& value, std::string_view where, std::string_view wanted, const DecodeLimits& limits) {
  if (!value.IsArray()) return Mismatch(where, wanted);
  if (value.Size() <= limits.max_tags) return Status::Ok();
  return InvalidArgument(StrCat(where, " has more than ", limits.max_tags, " entries"));
}

template <typename T>
Result<AttributeValue> ToValue(Result<T> list) {
  if (!list.ok()) return list.status();
  return AttributeValue(std::move(*list));
}

}  // namespace

Result<std::vector<std::string>> ToTexts(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  FRESHET_TRY(CheckList(value, where, "a list of texts", limits));
  std::vector<std::string> texts;
  texts.reserve(value.Size());
  for (const JsonValue& entry : value.GetArray()) {
    if (entry.IsNull()) continue;
    if (!entry.IsString()) return Mismatch(where, "a list of texts");
    FRESHET_ASSIGN(std::string text, ToText(entry, where, limits));
    texts.push_back(std::move(text));
  }
  return texts;
}

Result<std::string> ToId(const JsonValue& value, std::string_view where) {
  std::string id;
  if (value.IsInt64()) {
    id = std::to_string(value.GetInt64());
  } else if (value.IsUint64()) {
    id = std::to_string(value.GetUint64());
  } else if (value.IsString()) {
    id = JsonText(value);
  } else {
    return Mismatch(where, "a text or a whole number");
  }
  if (!IsValidId(id)) return Mismatch(where, StrCat("an id of 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  return id;
}

Result<FeatureValue> ToFeature(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (value.IsBool()) return FeatureValue(value.GetBool() ? 1.0 : 0.0);
  if (value.IsNumber()) {
    const double number = value.GetDouble();
    if (!std::isfinite(number)) return Mismatch(where, "finite");
    return FeatureValue(number);
  }
  if (value.IsString()) {
    FRESHET_ASSIGN(std::string text, ToText(value, where, limits));
    return FeatureValue(std::move(text));
  }
  if (value.IsArray()) {
    FRESHET_ASSIGN(std::vector<std::string> texts, ToTexts(value, where, limits));
    return FeatureValue(std::move(texts));
  }
  return Mismatch(where, "a number, a boolean, a text or a list of texts");
}

namespace {

// Of a list: its entries that are not null, all of one kind.
Result<std::vector<bool>> ToBools(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  FRESHET_TRY(CheckList(value, where, "a list of booleans", limits));
  std::vector<bool> list;
  for (const JsonValue& entry : value.GetArray()) {
    if (entry.IsNull()) continue;
    if (!entry.IsBool()) return Mismatch(where, "a list of booleans");
    list.push_back(entry.GetBool());
  }
  return list;
}

Result<std::vector<std::int64_t>> ToIntegers(const JsonValue& value, std::string_view where,
                                             const DecodeLimits& limits) {
  FRESHET_TRY(CheckList(value, where, "a list of whole numbers of 64 bits", limits));
  std::vector<std::int64_t> list;
  for (const JsonValue& entry : value.GetArray()) {
    if (entry.IsNull()) continue;
    if (!entry.IsInt64()) return Mismatch(where, "a list of whole numbers of 64 bits");
    list.push_back(entry.GetInt64());
  }
  return list;
}

Result<std::vector<double>> ToDoubles(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  FRESHET_TRY(CheckList(value, where, "a list of finite numbers", limits));
  std::vector<double> list;
  for (const JsonValue& entry : value.GetArray()) {
    if (entry.IsNull()) continue;
    if (!entry.IsNumber() || !std::isfinite(entry.GetDouble())) return Mismatch(where, "a list of finite numbers");
    list.push_back(entry.GetDouble());
  }
  return list;
}

// By what its entries are; one that is no whole number makes numbers of all. An empty one is of texts.
Result<AttributeValue> ToListAttribute(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  bool numbers = false;
  bool whole = true;
  for (const JsonValue& entry : value.GetArray()) {
    if (entry.IsBool()) return ToValue(ToBools(value, where, limits));
    numbers |= entry.IsNumber();
    whole &= entry.IsNull() || entry.IsInt64();
  }
  if (!numbers) return ToValue(ToTexts(value, where, limits));
  return whole ? ToValue(ToIntegers(value, where, limits)) : ToValue(ToDoubles(value, where, limits));
}

}  // namespace

Result<AttributeValue> ToAttribute(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (value.IsArray()) return ToListAttribute(value, where, limits);
  if (value.IsBool()) return AttributeValue(value.GetBool());
  if (value.IsInt64()) return AttributeValue(static_cast<std::int64_t>(value.GetInt64()));
  FRESHET_ASSIGN(FeatureValue feature, ToFeature(value, where, limits));
  return std::visit([](auto&& v) { return AttributeValue(std::forward<decltype(v)>(v)); }, std::move(feature));
}

Result<AttributeValue> ToAttribute(const JsonValue& value, AttributeType type, std::string_view where,
                                   const DecodeLimits& limits) {
  switch (type) {
    case AttributeType::kBool:
      if (!value.IsBool()) return Mismatch(where, "a boolean");
      return AttributeValue(value.GetBool());
    case AttributeType::kInt:
      if (!value.IsInt64()) return Mismatch(where, "a whole number of 64 bits");
      return AttributeValue(static_cast<std::int64_t>(value.GetInt64()));
    case AttributeType::kDouble:
      if (!value.IsNumber() || !std::isfinite(value.GetDouble())) return Mismatch(where, "a finite number");
      return AttributeValue(value.GetDouble());
    case AttributeType::kText: {
      FRESHET_ASSIGN(std::string text, ToText(value, where, limits));
      return AttributeValue(std::move(text));
    }
    case AttributeType::kTexts:
      return ToValue(ToTexts(value, where, limits));
    case AttributeType::kBools:
      return ToValue(ToBools(value, where, limits));
    case AttributeType::kInts:
      return ToValue(ToIntegers(value, where, limits));
    case AttributeType::kDoubles:
      return ToValue(ToDoubles(value, where, limits));
  }
  return Mismatch(where, "of a known type");
}

Result<std::int64_t> ToTimestampMs(const JsonValue& value, TimestampFormat format, std::string_view where) {
  std::int64_t time_ms = -1;
  std::string_view wanted;
  switch (format) {
    case TimestampFormat::kSeconds:
      wanted = "a time in Unix seconds";
      if (value.IsInt64() && value.GetInt64() < kYear10000Ms / 1000) {
        time_ms = value.GetInt64() * 1000;
      } else if (value.IsNumber() && std::abs(value.GetDouble()) < static_cast<double>(kYear10000Ms) / 1000) {
        time_ms = static_cast<std::int64_t>(std::floor(value.GetDouble() * 1000));
      }
      break;
    case TimestampFormat::kMilliseconds:
      wanted = "a time in whole Unix milliseconds";
      if (value.IsInt64()) time_ms = value.GetInt64();
      break;
    case TimestampFormat::kMicroseconds:
      wanted = "a time in whole Unix microseconds";
      if (value.IsInt64() && value.GetInt64() >= 0) time_ms = value.GetInt64() / 1000;
      break;
    case TimestampFormat::kRfc3339:
      wanted = "a time as RFC 3339 writes it, such as 2018-04-05T17:31:00Z";
      if (value.IsString()) time_ms = ParseRfc3339(JsonText(value)).value_or(-1);
      break;
  }
  if (time_ms < 0 || time_ms >= kYear10000Ms) {
    return Mismatch(where, StrCat(wanted, ", from 1970 to 9999 (schema.timestamp_format)"));
  }
  return time_ms;
}

std::optional<std::int64_t> ParseRfc3339(std::string_view text) {
  const auto year = Digits(&text, 4);
  if (!year || !Take(&text, "-")) return std::nullopt;
  const auto month = Digits(&text, 2);
  if (!month || !Take(&text, "-")) return std::nullopt;
  const auto day = Digits(&text, 2);
  if (!day || !Take(&text, "Tt ")) return std::nullopt;
  const auto hour = Digits(&text, 2);
  if (!hour || *hour > 23 || !Take(&text, ":")) return std::nullopt;
  const auto minute = Digits(&text, 2);
  if (!minute || *minute > 59 || !Take(&text, ":")) return std::nullopt;
  const auto second = Digits(&text, 2);
  if (!second || *second > 60) return std::nullopt;  // 60: a leap second
  const auto fraction_ms = Fraction(&text);
  if (!fraction_ms) return std::nullopt;
  const auto offset_minutes = Offset(&text);
  if (!offset_minutes || !text.empty()) return std::nullopt;

  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const std::int64_t minutes = days * 1440 + *hour * 60 + *minute - *offset_minutes;
  return (minutes * 60 + *second) * 1000 + *fraction_ms;
}

}  // namespace freshet
