#include "training_run.h"

#include <algorithm>
#include <filesystem>
#include <random>
#include <sstream>

#include "batch_sampler.h"
#include "checkpoint.h"
#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "goldens.h"
#include "input_cache.h"
#include "model_manifest.h"
#include "package_writer.h"
#include "tower_encoders.h"
#include "validator.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxValidationUsers = 5000;  // beyond, a fixed sample
constexpr std::size_t kGoldenRows = 4;
constexpr std::size_t kMineUsers = 512;      // in one call
constexpr int kMineNearest = 64;             // looked at, to find kMinedPerUser that the user did not take
constexpr std::int64_t kProgressEvery = 20;  // batches
constexpr std::size_t kMaxCheckpointBytes = std::size_t{1} << 36;

const TrainingData& WithBoundedValidation(TrainingData* data, std::mt19937_64* random) {
  if (data->validation.size() > kMaxValidationUsers) {
    Shuffle(&data->validation, random);
    data->validation.resize(kMaxValidationUsers);
  }
  return *data;
}

Pooling PoolingOf(const std::string& name) {
  if (name == "attention") return Pooling::kAttention;
  if (name == "gru") return Pooling::kGru;
  return name == "self-attention" ? Pooling::kSelfAttention : Pooling::kMean;
}

TrainerOptions TrainerOptionsOf(const TrainOptions& options, const TrainingData& data, const InputCache& cache) {
  TrainerOptions trainer;
  trainer.item.shape = ShapeOf(data.item_spec, options.dim);
  trainer.item.embedding_dim = options.embedding_dim;
  trainer.item.hidden = options.hidden;
  trainer.item.layers = options.layers;
  trainer.item.dropout = options.dropout;
  trainer.item.batch_norm = options.batch_norm;
  trainer.user = trainer.item;
  trainer.user.shape = ShapeOf(data.user_spec, options.dim);
  trainer.user.pooling = PoolingOf(options.pooling);
  trainer.user.history_bag = cache.history_bag();
  trainer.user.history_beside = cache.history_beside();
  trainer.user.history = options.history;
  trainer.user.blocks = options.blocks;
  trainer.user.heads = options.heads;
  trainer.temperature = options.temperature;
  trainer.learn_temperature = options.learn_temperature;
  trainer.max_gradient_norm = options.max_gradient_norm;
  if (options.share_items) trainer.shared_rows = cache.SharedRows();
  trainer.seed = options.seed;
  trainer.device = options.device;
  trainer.bf16 = options.precision == "bf16";
  return trainer;
}

// Whether the package names the user anyhow, by a row of his own.
bool IsNamed(const FeatureSpec& spec, const std::string& user_id) {
  for (std::size_t f = 0; f < spec.features.size(); ++f) {
    if (spec.features[f].name == "user_id") return RowOf(spec, f, user_id) != BucketRowOf(spec, f, user_id);
  }
  return false;
}

// The first items, one that nobody knows, the first validation users and a stranger; their vectors are computed by the
// network in training, through the same extraction as in serving. A package outlives that a user is forgotten, so it
// does not say who they are.
Goldens GoldenInputs(const TrainOptions& options, const TrainingData& data) {
  Goldens goldens;
  const std::size_t count = std::min(kGoldenRows, data.items.size());
  goldens.items.assign(data.items.begin(), data.items.begin() + static_cast<std::ptrdiff_t>(count));
  for (ItemUpdate& item : goldens.items) item.attributes.clear();
  goldens.items.emplace_back().item_id = "golden-unknown-item";
  const std::size_t users = data.validation.empty() ? data.users.size() : data.validation.size();
  for (std::size_t i = 0; i < std::min(kGoldenRows, users); ++i) {
    const auto number = data.validation.empty() ? i : static_cast<std::size_t>(data.validation[i].user);
    UserContext user = data.users[number];
    if (!IsNamed(data.user_spec, user.user_id)) user.user_id = StrCat("golden-user-", i + 1);
    for (std::size_t at = 0; at < data.sequences[number].size(); ++at) {
      const auto item = static_cast<std::size_t>(data.sequences[number][at]);
      const auto event = static_cast<std::size_t>(data.sequence_events[number][at]);
      user.history.push_back(
          {data.items[item].item_id, data.event_names[event], 1.0, data.sequence_times_ms[number][at]});
    }
    const std::size_t keep = std::min(user.history.size(), static_cast<std::size_t>(options.history));
    user.history.erase(user.history.begin(), user.history.end() - static_cast<std::ptrdiff_t>(keep));
    goldens.users.push_back(std::move(user));
  }
  goldens.users.emplace_back().user_id = "golden-unknown-user";
  return goldens;
}

