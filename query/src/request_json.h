// Reading requests strictly: what is not understood is refused with its JSON pointer.
//
// Place in the flow: under recall_json.cc and filter_json.cc. Stateless. Errors: kInvalidArgument, the message starts
// with the pointer that was given; the empty pointer is the whole body.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/status.h"

namespace freshet {

[[nodiscard]] Status Wrong(std::string_view pointer, std::string_view what);
[[nodiscard]] bool IsPlainName(std::string_view name);
// The pointer to a field whose name comes from outside; to the object around it where the name is not plain.
[[nodiscard]] std::string FieldPointer(std::string_view parent, std::string_view name);
// A field's name as part of a pointer and a message. Names that are not plain come from outside and may hold anything:
// the pointer then names the object around them.
[[nodiscard]] Status WrongName(std::string_view parent, std::string_view name, std::string_view what);
// Refuses what is no object, unknown fields, and fields given twice.
Status CheckFields(const JsonValue& value, std::string_view pointer, const std::vector<std::string>& known);
[[nodiscard]] Result<std::string> ReadId(const JsonValue& value, std::string_view pointer);
[[nodiscard]] Result<bool> ReadBool(const JsonValue& value, std::string_view pointer);
[[nodiscard]] Result<std::uint64_t> ReadInteger(const JsonValue& value, std::string_view pointer, std::uint64_t min,
                                                std::uint64_t max);
[[nodiscard]] Result<float> ReadFloat(const JsonValue& value, std::string_view pointer);

}  // namespace freshet
