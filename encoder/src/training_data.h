// What the trainer sees: entities by number, sequences by time, and tensors' rows made by the same extraction as
// serving.
//
// Place in the flow: event files -> TrainingData -> training.cc. No LibTorch here. Plain values, thread-compatible.
#pragma once

#include <cstdint>
#include <random>
#include <span>
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
};

struct ValidationCase {
  std::int32_t user = 0;
  std::vector<std::int32_t> items;  // distinct items of the user's interactions in the validation part
};

struct TrainingData {
  std::vector<ItemUpdate> items;                     // the candidates: live items of the items file
  std::vector<UserContext> users;                    // history empty
  std::vector<std::vector<std::int32_t>> sequences;  // per user: items of the training part, oldest first
  std::vector<TrainingExample> examples;
  std::vector<std::int64_t> item_counts;   // interactions of the training part
  std::vector<ValidationCase> validation;  // users who were seen in the training part too
  std::int64_t unknown_items = 0;          // interactions left out because their item is not in the items file
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

// The tensor rows of every item and user, extracted once; batches are put together by copying.
class InputCache {
 public:
  explicit InputCache(const TrainingData& data);

  void AppendItem(std::int32_t item, bool hide_id, TowerInput* input) const;
  // History: the newest `max_history` of `before` (oldest first).
  void AppendUser(std::int32_t user, std::span<const std::int32_t> before, TowerInput* input) const;
  // Has the user tower a row for this item of a history?
  [[nodiscard]] bool InHistories(std::int32_t item) const { return history_rows_[static_cast<std::size_t>(item)] >= 0; }
  [[nodiscard]] int history_bag() const { return history_bag_; }
  // For each row of the user tower's table, the row of the item tower's that stands for the same item; -1: none does.
  [[nodiscard]] std::vector<std::int64_t> SharedRows() const;
  // A hash of everything in `data` that training reads; REQUIRES: what this cache was made from.
  [[nodiscard]] std::string Fingerprint(const TrainingData& data) const;

 private:
  const FeatureSpec& item_spec_;
  const FeatureSpec& user_spec_;
  TowerInput items_;
  TowerInput users_;
  std::vector<std::int64_t> history_rows_;  // per item; -1: not in the vocabulary
  std::vector<std::int64_t> hidden_ids_;    // per item: the row of its id where nobody knows it; -1: none
  int id_bag_ = -1;
  int history_bag_ = -1;
  std::size_t max_history_ = 0;
};

}  // namespace freshet
