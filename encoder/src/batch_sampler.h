// Batches of training: pairs in a new order each epoch, their histories, their negatives. For towers that read a
// sequence the pairs of a batch come by windows: neighbouring interactions of one user, whose histories begin alike, so
// that one pass over the longest computes all.
//
// Place in the flow: TrainingData -> BatchSampler -> TorchTrainer::Step. Draws from the generator that it is given, so
// that generator, order and position say where it stands. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "freshet/encoder/training.h"
#include "input_cache.h"
#include "torch_trainer.h"
#include "training_data.h"

namespace freshet {

// Our own, because std::shuffle gives different orders in different standard libraries.
template <typename T>
void Shuffle(std::vector<T>* values, std::mt19937_64* random) {
  for (std::size_t i = values->size(); i > 1; --i) std::swap((*values)[i - 1], (*values)[(*random)() % i]);
}

constexpr std::size_t kMinedPerUser = 16;  // hard negatives that are kept of each user

class BatchSampler {
 public:
  // All must outlive it.
  BatchSampler(const TrainOptions& options, const TrainingData& data, const InputCache& cache, std::mt19937_64* random);

  void StartEpoch() { Shuffle(&order_, random_); }
  // Fills users() and batch() with step `step` of steps_per_epoch(). Returns the pairs in it.
  std::size_t Fill(std::int64_t step);

  [[nodiscard]] std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  [[nodiscard]] const TowerInput& users() const { return users_; }
  [[nodiscard]] const TrainingBatch& batch() const { return batch_; }
  [[nodiscard]] const std::vector<std::uint32_t>& order() const { return order_; }
  // False, and nothing changes, when `order` does not hold each window or pair once.
  [[nodiscard]] bool SetOrder(const std::vector<std::uint32_t>& order);
  // The hard negatives to draw from: kMinedPerUser a user, -1 where there are fewer; empty: none. False, and nothing
  // changes, for other numbers of them, or numbers that are no items.
  [[nodiscard]] bool SetMined(std::vector<std::int32_t> mined);
  [[nodiscard]] const std::vector<std::int32_t>& mined() const { return mined_; }

 private:
  // Targets [begin, end) of a user's sequence.
  struct Window {
    std::int32_t user = 0;
    std::int32_t begin = 0;
    std::int32_t end = 0;
  };

  void MakeWindows();
  void AddWindow(const Window& window);
  [[nodiscard]] std::int32_t HistoryEnd(const TrainingExample& example);
  [[nodiscard]] double UnitInterval() { return static_cast<double>((*random_)() >> 11) * 0x1.0p-53; }
  [[nodiscard]] std::span<const std::int32_t> HistoryOf(const TrainingExample& example);  // positions
  void AddUser(std::int32_t user, std::span<const std::int32_t> positions);
  void AddTarget(const TrainingExample& example);
  [[nodiscard]] float WeightOf(const TrainingExample& example) const;
  void AddItem(std::int32_t item, float log_q);
  void AddNegatives();
  void AddHardNegatives(const std::function<float(std::size_t)>& correction);

  const TrainOptions& options_;
  const TrainingData& data_;
  const InputCache& cache_;
  std::mt19937_64* const random_;
  std::vector<float> log_q_;  // per item
  std::int64_t newest_ms_ = 0;
  std::int64_t steps_per_epoch_ = 1;
  std::vector<Window> windows_;  // empty: batches are of single pairs
  // Per user, by position; where there are windows. kNoExample: what stands there is no pair.
  static constexpr std::uint32_t kNoExample = ~std::uint32_t{0};
  std::vector<std::vector<std::uint32_t>> examples_of_;
  std::vector<std::int32_t> pairs_of_;  // per user: how many
  std::vector<std::int32_t> mined_;
  std::vector<std::uint32_t> order_;  // of the windows, or of the pairs
  // Reused from batch to batch:
  TowerInput users_;
  TrainingBatch batch_;
  std::vector<std::int32_t> history_;      // positions in a sequence
  std::vector<std::int32_t> batch_users_;  // of each target
  std::vector<std::int64_t> kept_;         // per position of a window's history: how many items before it were kept
};

}  // namespace freshet
