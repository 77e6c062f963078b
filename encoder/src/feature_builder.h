// Decides from data how features feed a tower: kinds, vocabularies, standardisation.
//
// Place in the flow: training only. What it decides is written into the package; serving decides nothing. A feature
// that a configuration names becomes what is asked of it; the others are inferred.
// Numbers become dense columns (their logarithm where none is negative), lists multi-valued bags, texts a categorical
// bag where values repeat and hashed words where they do not. Thread-compatible.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/feature_request.h"
#include "freshet/encoder/feature_spec.h"

namespace freshet {

class FeatureBuilder {
 public:
  // `requests` of one side, which outlive it; those of built-in sources (ids, history) are not its business. `entities`
  // is what Add() is given, for messages: "item".
  explicit FeatureBuilder(std::span<const FeatureRequest> requests = {}, std::string entities = "record");

  // Counts the features of one training entity. Errors: kInvalidArgument for a number that is not finite.
  Status Add(const Features& features);
  // The definitions, by name; `builtin` names are left out. Errors: kConfig, for every request that the data cannot
  // meet, with its place in the configuration.
  [[nodiscard]] Result<std::vector<FeatureDef>> Build() const;
  // The features that were given more than once, always with the same value. In the order of their names.
  [[nodiscard]] std::vector<std::string> Constant() const;

 private:
  struct Seen {
    const FeatureRequest* request = nullptr;
    FeatureDef asked;  // what is asked for decides how values are read
    std::int64_t numbers = 0;
    double minimum = 0;
    double maximum = 0;
    double sum = 0;
    double squares = 0;
    double log_sum = 0;
    double log_squares = 0;
    std::int64_t texts = 0;
    std::int64_t lists = 0;
    std::unordered_map<std::string, std::int64_t> values;  // of texts and lists
    std::unordered_map<std::string, std::int64_t> words;   // of texts
    std::unordered_map<std::string, std::int64_t> bag;     // what extraction makes of them, where a bag is asked for
    std::vector<double> all_numbers;                       // where quantiles are asked for
    [[nodiscard]] bool Wants(FeatureKind kind) const {
      return request != nullptr && !request->ignore && request->kind == kind;
    }
    [[nodiscard]] std::int64_t given() const { return numbers + texts + lists; }
  };
  [[nodiscard]] FeatureDef Infer(const std::string& name, const Seen& seen) const;
  [[nodiscard]] Result<FeatureDef> Fit(const Seen& seen) const;
  [[nodiscard]] Status NotGiven(const FeatureRequest& request) const;

  const std::string entities_;
  std::map<std::string, Seen, std::less<>> seen_;
  TextScratch scratch_;
};

// What cuts `numbers` into at most `quantiles` parts of about the same size; fewer where many are alike. At least one.
// REQUIRES: some, finite.
[[nodiscard]] std::vector<double> QuantileBoundaries(std::vector<double> numbers, int quantiles);

// Words seen at least `min_count` times, at most `size` of them, most frequent first (ties by text), and a few buckets
// for the rest and the new.
inline constexpr std::int64_t kMaxVocabulary = 200'000;
[[nodiscard]] FeatureDef VocabularyFeature(std::string name, FeatureKind kind,
                                           const std::unordered_map<std::string, std::int64_t>& counts,
                                           std::int64_t min_count, std::int64_t size = kMaxVocabulary);
// Likewise, by what `request` says of vocabulary and buckets. Errors: kConfig.
[[nodiscard]] Result<FeatureDef> VocabularyFeature(const FeatureRequest& request,
                                                   const std::unordered_map<std::string, std::int64_t>& counts,
                                                   std::int64_t min_count);

}  // namespace freshet
