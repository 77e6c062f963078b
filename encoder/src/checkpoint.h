// Where an unfinished training stands, on disk.
//
// Place in the flow: written by training.cc between two batches, read by `freshet train --resume`. A file holds one
// state completely or is refused: temporary file, fsync, rename; a checksum over all of it is checked before a field is
// read. The format is in README.md. Stateless functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/training.h"
#include "torch_trainer.h"

namespace freshet {

// What the best epoch leaves behind.
struct KeptEpoch {
  int epoch = 0;  // 0: none yet
  double recall = -1;
  double loss = 0;
  std::vector<TowerParameter> item;
  std::vector<TowerParameter> user;
  std::vector<float> golden_items;  // the vectors of the goldens, row after row
  std::vector<float> golden_users;
};

struct TrainingCheckpoint {
  std::string settings;              // lines of `name value`: what decides the result
  std::string data;                  // fingerprint of what is trained on
  int epoch = 1;                     // the one under way
  std::int64_t step = 0;             // its next batch; at 0 its order is not yet drawn
  double loss_sum = 0;               // over the batches before
  double seconds = 0;                // spent so far
  std::vector<std::uint32_t> order;  // of the examples
  std::vector<std::int32_t> mined;   // hard negatives, kMinedPerUser a user; empty: none yet
  std::string random;                // of orders, histories and negatives; text of std::mt19937_64
  TrainerState trainer;
  KeptEpoch best;
  std::vector<EpochRecord> epochs;  // those that are over
};

// Of the training whose package becomes `out_directory`, or of its refit; both lie beside it.
[[nodiscard]] std::string CheckpointPath(const std::string& out_directory, bool refit);
// Both, where they are; that of the refit first, which is worth nothing without the other. Errors: kIoError.
Status RemoveCheckpoints(const std::string& out_directory);

[[nodiscard]] std::string EncodeCheckpoint(const TrainingCheckpoint& checkpoint);
// Errors: kCorruption, kFailedPrecondition (written by another version of freshet).
[[nodiscard]] Result<TrainingCheckpoint> DecodeCheckpoint(std::string_view bytes);

// Ok when `written` may be continued as a training with `settings` over `data`. Errors: kFailedPrecondition, naming the
// first setting that differs; of those of the data only where the data differs.
Status CheckContinues(const TrainingCheckpoint& written, const std::string& settings, const std::string& data);

}  // namespace freshet
