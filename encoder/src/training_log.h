// What a training says as it goes, one JSON object a line, for machines to read.
//
// Place in the flow: `<out_directory>.log.jsonl`, beside the package; appended to when a training is resumed. Lines:
// `start` (settings), `progress` and, while the page is made, `report` (at most one a second), `epoch`, `end`. Not
// thread-safe. A file that can no longer be written is warned about once; the training goes on.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "freshet/core/clock.h"
#include "freshet/encoder/training.h"

namespace freshet {

class TrainingLog {
 public:
  // Errors: kIoError.
  Status Open(const std::string& path, bool append);

  void Start(const TrainOptions& options, const std::string& settings);
  void Progress(const TrainProgress& state);
  void End(const TrainReport& report);

 private:
  void Write(const std::string& line);

  const SystemClock clock_;
  std::string path_;
  std::ofstream file_;
  std::int64_t last_us_ = 0;
  bool failed_ = false;
};

}  // namespace freshet