bool SameShapes(const std::vector<TowerParameter>& a, const std::vector<TowerParameter>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TowerParameter& x, const TowerParameter& y) {
    return x.name == y.name && x.shape == y.shape;
  });
}

class TrainingRun {
 public:
  // `refit_epochs` 0: the best epoch on validation is kept; else the last of so many.
  TrainingRun(const TrainOptions& options, int refit_epochs, TrainingData* data,
              const std::function<void(const TrainProgress&)>& progress, const FindNearest& find_nearest)
      : options_(options),
        refit_(refit_epochs > 0),
        last_epoch_(refit_ ? refit_epochs : options.epochs),
        progress_(progress),
        find_nearest_(find_nearest),
        random_(options.seed),
        data_(WithBoundedValidation(data, &random_)),
        cache_(data_),
        goldens_(GoldenInputs(options, data_)),
        checkpoint_path_(CheckpointPath(options.out_directory, refit_)),
        sampler_(options_, data_, cache_, &random_),
        validator_(options_, data_, cache_) {}

  Result<TrainReport> Run() {
    InitTorch(options_.threads);
    FRESHET_ASSIGN(trainer_, TorchTrainer::Create(TrainerOptionsOf(options_, data_, cache_)));
    at_.settings = ResultSettings(options_);
    if (refit_) at_.settings += StrCat("refit_epochs ", last_epoch_, "\n");
    at_.settings += DataSettings(options_);
    at_.data = cache_.Fingerprint(data_);
    FRESHET_TRY(BeginOrResume());
    if (!refit_) popularity_ = validator_.PopularityRecall();
    while (at_.epoch <= last_epoch_ && !OutOfPatience()) FRESHET_TRY(Epoch());
    TrainReport report;
    FRESHET_ASSIGN(report.space_id, Write());
    report.items = static_cast<std::int64_t>(data_.items.size());
    report.users = static_cast<std::int64_t>(data_.users.size());
    report.train_pairs = static_cast<std::int64_t>(data_.examples.size());
    report.validation_users = static_cast<std::int64_t>(data_.validation.size());
    report.final_loss = at_.best.loss;
    report.recall = at_.best.recall;
    report.popularity_recall = popularity_;
    report.best_epoch = at_.best.epoch;
    report.resumed = resumed_;
    report.epochs = at_.epochs;
    return report;
  }

 private:
  [[nodiscard]] bool OutOfPatience() const {
    return !refit_ && options_.patience > 0 && at_.epoch - 1 - at_.best.epoch >= options_.patience;
  }
  [[nodiscard]] double Seconds() const {
    return seconds_before_ + static_cast<double>(clock_.MonotonicUs() - started_us_) * 1e-6;
  }

  Status BeginOrResume() {
    const bool exists = FileExists(checkpoint_path_);
    if (options_.resume && exists) {
      resumed_ = true;
      return Resume().Prefixed(checkpoint_path_);
    }
    if (exists) {
      LogWarning("train", "an unfinished training is started anew (--resume would have continued it)",
                 {{"checkpoint", checkpoint_path_}});
    } else if (options_.resume) {
      LogInfo("train", "nothing to resume: training from the beginning", {{"checkpoint", checkpoint_path_}});
    }
    // What another training left would stand in the way of resuming this one.
    return refit_ ? Status::Ok() : RemoveCheckpoints(options_.out_directory);
  }

