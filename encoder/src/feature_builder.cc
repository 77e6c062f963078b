#include "feature_builder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxVocabulary = 200'000;
// Below this mean number of repeats a text is read as words, not as a category.
constexpr std::int64_t kCategoryRepeats = 4;

FeatureDef DenseFeature(const std::string& name, bool log, double sum, double squares, std::int64_t count) {
  FeatureDef def;
  def.name = name;
  def.kind = FeatureKind::kDense;
  def.log = log;
  const auto n = static_cast<double>(count);
  def.mean = sum / n;
  const double deviation = std::sqrt(std::max(squares / n - def.mean * def.mean, 0.0));
  def.stddev = deviation > 1e-9 ? deviation : 1.0;
  return def;
}

}  // namespace

Status FeatureBuilder::Add(const Features& features) {
  for (const auto& [name, value] : features) {
    Seen& seen = seen_[name];
    if (const auto* number = std::get_if<double>(&value)) {
      if (!std::isfinite(*number)) return InvalidArgument(StrCat("feature `", name, "` is not a finite number"));
      seen.minimum = seen.numbers == 0 ? *number : std::min(seen.minimum, *number);
      seen.maximum = seen.numbers == 0 ? *number : std::max(seen.maximum, *number);
      ++seen.numbers;
      seen.sum += *number;
      seen.squares += *number * *number;
      const double log = std::log1p(std::max(*number, 0.0));
      seen.log_sum += log;
      seen.log_squares += log * log;
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      ++seen.texts;
      ++seen.values[*text];
      ForEachToken(*text, &lowered_, [&](std::string_view word) {
        ++seen.words[std::string(word)];
        return true;
      });
    } else {
      ++seen.lists;
      for (const std::string& part : std::get<std::vector<std::string>>(value)) ++seen.values[part];
    }
  }
  return Status::Ok();
}

std::vector<FeatureDef> FeatureBuilder::Build() const {
  std::vector<FeatureDef> defs;
  for (const auto& [name, seen] : seen_) {
    // A feature that carries a built-in source's name would hide behind it.
    if (name == "item_id" || name == "user_id" || name == "history") continue;
    if (seen.lists > 0) {
      defs.push_back(VocabularyFeature(name, FeatureKind::kMultiValued, seen.values, 2));
    } else if (seen.texts > seen.numbers) {
      const auto distinct = static_cast<std::int64_t>(seen.values.size());
      const bool category = name == "category" || distinct * kCategoryRepeats <= seen.texts || seen.words.empty();
      defs.push_back(category ? VocabularyFeature(name, FeatureKind::kCategorical, seen.values, 2)
                              : VocabularyFeature(name, FeatureKind::kText, seen.words, 2));
    } else if (seen.numbers > 0) {
      const bool log = seen.minimum >= 0;
      defs.push_back(log ? DenseFeature(name, true, seen.log_sum, seen.log_squares, seen.numbers)
                         : DenseFeature(name, false, seen.sum, seen.squares, seen.numbers));
    }
  }
  return defs;
}

std::vector<std::string> FeatureBuilder::Constant() const {
  std::vector<std::string> names;
  for (const auto& [name, seen] : seen_) {
    const std::int64_t given = seen.numbers + seen.texts + seen.lists;
    const bool number = seen.numbers == given && seen.minimum == seen.maximum;
    const bool word = seen.numbers == 0 && seen.values.size() <= 1;
    if (given > 1 && (number || word)) names.push_back(name);
  }
  return names;
}

FeatureDef VocabularyFeature(std::string name, FeatureKind kind,
                             const std::unordered_map<std::string, std::int64_t>& counts, std::int64_t min_count) {
  std::vector<std::pair<std::int64_t, std::string>> words;
  for (const auto& [word, count] : counts) {
    if (count >= min_count) words.emplace_back(-count, word);
  }
  std::sort(words.begin(), words.end());
  if (words.size() > kMaxVocabulary) words.resize(kMaxVocabulary);

  FeatureDef def;
  def.name = std::move(name);
  def.kind = kind;
  for (auto& [count, word] : words) def.vocabulary.push_back(std::move(word));
  // Rare words share buckets, so that what a new word will meet has been trained.
  const std::size_t rare = counts.size() - def.vocabulary.size();
  def.buckets = static_cast<std::int64_t>(std::bit_ceil(std::clamp<std::size_t>(rare / 16, 4, 4096)));
  return def;
}

}  // namespace freshet
