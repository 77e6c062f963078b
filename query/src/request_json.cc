#include "request_json.h"

#include <cmath>
#include <limits>

#include "freshet/core/strings.h"

namespace freshet {

Status Wrong(std::string_view pointer, std::string_view what) { return InvalidArgument(StrCat(pointer, ": ", what)); }

bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
             std::string_view::npos;
}

std::string FieldPointer(std::string_view parent, std::string_view name) {
  return IsPlainName(name) ? StrCat(parent, "/", name) : std::string(parent);
}

Status WrongName(std::string_view parent, std::string_view name, std::string_view what) {
  if (IsPlainName(name)) return Wrong(StrCat(parent, "/", name), what);
  const std::string quoted = JsonQuote(IsValidUtf8(name.substr(0, 64)) ? name.substr(0, 64) : "");
  return parent.empty() ? InvalidArgument(StrCat("field ", quoted, ": ", what))
                        : Wrong(parent, StrCat("field ", quoted, ": ", what));
}

Status CheckFields(const JsonValue& value, std::string_view pointer, const std::vector<std::string>& known) {
  if (!value.IsObject()) {
    return pointer.empty() ? InvalidArgument("the body must be a JSON object") : Wrong(pointer, "must be an object");
  }
  std::vector<bool> seen(known.size(), false);
  for (const auto& member : value.GetObject()) {
    const std::string_view name = JsonText(member.name);
    std::size_t i = 0;
    while (i < known.size() && known[i] != name) ++i;
    if (i == known.size()) {
      const std::optional<std::string> nearest = name.size() <= 64 ? Nearest(name, known) : std::nullopt;
      return WrongName(pointer, name,
                       nearest ? StrCat("unknown field; did you mean `", *nearest, "`?") : "unknown field");
    }
    if (seen[i]) return WrongName(pointer, name, "is given twice");
    seen[i] = true;
  }
  return Status::Ok();
}

Result<std::string> ReadId(const JsonValue& value, std::string_view pointer) {
  if (!value.IsString()) return Wrong(pointer, "must be a string");
  if (!IsValidId(JsonText(value))) return Wrong(pointer, StrCat("must be 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  return std::string(JsonText(value));
}

Result<bool> ReadBool(const JsonValue& value, std::string_view pointer) {
  if (!value.IsBool()) return Wrong(pointer, "must be true or false");
  return value.GetBool();
}

Result<std::uint64_t> ReadInteger(const JsonValue& value, std::string_view pointer, std::uint64_t min,
                                  std::uint64_t max) {
  if (!value.IsNumber()) return Wrong(pointer, "must be an integer");
  if (value.IsDouble()) return Wrong(pointer, "must be an integer, without fraction and exponent");
  if (!value.IsUint64() || value.GetUint64() < min || value.GetUint64() > max) {
    return Wrong(pointer, StrCat("must be between ", min, " and ", max));
  }
  return value.GetUint64();
}

Result<float> ReadFloat(const JsonValue& value, std::string_view pointer) {
  if (!value.IsNumber()) return Wrong(pointer, "must be a number");
  const double number = value.GetDouble();
  if (!(std::fabs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) {
    return Wrong(pointer, "does not fit a 32-bit float");
  }
  return static_cast<float>(number);
}

}  // namespace freshet
