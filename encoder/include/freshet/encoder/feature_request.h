// What a user says of single features: the section `features` of a training's configuration.
//
// Place in the flow: read by `freshet train`, part of TrainOptions; training fits each named feature as asked, infers
// the others as always, and writes the result into the package: serving decides nothing. Keys are described in
// encoder/README.md. Plain values, thread-compatible.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/core/yaml.h"
#include "freshet/encoder/feature_spec.h"

namespace freshet {

// What is not said is learned from the training part of the data.
struct FeatureRequest {
  std::string name;
  FeatureKind kind = FeatureKind::kCategorical;
  bool ignore = false;                          // no tower reads it; `kind` means nothing then
  std::vector<std::string> vocabulary;          // in place of a learned one
  std::optional<std::int64_t> vocabulary_size;  // of a learned one, at most; 0: hash buckets only
  std::optional<std::int64_t> min_count;        // how often a value must be seen to have a row of its own
  std::optional<std::int64_t> buckets;          // rows for all other values
  std::optional<int> max_values;
  std::optional<bool> log;
  std::vector<double>
      boundaries;            // bucketised; empty: quantiles. history_gaps, in seconds; empty: from a minute to a year
  std::optional<GapsTo> to;  // history_gaps
  int quantiles = 10;        // bucketised: so many buckets of about as many records each
  int word_ngrams = 1;       // text
  int char_min = 0;
  int char_max = 0;
  std::string where;  // "file:line", for messages
};

struct FeatureRequests {
  std::vector<FeatureRequest> items;
  std::vector<FeatureRequest> users;
  [[nodiscard]] bool empty() const { return items.empty() && users.empty(); }
};

// `node`: a mapping with the lists `items` and `users`. Errors: kConfig, every mistake with "file:line".
[[nodiscard]] Result<FeatureRequests> FeatureRequestsFromYaml(const YamlNode& node, const std::string& file);

// Two texts are equal where the requests are: what a checkpoint remembers of them.
[[nodiscard]] std::string FeatureRequestsText(const FeatureRequests& requests);

}  // namespace freshet
