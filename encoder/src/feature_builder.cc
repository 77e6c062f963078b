#include "feature_builder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "feature_values.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

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

// A feature that carries a built-in source's name would hide behind it.
bool IsBuiltIn(std::string_view name) {
  const auto kind = ParseFeatureKind(name);
  return name == "item_id" || name == "user_id" || (kind && IsOfHistory(*kind));
}

// Whether it has a vocabulary, or buckets for hashes.
bool HasWords(FeatureKind kind) { return kind != FeatureKind::kDense && kind != FeatureKind::kBucketised; }

}  // namespace

FeatureBuilder::FeatureBuilder(std::span<const FeatureRequest> requests, std::string entities)
    : entities_(std::move(entities)) {
  for (const FeatureRequest& request : requests) {
    if (IsBuiltIn(request.name)) continue;
    Seen& seen = seen_[request.name];
    seen.request = &request;
    seen.asked.name = request.name;
    seen.asked.kind = request.kind;
    if (request.max_values) seen.asked.max_values = *request.max_values;
    seen.asked.word_ngrams = request.word_ngrams;
    seen.asked.char_min = request.char_min;
    seen.asked.char_max = request.char_max;
  }
}

Status FeatureBuilder::Add(const Features& features) {
  for (const auto& [name, value] : features) {
    Seen& seen = seen_[name];
    if (seen.request != nullptr && seen.request->ignore) {
      ++seen.texts;  // given, whatever it is
      continue;
    }
    if (const auto* number = std::get_if<double>(&value)) {
      if (!std::isfinite(*number)) {
        return InvalidArgument(StrCat("feature `", name, "` is not a finite number: correct it or leave it out there, ",
                                      "or name the feature with `kind: ignore`"));
      }
      seen.minimum = seen.numbers == 0 ? *number : std::min(seen.minimum, *number);
      seen.maximum = seen.numbers == 0 ? *number : std::max(seen.maximum, *number);
      ++seen.numbers;
      seen.sum += *number;
      seen.squares += *number * *number;
      const double log = std::log1p(std::max(*number, 0.0));
      seen.log_sum += log;
      seen.log_squares += log * log;
      if (seen.Wants(FeatureKind::kBucketised) && seen.request->boundaries.empty()) seen.all_numbers.push_back(*number);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      ++seen.texts;
      ++seen.values[*text];
      ForEachToken(*text, &scratch_.lowered, [&](std::string_view word) {
        ++seen.words[std::string(word)];
        return true;
      });
    } else {
      ++seen.lists;
      for (const std::string& part : std::get<std::vector<std::string>>(value)) ++seen.values[part];
    }
    if (seen.request == nullptr || !HasWords(seen.asked.kind)) continue;
    ForEachValue(seen.asked, value, &scratch_, [&](std::string_view text) { ++seen.bag[std::string(text)]; });
  }
  return Status::Ok();
}

Result<std::vector<FeatureDef>> FeatureBuilder::Build() const {
  std::vector<FeatureDef> defs;
  std::string mistakes;
  for (const auto& [name, seen] : seen_) {
    if (IsBuiltIn(name)) continue;
    if (seen.request == nullptr) {
      if (seen.given() > 0) defs.push_back(Infer(name, seen));
      continue;
    }
    Result<FeatureDef> def = Fit(seen);
    if (!def.ok()) {
      mistakes += StrCat(mistakes.empty() ? "" : "\n  ", def.status().message());
    } else if (!seen.request->ignore) {
      defs.push_back(std::move(*def));
    }
  }
  if (!mistakes.empty()) return ConfigError(mistakes);
  return defs;
}

FeatureDef FeatureBuilder::Infer(const std::string& name, const Seen& seen) const {
  if (seen.lists > 0) return VocabularyFeature(name, FeatureKind::kMultiValued, seen.values, 2);
  if (seen.texts > seen.numbers) {
    const auto distinct = static_cast<std::int64_t>(seen.values.size());
    const bool category = name == "category" || distinct * kCategoryRepeats <= seen.texts || seen.words.empty();
    return category ? VocabularyFeature(name, FeatureKind::kCategorical, seen.values, 2)
                    : VocabularyFeature(name, FeatureKind::kText, seen.words, 2);
  }
  return seen.minimum >= 0 ? DenseFeature(name, true, seen.log_sum, seen.log_squares, seen.numbers)
                           : DenseFeature(name, false, seen.sum, seen.squares, seen.numbers);
}

