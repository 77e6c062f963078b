#include "freshet/encoder/training.h"

#include <cmath>

#include "checkpoint.h"
#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "model_manifest.h"
#include "package_writer.h"
#include "training_data.h"
#include "training_log.h"
#include "training_report.h"
#include "training_run.h"

namespace freshet {

Status TrainOptions::Validate() const {
  const auto require = [](bool holds, std::string_view what) {
    return holds ? Status::Ok() : ConfigError(std::string(what));
  };
  FRESHET_TRY(require(!items_file.empty(), "an items file is wanted"));
  FRESHET_TRY(require(!interactions_file.empty(), "an interactions file is wanted"));
  FRESHET_TRY(require(!out_directory.empty(), "an output directory is wanted"));
  FRESHET_TRY(require(!name.empty() && !version.empty(), "a model needs a name and a version"));
  FRESHET_TRY(require(until_ms >= 0, "until must not be negative"));
  FRESHET_TRY(split.Validate());
  FRESHET_TRY(require(dim >= 2 && dim <= kMaxDim, StrCat("dim must be 2 to ", kMaxDim)));
  FRESHET_TRY(require(embedding_dim >= 1 && embedding_dim <= 1024, "the embedding dimension must be 1 to 1024"));
  FRESHET_TRY(require(hidden >= 1 && hidden <= 8192, "the hidden layer must have 1 to 8192 units"));
  FRESHET_TRY(require(layers >= 1 && layers <= 8, "the layers must be 1 to 8"));
  FRESHET_TRY(require(epochs >= 1 && epochs <= 10'000, "epochs must be 1 to 10000"));
  FRESHET_TRY(require(batch_size >= 2 && batch_size <= 65'536, "the batch size must be 2 to 65536"));
  FRESHET_TRY(require(history >= 1 && history <= 1000, "the history must be 1 to 1000 interactions"));
  FRESHET_TRY(require(learning_rate > 0 && learning_rate <= 1, "the learning rate must be above 0 and at most 1"));
  FRESHET_TRY(require(warmup >= 0 && warmup < 1, "the warm-up must be a share: at least 0 and below 1"));
  FRESHET_TRY(require(schedule == "linear" || schedule == "cosine" || schedule == "constant",
                      "the schedule must be linear, cosine or constant"));
  FRESHET_TRY(require(max_gradient_norm >= 0 && std::isfinite(max_gradient_norm),
                      "the norm of gradients must not be negative"));
  FRESHET_TRY(require(temperature >= 0.001 && temperature <= 10, "the temperature must be 0.001 to 10"));
  FRESHET_TRY(require(pooling == "mean" || pooling == "attention" || pooling == "gru" || pooling == "self-attention",
                      "the pooling must be mean, attention, gru or self-attention"));
  FRESHET_TRY(require(blocks >= 1 && blocks <= 8, "self-attention must have 1 to 8 blocks"));
  FRESHET_TRY(require(heads >= 1 && heads <= 64 && embedding_dim % heads == 0,
                      "the heads of self-attention must be 1 to 64 and divide the embedding dimension"));
  for (const FeatureRequest& request : features.users) {
    FRESHET_TRY(
        require(!ReadsSequence() || request.to != GapsTo::kNewest,
                StrCat(request.where, ": each place of a sequence answers for what comes next, so it must not know ",
                       "how long ago that was: with pooling ", pooling, " give `to: previous`")));
  }
  FRESHET_TRY(require(loss == "in-batch" || loss == "full", "the loss must be in-batch or full"));
  FRESHET_TRY(require(log_q >= 0 && log_q <= 2, "the weight of the logQ correction must be 0 to 2"));
  FRESHET_TRY(require(horizon >= 0 && horizon <= 1000, "the horizon must be 0 to 1000 interactions"));
  FRESHET_TRY(require(uniform_negatives >= 0 && uniform_negatives <= 65'536, "uniform negatives must be 0 to 65536"));
  FRESHET_TRY(require(hard_negatives >= 0 && hard_negatives <= 65'536, "hard negatives must be 0 to 65536"));
  FRESHET_TRY(
      require(hard_negatives == 0 || loss == "in-batch", "hard negatives belong to the in-batch loss: full has all"));
  FRESHET_TRY(require(dropout >= 0 && dropout < 1, "the dropout must be at least 0 and below 1"));
  FRESHET_TRY(require(history_dropout >= 0 && history_dropout < 1, "the history dropout must be at least 0, below 1"));
  FRESHET_TRY(require(stranger_share >= 0 && stranger_share < 1, "the share of strangers must be at least 0, below 1"));
  FRESHET_TRY(require(user_weight >= 0 && user_weight <= 2, "the user weight must be 0 to 2"));
  for (const auto& [event, weight] : event_weights) {
    FRESHET_TRY(require(!event.empty() && weight >= 0 && weight <= 1000,
                        StrCat("the weight of the event `", event, "` must be 0 to 1000")));
  }
  FRESHET_TRY(require(value_weight >= 0 && value_weight <= 2, "the value weight must be 0 to 2"));
  FRESHET_TRY(require(half_life_days >= 0, "the half-life must not be negative"));
  FRESHET_TRY(require(validation_k >= 1 && validation_k <= 10'000, "validation's K must be 1 to 10000"));
  FRESHET_TRY(require(patience >= 0, "the patience must not be negative"));
  FRESHET_TRY(require(id_dropout >= 0 && id_dropout < 1, "the id dropout must be at least 0 and below 1"));
  FRESHET_TRY(require(user_id_dropout >= 0 && user_id_dropout < 1, "the user id dropout must be at least 0, below 1"));
  FRESHET_TRY(require(precision == "fp32" || precision == "bf16", "the precision must be fp32 or bf16"));
  FRESHET_TRY(require(checkpoint_seconds >= 0, "the seconds between checkpoints must not be negative"));
  return require(threads >= 1 && threads <= 256, "threads must be 1 to 256");
}

Result<TrainReport> Train(const TrainOptions& options, const std::function<void(const TrainProgress&)>& progress,
                          const FindNearest& find_nearest) {
  FRESHET_TRY(options.Validate());
  if (options.hard_negatives > 0 && !find_nearest) return ConfigError("hard negatives want an index to be mined with");
  FRESHET_TRY(CheckReplaceable(options.out_directory));  // before hours are spent
  const SystemClock clock;
  const std::int64_t started_us = clock.MonotonicUs();
  FRESHET_ASSIGN(TrainingData data, LoadTrainingData(options));
  for (const std::string& warning : data.warnings) LogWarning("train", warning);
  TrainingLog log;
  const std::string log_file = PathBeside(options.out_directory, ".log.jsonl");
  FRESHET_TRY(log.Open(log_file, options.resume));
  log.Start(options, ResultSettings(options) + DataSettings(options));
  TrainProgress last;
  const auto tell = [&](const TrainProgress& state) {
    last = state;
    log.Progress(state);
    if (progress) progress(state);
  };
  FRESHET_ASSIGN(TrainReport report, RunTraining(options, &data, tell, find_nearest));
  report.log_file = log_file;
  FRESHET_TRY(FaultPoint("train.before_report"));
  if (options.report) {
    const Result<std::string> page =
        WriteTrainingReport(options, report, data, [&](double fraction, const std::string& what) {
          TrainProgress state = last;
          state.ended = false;
          state.fraction = fraction;
          state.reporting = what;
          tell(state);
        });
    if (page.ok()) {
      report.report_file = *page;
    } else {
      LogWarning("train", "the model is written, but its report could not be made",
                 {{"reason", page.status().message()}});
    }
  }
  // The page stays the chosen model's: what is trained on the validation part cannot be judged on it.
  if (options.refit) {
    FRESHET_ASSIGN(TrainingData all, LoadTrainingData(options, TrainOn::kValidationToo));
    report.refit_pairs = static_cast<std::int64_t>(all.examples.size());
    FRESHET_ASSIGN(report.space_id, RunRefit(options, report.best_epoch, &all, tell, find_nearest));
  }
  log.End(report);
  // All is in place: what is left of the way there is not needed any more.
  if (const Status removed = RemoveCheckpoints(options.out_directory); !removed.ok()) {
    LogWarning("train", "the model is written; a checkpoint is left", {{"reason", removed.message()}});
  }
  report.seconds = static_cast<double>(clock.MonotonicUs() - started_us) * 1e-6;
  return report;
}

}  // namespace freshet
