// Two towers in training, behind a face without LibTorch.
//
// Place in the flow: training.cc feeds it batches and takes parameters out. One embedding table a tower (sparse
// gradients, Adam on the touched rows only: dense Adam over tables dominates the cost), then linear, ReLU, linear,
// beside a linear skip; L2 normalisation. Exceptions of LibTorch end here. Not thread-safe. Deterministic by seed on
// one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "torch_tower.h"

namespace freshet {

struct TrainerOptions {
  int embedding_dim = 32;
  int hidden = 128;
  double learning_rate = 0.003;
  double temperature = 0.07;
  std::uint64_t seed = 1;
};

enum class Side { kItem, kUser };

class TorchTrainer {
 public:
  [[nodiscard]] static Result<std::unique_ptr<TorchTrainer>> Create(const TrainerOptions& options,
                                                                    const TowerShape& item, const TowerShape& user);
  ~TorchTrainer();

  // One step of InfoNCE: row i of `users` belongs to row i of `items`, the other rows are its negatives, except those
  // with the same item number. `log_q` is the log of each item's share of the training pairs. Returns the loss. Errors:
  // kInternal.
  [[nodiscard]] Result<double> Step(const TowerInput& users, const TowerInput& items,
                                    std::span<const std::int64_t> item_numbers, std::span<const float> log_q,
                                    double learning_rate);

  // Rows of unit vectors, without gradients.
  [[nodiscard]] Result<std::vector<float>> Embed(Side side, const TowerInput& input) const;

  // A copy, for the package or to keep the best epoch.
  [[nodiscard]] std::vector<TowerParameter> Parameters(Side side) const;
  // The `forward` that computes the same from these parameters.
  [[nodiscard]] static std::string ForwardSource(const TowerShape& shape, int embedding_dim);

 private:
  struct Impl;
  explicit TorchTrainer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace freshet
