// LibTorch as its users write it: a loop over ready tensors, and training with its own Adam over dense gradients.
#pragma once

#include <cstdint>
#include <string>

#include "freshet/encoder/feature_spec.h"

namespace freshet::bench {

// Rows a processor second of this thread that a loaded tower computes from `input`, whose tensors are made once;
// nothing is checked and nothing copied out. REQUIRES: the file is a tower of the spec that made `input`, dense or not.
[[nodiscard]] double PeerTorchRowRate(const std::string& tower_file, const TowerInput& input, int repeats);

struct PeerTrainingShape {
  std::int64_t items = 100'000;  // rows of each of the two tables
  std::int64_t words = 2'000;    // rows of the items' content
  int words_per_item = 8;
  int history = 20;
  int embedding_dim = 64;
  int hidden = 128;
  int dim = 64;
  int batch = 1024;
};
// Pairs a processor second of this process, in-batch softmax, torch::optim::Adam on all of both tables.
[[nodiscard]] double PeerTorchPairRate(const PeerTrainingShape& shape, int steps);

}  // namespace freshet::bench
