// Small towers and batches for tests of the trainer.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "freshet_test/test_support.h"
#include "torch_trainer.h"

namespace freshet::test {

inline constexpr int kDim = 4;
inline constexpr int kItems = 20;
inline constexpr int kHistory = 5;

// Users of two bags, the history second, over a table of kItems rows.
inline TrainerOptions Options(Pooling pooling) {
  TrainerOptions options;
  options.item.shape = {kItems, 1, 0, kDim};
  options.item.embedding_dim = 8;
  options.item.hidden = 16;
  options.user = options.item;
  options.user.shape = {kItems, 2, 1, kDim};
  options.user.pooling = pooling;
  options.user.history_bag = 1;
  options.user.history = kHistory;
  options.seed = 3;
  return options;
}

// The history has so many bags beside it: between it and nothing, so bags are user, history, beside.
inline TrainerOptions OptionsWithBeside(Pooling pooling, int beside) {
  TrainerOptions options = Options(pooling);
  options.user.shape.bags += beside;
  options.user.history_beside = beside;
  return options;
}

// Newest first, as in serving. `beside`: a bag each, with a row for every item.
inline void AddUser(const std::vector<std::int64_t>& history, const std::vector<std::vector<std::int64_t>>& beside,
                    TowerInput* input) {
  const auto bag = [&](const std::vector<std::int64_t>& rows) {
    input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
    input->indices.insert(input->indices.end(), rows.begin(), rows.end());
  };
  bag({0});
  bag(history);
  for (const auto& rows : beside) bag(rows);
  input->dense.push_back(0.5F);
  ++input->rows;
}

// Newest first, as in serving.
inline void AddUser(const std::vector<std::int64_t>& history, TowerInput* input) {
  input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
  input->indices.push_back(0);
  input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
  input->indices.insert(input->indices.end(), history.begin(), history.end());
  input->dense.push_back(0.5F);
  ++input->rows;
}

// Another item of the batch, which is the target of its next pair.
inline void AddItem(std::int64_t item, TrainingBatch* batch) {
  batch->items.offsets.push_back(static_cast<std::int64_t>(batch->items.indices.size()));
  batch->items.indices.push_back(item);
  ++batch->items.rows;
  batch->numbers.push_back(item);
  batch->log_q.push_back(0);
  batch->targets.push_back(static_cast<std::int64_t>(batch->targets.size()));
  batch->weights.push_back(1);
}

inline double Apart(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double apart = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    apart = std::max(apart, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return apart;
}

// Two users with one pair each.
inline double StepOnce(TorchTrainer* trainer) {
  TowerInput users;
  TrainingBatch batch;
  for (const std::int64_t item : {2, 3}) {
    AddUser({item + 5}, &users);
    AddItem(item, &batch);
  }
  const Result<double> loss = trainer->Step(users, batch, 0.01);
  EXPECT_OK(loss);
  return loss.ok() ? *loss : 0;
}

}  // namespace freshet::test
