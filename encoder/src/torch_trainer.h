// Two towers in training, behind a face without LibTorch.
//
// Place in the flow: training.cc feeds it batches and takes parameters out. One embedding table (sparse
// gradients, Adam on the touched rows only: dense Adam over tables dominates the cost), then what tower_source.h
// composes. The script that is trained is the script that is served. Exceptions of LibTorch end here. Not thread-safe.
// Deterministic by seed on one thread; State() and Restore() continue it to the bit.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/device.h"
#include "torch_tower.h"
#include "tower_source.h"

namespace freshet {

struct TrainerOptions {
  TowerDesign item;
  TowerDesign user;
  double temperature = 0.07;
  bool learn_temperature = false;
  double max_gradient_norm = 0;           // 0: not clipped
  std::vector<std::int64_t> shared_rows;  // per row of the user's table: the row of the item's it is, or -1; or empty
  std::uint64_t seed = 1;
  Device device{Device::Kind::kCpu};
  // Matrix products of both towers in bfloat16, forwards and backwards; parameters, moments and loss stay in float.
  bool bf16 = false;
  bool step_by_operators = false;  // tests: as on a GPU
};

// The columns of a step, and which of them belongs to each target. A target is a row of the users, or, where `rows` is
// not empty, a place in the history of one: many targets then share a row, whose history is read once.
struct TrainingBatch {
  TowerInput items;
  std::vector<std::int64_t> numbers;  // per column: the item's number; the target's number elsewhere is no negative
  std::vector<float> log_q;           // per column: the log of its share among the columns
  std::vector<std::int64_t> targets;  // per target: a column
  std::vector<float> weights;         // per target
  std::vector<std::int64_t> rows;     // per target: a row of the users; only for towers that read a sequence
  std::vector<std::int64_t> reads;    // per target: how many of the oldest items of that row's history it knows
  void Clear() {
    items.Clear();
    numbers.clear();
    log_q.clear();
    targets.clear();
    weights.clear();
    rows.clear();
    reads.clear();
  }
};

// A parameter and its two moments, equally long.
struct ParameterState {
  std::string name;
  std::vector<float> value;
  std::vector<float> first;
  std::vector<float> second;
};

struct TrainerState {
  std::int64_t steps = 0;
  std::string generator;  // of dropout; LibTorch's own bytes
  std::vector<ParameterState> parameters;
};

enum class Side { kItem, kUser };

class TorchTrainer {
 public:
  // Errors: kConfig, there is no such device; kInternal, with the script compiler's message.
  [[nodiscard]] static Result<std::unique_ptr<TorchTrainer>> Create(const TrainerOptions& options);
  ~TorchTrainer();

  // One step of InfoNCE: all columns but its own are a target's negatives. Returns the loss. Errors: kInternal.
  [[nodiscard]] Result<double> Step(const TowerInput& users, const TrainingBatch& batch, double learning_rate);

  // Rows of unit vectors, without gradients.
  [[nodiscard]] Result<std::vector<float>> Embed(Side side, const TowerInput& input) const;

  // A copy, for the package or to keep the best epoch.
  [[nodiscard]] std::vector<TowerParameter> Parameters(Side side) const;
  // The `forward` that computes the same from these parameters.
  [[nodiscard]] std::string ForwardSource(Side side) const;

  [[nodiscard]] TrainerState State() const;
  // Errors: kCorruption when the state is not one of a trainer with these options; this one must not be used then.
  Status Restore(const TrainerState& state);

 private:
  struct Impl;
  explicit TorchTrainer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace freshet
