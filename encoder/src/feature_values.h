// A feature's value as the texts that its bag is made of.
//
// Place in the flow: extraction looks these texts up, and training learns vocabularies from them: one implementation,
// so that what is learned is what is asked for. Stateless.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <variant>
#include <vector>

#include "freshet/encoder/feature_spec.h"

namespace freshet {

// A number as the text of a category: 3.0 is "3", 2.5 is "2.5".
inline std::string_view CategoryText(double number, std::array<char, 32>* buffer) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  char* const begin = buffer->data();
  char* const end = begin + buffer->size();
  const bool plain = std::trunc(number) == number && std::abs(number) < kExact;
  const std::to_chars_result result =
      plain ? std::to_chars(begin, end, static_cast<std::int64_t>(number)) : std::to_chars(begin, end, number);
  return result.ec == std::errc{} ? std::string_view(begin, static_cast<std::size_t>(result.ptr - begin))
                                  : std::string_view();
}

// Calls `take(text)` for each text of the bag, in order, at most `max_values` times. `lowered` is scratch.
template <typename Take>
void ForEachValue(const FeatureDef& def, const FeatureValue& value, std::string* lowered, const Take& take) {
  int left = def.kind == FeatureKind::kCategorical ? 1 : def.max_values;
  const auto words = [&](const std::string& text) {
    if (left <= 0) return;
    ForEachToken(text, lowered, [&](std::string_view word) {
      take(word);
      return --left > 0;
    });
  };
  if (const auto* number = std::get_if<double>(&value)) {
    std::array<char, 32> buffer{};
    take(CategoryText(*number, &buffer));
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    if (def.kind == FeatureKind::kText) {
      words(*text);
    } else {
      take(std::string_view(*text));
    }
  } else {
    for (const std::string& part : std::get<std::vector<std::string>>(value)) {
      if (left <= 0) break;
      if (def.kind == FeatureKind::kText) {
        words(part);
      } else {
        --left;
        take(std::string_view(part));
      }
    }
  }
}

}  // namespace freshet