  Status Resume() {
    FRESHET_ASSIGN(const std::string bytes, ReadFile(checkpoint_path_, kMaxCheckpointBytes));
    FRESHET_ASSIGN(TrainingCheckpoint from, DecodeCheckpoint(bytes));
    FRESHET_TRY(CheckContinues(from, at_.settings, at_.data));
    const auto refuse = [](std::string_view what) { return Corruption(StrCat("the checkpoint ", what)); };
    if (from.epoch > last_epoch_ + 1 || from.step >= sampler_.steps_per_epoch() || from.best.epoch >= from.epoch ||
        from.epochs.size() + 1 != static_cast<std::size_t>(from.epoch)) {
      return refuse("stands outside of the training");
    }
    if (!sampler_.SetOrder(from.order)) return refuse("does not hold each example once");
    if (!sampler_.SetMined(std::move(from.mined))) return refuse("holds negatives that are no items");
    std::istringstream random(from.random);
    if (!(random >> random_)) return refuse("holds no state of the random generator");
    if (from.best.epoch > 0) {
      const auto dim = static_cast<std::size_t>(options_.dim);
      if (!SameShapes(from.best.item, trainer_->Parameters(Side::kItem)) ||
          !SameShapes(from.best.user, trainer_->Parameters(Side::kUser)) ||
          from.best.golden_items.size() != goldens_.items.size() * dim ||
          from.best.golden_users.size() != goldens_.users.size() * dim) {
        return refuse("keeps an epoch of other towers");
      }
    }
    FRESHET_TRY(trainer_->Restore(from.trainer));
    LogInfo("train", "resumed", {{"epoch", StrCat(from.epoch)}, {"batch", StrCat(from.step)}});
    from.trainer = {};
    seconds_before_ = from.seconds;
    at_ = std::move(from);
    return Status::Ok();
  }

  // A training goes on without: what is lost is only that it could be resumed from here.
  void SaveCheckpoint() {
    saved_us_ = clock_.MonotonicUs();
    at_.seconds = Seconds();
    at_.order = sampler_.order();
    at_.mined = sampler_.mined();
    std::ostringstream random;
    random << random_;
    at_.random = std::move(random).str();
    at_.trainer = trainer_->State();
    if (!parent_made_) {
      const std::string parent = std::filesystem::path(checkpoint_path_).parent_path().string();
      parent_made_ = parent.empty() || CreateDirectories(parent).ok();
    }
    if (const Status status = WriteFileAtomically(checkpoint_path_, EncodeCheckpoint(at_)); !status.ok()) {
      LogWarning("train", "no checkpoint could be written; training goes on",
                 {{"checkpoint", checkpoint_path_}, {"reason", status.message()}});
    }
    at_.trainer = {};
  }

  [[nodiscard]] bool CheckpointDue() const {
    return static_cast<double>(clock_.MonotonicUs() - saved_us_) * 1e-6 >= options_.checkpoint_seconds;
  }

