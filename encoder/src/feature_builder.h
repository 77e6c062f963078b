// Decides from data how features feed a tower: kinds, vocabularies, standardisation.
//
// Place in the flow: training only. What it decides is written into the package; serving decides nothing.
// Numbers become dense columns (their logarithm where none is negative), lists multi-valued bags, texts a categorical
// bag where values repeat and hashed words where they do not. Thread-compatible.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "freshet/core/status.h"
#include "freshet/encoder/feature_spec.h"

namespace freshet {

class FeatureBuilder {
 public:
  // Counts the features of one training entity. Errors: kInvalidArgument for a number that is not finite.
  Status Add(const Features& features);
  // The definitions found, by name; `builtin` names are left out.
  [[nodiscard]] std::vector<FeatureDef> Build() const;
  // The features that were given more than once, always with the same value. In the order of their names.
  [[nodiscard]] std::vector<std::string> Constant() const;

 private:
  struct Seen {
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
  };
  std::map<std::string, Seen, std::less<>> seen_;
  std::string lowered_;  // scratch
};

// Words seen at least `min_count` times, most frequent first (ties by text), and a few buckets for the rest and the
// new.
[[nodiscard]] FeatureDef VocabularyFeature(std::string name, FeatureKind kind,
                                           const std::unordered_map<std::string, std::int64_t>& counts,
                                           std::int64_t min_count);

}  // namespace freshet