Result<FeatureDef> FeatureBuilder::Fit(const Seen& seen) const {
  const FeatureRequest& request = *seen.request;
  if (seen.given() == 0) return NotGiven(request);
  if (request.ignore) return FeatureDef{};
  if (!HasWords(request.kind) && seen.numbers == 0) {
    return ConfigError(StrCat(request.where, ": feature `", request.name, "` is to be ", FeatureKindName(request.kind),
                              ", but of ", seen.given(), " values none is a number: categorical or text would fit"));
  }
  if (request.kind == FeatureKind::kBucketised) {
    FeatureDef def = seen.asked;
    def.boundaries =
        request.boundaries.empty() ? QuantileBoundaries(seen.all_numbers, request.quantiles) : request.boundaries;
    return def;
  }
  if (request.kind == FeatureKind::kDense) {
    const bool log = request.log.value_or(seen.minimum >= 0);
    return log ? DenseFeature(request.name, true, seen.log_sum, seen.log_squares, seen.numbers)
               : DenseFeature(request.name, false, seen.sum, seen.squares, seen.numbers);
  }
  return VocabularyFeature(request, seen.bag, 2);
}

Status FeatureBuilder::NotGiven(const FeatureRequest& request) const {
  std::vector<std::string> names;
  for (const auto& [name, seen] : seen_) {
    if (seen.given() > 0 && !IsBuiltIn(name)) names.push_back(name);
  }
  std::string what =
      StrCat(request.where, ": feature `", request.name, "`: no ", entities_, " of the training part has it");
  if (const auto nearest = Nearest(request.name, names)) {
    what += StrCat(": did you mean `", *nearest, "`?");
  } else if (names.empty()) {
    what += ", nor any other feature";
  } else {
    what += "; there are";
    constexpr std::size_t kShown = 20;
    for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i)
      what += StrCat(i == 0 ? " `" : ", `", names[i], "`");
    if (names.size() > kShown) what += StrCat(" and ", names.size() - kShown, " more");
  }
  return ConfigError(what);
}

std::vector<std::string> FeatureBuilder::Constant() const {
  std::vector<std::string> names;
  for (const auto& [name, seen] : seen_) {
    const std::int64_t given = seen.given();
    if (seen.request != nullptr && seen.request->ignore) continue;
    const bool number = seen.numbers == given && seen.minimum == seen.maximum;
    const bool word = seen.numbers == 0 && seen.values.size() <= 1;
    if (given > 1 && (number || word)) names.push_back(name);
  }
  return names;
}

std::vector<double> QuantileBoundaries(std::vector<double> numbers, int quantiles) {
  std::sort(numbers.begin(), numbers.end());
  std::vector<double> boundaries;
  const auto parts = static_cast<std::size_t>(quantiles);
  for (std::size_t part = 1; part < parts; ++part) {
    const double at = numbers[part * numbers.size() / parts];
    // Nothing lies below the least one: it would cut off an empty bucket.
    if (at > (boundaries.empty() ? numbers.front() : boundaries.back())) boundaries.push_back(at);
  }
  if (boundaries.empty()) boundaries.push_back(numbers.back());
  return boundaries;
}

FeatureDef VocabularyFeature(std::string name, FeatureKind kind,
                             const std::unordered_map<std::string, std::int64_t>& counts, std::int64_t min_count,
                             std::int64_t size) {
  std::vector<std::pair<std::int64_t, std::string>> words;
  for (const auto& [word, count] : counts) {
    if (count >= min_count) words.emplace_back(-count, word);
  }
  std::sort(words.begin(), words.end());
  if (static_cast<std::int64_t>(words.size()) > size) words.resize(static_cast<std::size_t>(size));

  FeatureDef def;
  def.name = std::move(name);
  def.kind = kind;
  for (auto& [count, word] : words) def.vocabulary.push_back(std::move(word));
  // Rare words share buckets, so that what a new word will meet has been trained.
  const std::size_t rare = counts.size() - def.vocabulary.size();
  def.buckets = static_cast<std::int64_t>(std::bit_ceil(std::clamp<std::size_t>(rare / 16, 4, 4096)));
  return def;
}

Result<FeatureDef> VocabularyFeature(const FeatureRequest& request,
                                     const std::unordered_map<std::string, std::int64_t>& counts,
                                     std::int64_t min_count) {
  FeatureDef def;
  if (request.vocabulary.empty()) {
    def = VocabularyFeature(request.name, request.kind, counts, request.min_count.value_or(min_count),
                            request.vocabulary_size.value_or(kMaxVocabulary));
  } else {
    def.name = request.name;
    def.kind = request.kind;
    def.vocabulary = request.vocabulary;
    def.buckets = 1;
  }
  if (request.buckets) def.buckets = *request.buckets;
  if (request.max_values) def.max_values = *request.max_values;
  def.word_ngrams = request.word_ngrams;
  def.char_min = request.char_min;
  def.char_max = request.char_max;
  if (def.rows() > 0) return def;
  return ConfigError(StrCat(request.where, ": feature `", request.name, "`: none of its ", counts.size(),
                            " values is seen ", request.min_count.value_or(min_count),
                            " times, and there are no buckets: give `buckets`, or a lower `min_count`"));
}

}  // namespace freshet