  Status Epoch() {
    const std::int64_t steps = sampler_.steps_per_epoch();
    const std::int64_t started_us = clock_.MonotonicUs();
    TrainProgress state;
    state.epoch = at_.epoch;
    state.epochs = last_epoch_;
    state.refit = refit_;
    if (!refit_) {
      state.popularity = popularity_;
      if (!at_.epochs.empty()) state.recall = at_.epochs.back().recall;
    }
    if (at_.step == 0) {
      if (options_.hard_negatives > 0 && at_.epoch > 1) FRESHET_TRY(Mine());
      sampler_.StartEpoch();
    }
    const std::int64_t first_step = at_.step;
    std::size_t pairs = 0;
    while (at_.step < steps) {
      pairs += sampler_.Fill(at_.step);
      const double done = static_cast<double>(at_.step) / static_cast<double>(steps);
      const double all_done = (at_.epoch - 1 + done) / options_.epochs;
      FRESHET_ASSIGN(const double loss,
                     trainer_->Step(sampler_.users(), sampler_.batch(), LearningRate(options_, all_done)));
      at_.loss_sum += loss;
      ++at_.step;
      FRESHET_TRY(FaultPoint("train.after_batch"));
      if (at_.step == steps) break;
      if (CheckpointDue()) SaveCheckpoint();
      if (progress_ && (at_.step - first_step) % kProgressEvery == 1) Report(pairs, started_us, &state);
    }
    FRESHET_TRY(FaultPoint("train.before_validation"));
    if (!refit_) {
      FRESHET_ASSIGN(state.recall, validator_.Recall(*trainer_));
    }
    state.ended = true;
    Report(pairs, started_us, &state);
    at_.epochs.push_back({at_.epoch, state.loss, state.recall, Seconds()});
    if (refit_ ? at_.epoch == last_epoch_ : state.recall > at_.best.recall) FRESHET_TRY(Keep(state));
    ++at_.epoch;
    at_.step = 0;
    at_.loss_sum = 0;
    SaveCheckpoint();
    return FaultPoint("train.after_epoch");
  }

