#include "training_log.h"

#include <filesystem>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::int64_t kBetweenUs = 1'000'000;

}  // namespace

Status TrainingLog::Open(const std::string& path, bool append) {
  path_ = path;
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (!parent.empty()) FRESHET_TRY(CreateDirectories(parent));
  file_.open(path, append ? std::ios::app : std::ios::trunc);
  return file_ ? Status::Ok() : IoError(StrCat(path, ": cannot be written"));
}

void TrainingLog::Start(const TrainOptions& options, const std::string& settings) {
  JsonWriter out;
  out.BeginObject().Key("what").String("start").Key("time_ms").Int(clock_.WallMs());
  out.Key("model").String(options.out_directory).Key("resume").Bool(options.resume).Key("settings").BeginObject();
  for (const std::string& line : Split(settings, '\n')) {
    const std::size_t space = line.find(' ');
    if (space != std::string::npos) out.Key(line.substr(0, space)).String(line.substr(space + 1));
  }
  Write(out.EndObject().EndObject().Take());
}

void TrainingLog::Progress(const TrainProgress& state) {
  const bool end = state.ended;
  const std::int64_t now_us = clock_.MonotonicUs();
  if (!end && now_us - last_us_ < kBetweenUs) return;
  last_us_ = now_us;
  JsonWriter out;
  if (!state.reporting.empty()) {
    out.BeginObject().Key("what").String("report").Key("time_ms").Int(clock_.WallMs());
    Write(out.Key("judging").String(state.reporting).Key("fraction").Double(state.fraction).EndObject().Take());
    return;
  }
  out.BeginObject().Key("what").String(end ? "epoch" : "progress").Key("time_ms").Int(clock_.WallMs());
  out.Key("epoch").Int(state.epoch).Key("epochs").Int(state.epochs).Key("refit").Bool(state.refit);
  out.Key("fraction").Double(state.fraction);
  out.Key("loss").Double(state.loss).Key("examples_per_second").Double(state.examples_per_second);
  out.Key("seconds").Double(state.seconds).Key("seconds_left").Double(state.seconds_left);
  // In a refit nothing is validated.
  if (end && state.recall >= 0) out.Key("recall").Double(state.recall).Key("popularity").Double(state.popularity);
  Write(out.EndObject().Take());
}

void TrainingLog::End(const TrainReport& report) {
  JsonWriter out;
  out.BeginObject().Key("what").String("end").Key("time_ms").Int(clock_.WallMs());
  out.Key("embedding_space_id").String(report.space_id).Key("best_epoch").Int(report.best_epoch);
  out.Key("recall").Double(report.recall).Key("popularity").Double(report.popularity_recall);
  Write(out.Key("loss").Double(report.final_loss).EndObject().Take());
}

void TrainingLog::Write(const std::string& line) {
  if (failed_) return;
  file_ << line << "\n" << std::flush;
  if (file_) return;
  failed_ = true;
  LogWarning("train", "the log can no longer be written; training goes on", {{"file", path_}});
}

}  // namespace freshet
