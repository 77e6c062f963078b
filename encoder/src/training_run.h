// One training, from extracted data to a package: epochs, checkpoints, the choice of the epoch.
//
// Place in the flow: called by Train() once the data is loaded. Not thread-safe.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "freshet/encoder/training.h"
#include "training_data.h"

namespace freshet {

// What decides the result, as lines of `name value`; a checkpoint is continued under the same only.
[[nodiscard]] std::string ResultSettings(const TrainOptions& options);
// What decides which data is trained and validated on, likewise, by names that begin with kOfData. A checkpoint is
// continued under others too where the data comes out the same.
inline constexpr std::string_view kOfData = "data_";
[[nodiscard]] std::string DataSettings(const TrainOptions& options);
// Of a pair in the loss, by what its interaction was; 0: it is no pair.
[[nodiscard]] double PairWeight(const TrainOptions& options, const std::string& event, double value);
// Of Adam, when the share `done` of all epochs is over.
[[nodiscard]] double LearningRate(const TrainOptions& options, double done);

// Checkpoints stay: Train() removes them when all is written. Of a large validation part a fixed sample stays in
// `data`. Errors as Train().
[[nodiscard]] Result<TrainReport> RunTraining(const TrainOptions& options, TrainingData* data,
                                              const std::function<void(const TrainProgress&)>& progress,
                                              const FindNearest& find_nearest);

// Trains on all of `data` for `epochs` epochs of the schedule of `options`, chooses nothing, and replaces the package.
// Returns its embedding space id. Its checkpoint is `<out_directory>.refit.checkpoint`.
[[nodiscard]] Result<std::string> RunRefit(const TrainOptions& options, int epochs, TrainingData* data,
                                           const std::function<void(const TrainProgress&)>& progress,
                                           const FindNearest& find_nearest);

}  // namespace freshet