  // What the towers, as they are now, would recommend to each user and the user did not take.
  Status Mine() {
    FRESHET_ASSIGN(const std::vector<float> items, validator_.EmbedItems(*trainer_));
    std::vector<std::int32_t> mined(data_.users.size() * kMinedPerUser, -1);
    std::vector<std::size_t> numbers;
    TowerInput users;
    for (std::size_t user = 0; user < data_.users.size(); ++user) {
      if (!data_.sequences[user].empty()) {
        numbers.push_back(user);
        cache_.AppendUser(static_cast<std::int32_t>(user), &users);
      }
      if (numbers.empty() || (numbers.size() < kMineUsers && user + 1 < data_.users.size())) continue;
      FRESHET_ASSIGN(const std::vector<float> queries, trainer_->Embed(Side::kUser, users));
      FRESHET_ASSIGN(const auto found, find_nearest_(items, queries, options_.dim, kMineNearest));
      if (found.size() != numbers.size()) return Internal("the index answered for other users than were asked");
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        const std::vector<std::int32_t>& taken = data_.sequences[numbers[i]];
        std::size_t at = numbers[i] * kMinedPerUser;
        for (const std::int32_t item : found[i]) {
          if (at == (numbers[i] + 1) * kMinedPerUser) break;
          if (std::find(taken.begin(), taken.end(), item) == taken.end()) mined[at++] = item;
        }
      }
      numbers.clear();
      users.Clear();
    }
    return sampler_.SetMined(std::move(mined)) ? Status::Ok() : Internal("the index answered with what is no item");
  }

  void Report(std::size_t pairs, std::int64_t started_us, TrainProgress* state) {
    const double elapsed = static_cast<double>(clock_.MonotonicUs() - started_us) * 1e-6;
    state->loss = at_.loss_sum / static_cast<double>(at_.step);
    state->fraction = static_cast<double>(at_.step) / static_cast<double>(sampler_.steps_per_epoch());
    state->examples_per_second = static_cast<double>(pairs) / std::max(elapsed, 1e-9);
    state->seconds = Seconds();
    const double share = (state->epoch - 1 + state->fraction) / state->epochs;
    state->seconds_left = state->seconds * (1 - share) / std::max(share, 1e-9);
    if (progress_) progress_(*state);
  }

  Status Keep(const TrainProgress& state) {
    KeptEpoch& best = at_.best;
    best.epoch = state.epoch;
    best.recall = state.recall;
    best.loss = state.loss;
    best.item = trainer_->Parameters(Side::kItem);
    best.user = trainer_->Parameters(Side::kUser);
    TowerInput input;
    for (const ItemUpdate& item : goldens_.items) AppendItem(data_.item_spec, item, &input);
    FRESHET_ASSIGN(best.golden_items, trainer_->Embed(Side::kItem, input));
    input.Clear();
    for (const UserContext& user : goldens_.users) AppendUser(data_.user_spec, user, &input);
    FRESHET_ASSIGN(best.golden_users, trainer_->Embed(Side::kUser, input));
    return Status::Ok();
  }

  // Both towers are loaded and must agree with the network that was trained before anything is written.
  Result<std::string> Write() {
    const KeptEpoch& best = at_.best;
    PackageContents contents;
    contents.manifest.name = options_.name;
    contents.manifest.version = options_.version;
    contents.manifest.dim = options_.dim;
    contents.manifest.item = data_.item_spec;
    contents.manifest.user = data_.user_spec;
    contents.manifest.library_version = "LibTorch " + TorchVersion();
    contents.goldens = goldens_;
    const auto dim = static_cast<std::ptrdiff_t>(options_.dim);
    auto row = best.golden_items.begin();
    for (ItemUpdate& item : contents.goldens.items) {
      item.vector.assign(row, row + dim);
      row += dim;
    }
    for (row = best.golden_users.begin(); row != best.golden_users.end(); row += dim) {
      contents.goldens.user_vectors.emplace_back(row, row + dim);
    }
    FRESHET_ASSIGN(contents.item_tower, SerializeTower(best.item, trainer_->ForwardSource(Side::kItem)));
    FRESHET_ASSIGN(contents.user_tower, SerializeTower(best.user, trainer_->ForwardSource(Side::kUser)));

    const Metric metric = contents.manifest.metric;
    FRESHET_ASSIGN(std::unique_ptr<Tower> item,
                   Tower::Load(contents.item_tower, ShapeOf(data_.item_spec, options_.dim)));
    FRESHET_TRY(CheckGoldens(
        contents.goldens, metric,
        MakeTowerItemEncoder(contents.manifest, std::move(item), contents.goldens, options_.out_directory).get()));
    FRESHET_ASSIGN(std::unique_ptr<Tower> user,
                   Tower::Load(contents.user_tower, ShapeOf(data_.user_spec, options_.dim)));
    FRESHET_TRY(CheckGoldens(contents.goldens, metric, *MakeTowerUserEncoder(contents.manifest, std::move(user))));
    return WritePackage(std::move(contents), options_.out_directory);
  }

  const TrainOptions& options_;
  const bool refit_;
  const int last_epoch_;
  const std::function<void(const TrainProgress&)>& progress_;
  const FindNearest& find_nearest_;
  std::mt19937_64 random_;
  const TrainingData& data_;
  const InputCache cache_;
  const Goldens goldens_;  // without vectors
  const std::string checkpoint_path_;
  BatchSampler sampler_;
  Validator validator_;
  std::unique_ptr<TorchTrainer> trainer_;
  const SystemClock clock_;
  const std::int64_t started_us_ = clock_.MonotonicUs();
  std::int64_t saved_us_ = started_us_;
  double seconds_before_ = 0;  // the resumption
  double popularity_ = 0;
  bool resumed_ = false;
  bool parent_made_ = false;
  // Where the training stands. Order, generators and trainer live elsewhere; they are put in when it is written.
  TrainingCheckpoint at_;
};

}  // namespace

Result<TrainReport> RunTraining(const TrainOptions& options, TrainingData* data,
                                const std::function<void(const TrainProgress&)>& progress,
                                const FindNearest& find_nearest) {
  return TrainingRun(options, 0, data, progress, find_nearest).Run();
}

Result<std::string> RunRefit(const TrainOptions& options, int epochs, TrainingData* data,
                             const std::function<void(const TrainProgress&)>& progress,
                             const FindNearest& find_nearest) {
  FRESHET_ASSIGN(TrainReport report, TrainingRun(options, epochs, data, progress, find_nearest).Run());
  return std::move(report.space_id);
}

}  // namespace freshet
