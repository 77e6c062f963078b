// A training that takes a second: what tests of whole trainings begin with.
#pragma once

#include <string>

#include "freshet/encoder/training.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

// Of DIR/items.jsonl and DIR/interactions.jsonl, into DIR/`out`.
inline TrainOptions SmallTraining(const TempDir& dir, const std::string& out) {
  TrainOptions options;
  options.items_file = dir / "items.jsonl";
  options.interactions_file = dir / "interactions.jsonl";
  options.out_directory = dir / out;
  options.dim = 16;
  options.embedding_dim = 16;
  options.hidden = 32;
  options.batch_size = 128;
  options.learning_rate = 0.01;
  return options;
}

}  // namespace freshet::test
