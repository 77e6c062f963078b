// What the towers of the trainer are made of: parameters, and one TorchScript that computes the same in training and in
// serving.
//
// Place in the flow: torch_trainer.cc compiles the script and trains its parameters; the package carries both. No
// LibTorch here. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "torch_tower.h"

namespace freshet {

// How a user's history becomes one vector. All but kMean stand beside or in place of the mean of the history's items.
enum class Pooling {
  kMean,           // or, with bags beside the history, a softmax over what these say of each item
  kAttention,      // softmax over what an item is and how long ago it was taken
  kGru,            // a gated recurrent unit from the oldest to the newest (Hidasi et al., ICLR 2016), beside the mean
  kSelfAttention,  // causal self-attention with distances (Kang and McAuley, "SASRec", ICDM 2018), likewise
};

struct TowerDesign {
  TowerShape shape;
  int embedding_dim = 32;
  int hidden = 128;         // units of each block
  int layers = 1;           // blocks of linear, batch norm, ReLU and dropout, before what is linear to the vector
  double dropout = 0;       // in training only
  bool batch_norm = false;  // in each block; in serving by the running statistics
  // Of the user tower; elsewhere every bag is a mean.
  Pooling pooling = Pooling::kMean;
  int history_bag = -1;
  // So many bags right behind it have a row for each of its items, in the same order: event types, gaps. Their rows are
  // added to the items' where a tower reads the history one by one; and kMean then weighs its items by them.
  int history_beside = 0;
  int history = 50;  // positions that are told apart; older items are not read by kGru and kSelfAttention
  int blocks = 2;    // of self-attention
  int heads = 2;     // of each; divides embedding_dim
};

struct ParameterDesign {
  std::string name;
  std::vector<std::int64_t> shape;
  double deviation = 0;  // normal around 0; with 0 the constant
  double constant = 0;
  bool buffer = false;  // moved by the forward pass in training, not by a gradient
};

// Without the embedding table, which is the parameter `table` [rows, embedding_dim].
[[nodiscard]] std::vector<ParameterDesign> ParametersOf(const TowerDesign& design);

// Does the tower read a history in its order? Then it can be trained on every place of it in one pass.
[[nodiscard]] bool ReadsSequence(const TowerDesign& design);

enum class Forward {
  kServing,
  kTraining,    // the same with dropout
  kEveryPlace,  // likewise, for targets: target t reads the `read[t]` oldest items of the history in row `row[t]`
};

// `def NAME(self, indices, offsets, dense)`, for kEveryPlace followed by `row, read` (int64, one a target). Rows of a
// batch do not touch each other, and no place of a history sees a newer one. REQUIRES: ReadsSequence for kEveryPlace.
[[nodiscard]] std::string ForwardSourceOf(const TowerDesign& design, const std::string& name, Forward forward);

}  // namespace freshet
