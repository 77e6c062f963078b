// Recommendation recall on the validation part, in training.
//
// Place in the flow: after each epoch; chooses the epoch that is kept. `freshet evaluate` judges. Every item is a
// candidate. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "freshet/encoder/training.h"
#include "input_cache.h"
#include "torch_trainer.h"
#include "training_data.h"

namespace freshet {

class Validator {
 public:
  // All must outlive it.
  Validator(const TrainOptions& options, const TrainingData& data, const InputCache& cache)
      : options_(options), data_(data), cache_(cache) {}

  // For each validation user the share of their items among the best validation_k of all items, averaged over users.
  [[nodiscard]] Result<double> Recall(const TorchTrainer& trainer);
  [[nodiscard]] double PopularityRecall();
  // All items, row after row.
  [[nodiscard]] Result<std::vector<float>> EmbedItems(const TorchTrainer& trainer);

 private:
  [[nodiscard]] double RecallOf(const ValidationCase& one, std::span<float> scores);

  const TrainOptions& options_;
  const TrainingData& data_;
  const InputCache& cache_;
  // Reused from call to call:
  TowerInput users_;
  TowerInput items_;
  std::vector<std::int32_t> order_;
};

}  // namespace freshet
