// One value of an answer, for comparisons with what is expected.
#pragma once

#include <string>

#include "freshet/core/json.h"

namespace freshet::test {

// As JSON; "" where there is nothing, and a text that says so where `json` is none.
inline std::string At(const std::string& json, const std::string& pointer) {
  const auto document = ParseJson(json);
  if (!document.ok()) return "not JSON: " + json;
  const JsonValue* value = JsonPointer(pointer.c_str(), pointer.size()).Get(**document);
  return value == nullptr ? "" : ToJson(*value);
}

}  // namespace freshet::test
