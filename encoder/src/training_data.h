// What the trainer sees: entities by number, sequences by time.
//
// Place in the flow: event files -> TrainingData -> InputCache -> training.cc. No LibTorch here. Plain values,
// thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/feature_spec.h"
#include "freshet/encoder/training.h"

namespace freshet {

struct TrainingExample {
  std::int32_t user = 0;
  std::int32_t position = 0;  // in the user's sequence: this item is the target, what stands before it the history
  std::int32_t earlier = 0;   // how much of that history is of an earlier time: a basket carries one time
  std::int64_t timestamp_ms = 0;
  float weight = 1;  // by what the interaction was; above 0
};

struct ValidationCase {
  std::int32_t user = 0;
  std::vector<std::int32_t> items;  // distinct items of the user's interactions in the validation part
};

struct TrainingData {
  std::vector<ItemUpdate> items;                     // the candidates: live items of the items file
  std::vector<UserContext> users;                    // history empty
  std::vector<std::vector<std::int32_t>> sequences;  // per user: items of the training part, oldest first
  // Of the same interactions: numbers of event_names, and when. Empty, where no history tells them.
  std::vector<std::vector<std::int32_t>> sequence_events;
  std::vector<std::vector<std::int64_t>> sequence_times_ms;
  std::vector<std::string> event_names;
  std::vector<TrainingExample> examples;   // of each interaction whose event weighs something
  std::vector<std::int64_t> item_counts;   // examples of the training part
  std::vector<ValidationCase> validation;  // users who were seen in the training part too
  std::int64_t unknown_items = 0;          // interactions left out, as in Dataset
  std::int64_t later_items = 0;            // likewise
  FeatureSpec item_spec;
  FeatureSpec user_spec;
  std::vector<std::string> warnings;  // what can be trained on and should be known: what it is and what to do
};

// Reads the files, splits by time, and fits both feature specs on the training part. Errors: kNotFound,
// kInvalidArgument (nothing to train or to validate on, files that do not belong together), kConfig (a feature is asked
// for that the data does not have), kIoError.
// With kValidationToo that part is trained on, and `validation` is empty.
enum class TrainOn { kTrainingPart, kValidationToo };
[[nodiscard]] Result<TrainingData> LoadTrainingData(const TrainOptions& options, TrainOn part = TrainOn::kTrainingPart);

}  // namespace freshet
