// A feature's value as the texts that its bag is made of.
//
// Place in the flow: extraction looks these texts up, and training learns vocabularies from them: one implementation,
// so that what is learned is what is asked for. Stateless.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
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

// The words of a text, a list of texts or a number, into `scratch`; at most `most`.
void CollectWords(const FeatureValue& value, std::size_t most, TextScratch* scratch);

// Calls `take(text)` for the n-grams of kText, at most `max_values` times: first the words, then two neighbours joined
// by a space, and so on; then `#` and the characters of each run within `<word>`, the shortest runs first. A run of
// words does not reach from one text of a list into the next. A number is one word.
template <typename Take>
void ForEachNgram(const FeatureDef& def, const FeatureValue& value, TextScratch* scratch, const Take& take) {
  auto left = static_cast<std::size_t>(def.max_values);
  // Where words count, those beyond the bound never do.
  CollectWords(value, def.word_ngrams > 0 ? left : std::numeric_limits<std::size_t>::max(), scratch);
  const std::vector<TextScratch::Word>& words = scratch->words;
  const std::string_view lowered = scratch->lowered;
  for (auto run = std::size_t{1}; run <= static_cast<std::size_t>(def.word_ngrams); ++run) {
    for (std::size_t first = 0; first + run <= words.size() && left > 0; ++first) {
      if (words[first].part != words[first + run - 1].part) continue;
      scratch->gram.clear();
      for (std::size_t i = first; i < first + run; ++i) {
        if (i > first) scratch->gram += ' ';
        scratch->gram += lowered.substr(words[i].begin, words[i].end - words[i].begin);
      }
      take(std::string_view(scratch->gram));
      --left;
    }
  }
  if (def.char_max == 0) return;
  for (auto run = static_cast<std::size_t>(def.char_min); run <= static_cast<std::size_t>(def.char_max); ++run) {
    for (const TextScratch::Word& word : words) {
      if (left == 0) return;
      scratch->marked.assign(1, '<').append(lowered.substr(word.begin, word.end - word.begin)).append(1, '>');
      std::vector<std::size_t>& starts = scratch->starts;
      starts.clear();
      for (std::size_t at = 0; at < scratch->marked.size(); ++at) {
        // Any but a byte that continues a UTF-8 character; the first one of a word begins one, whatever it is.
        if (at < 2 || (static_cast<unsigned char>(scratch->marked[at]) & 0xC0U) != 0x80U) starts.push_back(at);
      }
      starts.push_back(scratch->marked.size());
      for (std::size_t first = 0; first + run < starts.size() && left > 0; ++first) {
        scratch->gram.assign(1, '#').append(scratch->marked, starts[first], starts[first + run] - starts[first]);
        take(std::string_view(scratch->gram));
        --left;
      }
    }
  }
}

// Calls `take(text)` for each text of the bag, in order, at most `max_values` times.
template <typename Take>
void ForEachValue(const FeatureDef& def, const FeatureValue& value, TextScratch* scratch, const Take& take) {
  if (def.ReadsNgrams()) {
    ForEachNgram(def, value, scratch, take);
    return;
  }
  int left = def.kind == FeatureKind::kCategorical ? 1 : def.max_values;
  const auto words = [&](const std::string& text) {
    if (left <= 0) return;
    ForEachToken(text, &scratch->lowered, [&](std::string_view word) {
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

// The row of a number within a bucketised feature's range; of a null, or what is not finite, that of the missing.
inline std::int64_t BucketOf(const std::vector<double>& boundaries, const double* number) {
  if (number == nullptr || !std::isfinite(*number)) return static_cast<std::int64_t>(boundaries.size()) + 1;
  return std::upper_bound(boundaries.begin(), boundaries.end(), *number) - boundaries.begin();
}

}  // namespace freshet
