// The page that a training leaves behind: curves, baselines, neighbours by name, a map of the items.
//
// Place in the flow: the last step of Train(), from the package as it is served. One HTML file that loads nothing.
// Thread-compatible.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "freshet/core/status.h"
#include "freshet/encoder/evaluation.h"
#include "freshet/encoder/training.h"
#include "training_data.h"

namespace freshet {

struct ReportContents {
  const TrainOptions* options = nullptr;
  const TrainReport* training = nullptr;
  const TrainingData* data = nullptr;
  const EvaluationReport* judged = nullptr;  // the validation part; nullptr: no tables
  std::vector<float> item_vectors;           // by the served item tower, row after row
};

// What a person calls an item: its title, name or description, another text, or its id.
[[nodiscard]] std::string ItemName(const ItemUpdate& item);

[[nodiscard]] std::string TrainingReportHtml(const ReportContents& contents);

// Of the validation part the page judges by so many users, drawn by chance, as training does.
inline constexpr std::int64_t kMaxReportUsers = 5000;

// Judges the validation part, embeds the items by the package in options.out_directory, and writes
// `<out_directory>.report.html`. Returns its path. `progress` hears what share is done and what is judged; may be null.
[[nodiscard]] Result<std::string> WriteTrainingReport(
    const TrainOptions& options, const TrainReport& training, const TrainingData& data,
    const std::function<void(double fraction, const std::string& what)>& progress,
    std::int64_t max_users = kMaxReportUsers);

}  // namespace freshet
