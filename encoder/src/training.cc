#include "freshet/encoder/training.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "freshet/core/clock.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "goldens.h"
#include "model_manifest.h"
#include "package_writer.h"
#include "torch_trainer.h"
#include "tower_encoders.h"
#include "training_data.h"

namespace freshet {
namespace {

constexpr std::size_t kEmbedRows = 4096;
constexpr std::size_t kScoreRows = 64;
constexpr std::size_t kMaxValidationUsers = 5000;  // beyond, a fixed sample
constexpr std::size_t kGoldenRows = 4;
constexpr std::size_t kProgressEvery = 20;  // batches

// Our own, because std::shuffle gives different orders in different standard libraries.
template <typename T>
void Shuffle(std::vector<T>* values, std::mt19937_64* random) {
  for (std::size_t i = values->size(); i > 1; --i) std::swap((*values)[i - 1], (*values)[(*random)() % i]);
}

double UnitInterval(std::mt19937_64* random) { return static_cast<double>((*random)() >> 11) * 0x1.0p-53; }

// What a kept epoch leaves behind.
struct Kept {
  int epoch = 0;
  double recall = -1;
  double loss = 0;
  std::vector<TowerParameter> item;
  std::vector<TowerParameter> user;
  Goldens goldens;
};

class Training {
 public:
  Training(const TrainOptions& options, TrainingData data, const std::function<void(const TrainProgress&)>& progress)
      : options_(options), data_(std::move(data)), cache_(data_), progress_(progress), random_(options.seed) {}

  Result<TrainReport> Run() {
    InitTorch(options_.threads);
    Prepare();
    const bool attention = options_.pooling == "attention";
    const TrainerOptions trainer{options_.embedding_dim,
                                 options_.hidden,
                                 options_.history,
                                 options_.temperature,
                                 options_.dropout,
                                 attention ? cache_.history_bag() : -1,
                                 options_.share_items ? cache_.SharedRows() : std::vector<std::int64_t>(),
                                 options_.seed};
    FRESHET_ASSIGN(trainer_, TorchTrainer::Create(trainer, ShapeOf(data_.item_spec, options_.dim),
                                                  ShapeOf(data_.user_spec, options_.dim)));
    const double popularity = PopularityRecall();
    Kept best;
    for (int epoch = 1; epoch <= options_.epochs; ++epoch) {
      TrainProgress state;
      state.epoch = epoch;
      state.epochs = options_.epochs;
      state.popularity = popularity;
      FRESHET_TRY(Epoch(&state));
      FRESHET_ASSIGN(state.recall, Recall());
      state.fraction = 1;
      if (state.recall > best.recall) FRESHET_TRY(Keep(state, &best));
      if (progress_) progress_(state);
      if (options_.patience > 0 && epoch - best.epoch >= options_.patience) break;
    }
    TrainReport report;
    FRESHET_ASSIGN(report.space_id, Write(best));
    report.items = static_cast<std::int64_t>(data_.items.size());
    report.users = static_cast<std::int64_t>(data_.users.size());
    report.train_pairs = static_cast<std::int64_t>(data_.examples.size());
    report.validation_users = static_cast<std::int64_t>(data_.validation.size());
    report.final_loss = best.loss;
    report.recall = best.recall;
    report.popularity_recall = popularity;
    report.best_epoch = best.epoch;
    return report;
  }

 private:
  void Prepare() {
    log_q_.reserve(data_.items.size());
    for (const std::int64_t count : data_.item_counts) {
      const double share =
          static_cast<double>(std::max<std::int64_t>(count, 1)) / static_cast<double>(data_.examples.size());
      log_q_.push_back(static_cast<float>(std::log(share)));
    }
    if (data_.validation.size() > kMaxValidationUsers) {
      Shuffle(&data_.validation, &random_);
      data_.validation.resize(kMaxValidationUsers);
    }
    const auto examples = data_.examples.size();
    const auto batch = static_cast<std::size_t>(options_.batch_size);
    steps_per_epoch_ = std::max<std::size_t>(1, examples / batch);
  }

  // The history of an example: everything before it, or only what is of an earlier time, by turns. The first teaches
  // what belongs into one basket, the second what people come back for; a request may stand at either moment. A share
  // of it is left out, a different one each epoch, so that no single item of a history is learned by heart.
  [[nodiscard]] std::span<const std::int32_t> HistoryOf(const TrainingExample& example) {
    if (options_.stranger_share > 0 && UnitInterval(&random_) < options_.stranger_share) return {};
    const std::int32_t end = UnitInterval(&random_) < 0.5 ? example.earlier : example.position;
    const std::size_t count = std::min(static_cast<std::size_t>(end), static_cast<std::size_t>(options_.history));
    const auto newest = std::span(data_.sequences[static_cast<std::size_t>(example.user)])
                            .subspan(static_cast<std::size_t>(end) - count, count);
    history_.clear();
    for (const std::int32_t item : newest) {
      if (UnitInterval(&random_) >= options_.history_dropout) history_.push_back(item);
    }
    return history_;
  }

  Status Epoch(TrainProgress* state) {
    const auto started = std::chrono::steady_clock::now();
    Shuffle(&data_.examples, &random_);
    double loss_sum = 0;
    std::size_t seen = 0;
    for (std::size_t step = 0; step < steps_per_epoch_; ++step) {
      // The remainder that fills no batch is part of another epoch's batches: each epoch has its own order.
      const std::size_t begin = step * data_.examples.size() / steps_per_epoch_;
      const std::size_t end = (step + 1) * data_.examples.size() / steps_per_epoch_;
      users_.Clear();
      batch_.Clear();
      for (std::size_t i = begin; i < end; ++i) AddExample(data_.examples[i]);
      AddNegatives();
      // Falls linearly to a tenth.
      const double done =
          (static_cast<double>(state->epoch - 1) + static_cast<double>(step) / static_cast<double>(steps_per_epoch_)) /
          static_cast<double>(options_.epochs);
      FRESHET_ASSIGN(const double loss, trainer_->Step(users_, batch_, options_.learning_rate * (1 - 0.9 * done)));
      loss_sum += loss;
      seen += end - begin;
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
      state->loss = loss_sum / static_cast<double>(step + 1);
      state->fraction = static_cast<double>(end) / static_cast<double>(data_.examples.size());
      state->examples_per_second = static_cast<double>(seen) / std::max(elapsed.count(), 1e-9);
      if (progress_ && step % kProgressEvery == 0 && end < data_.examples.size()) progress_(*state);
    }
    return Status::Ok();
  }

  void AddExample(const TrainingExample& example) {
    const std::vector<std::int32_t>& sequence = data_.sequences[static_cast<std::size_t>(example.user)];
    const std::int32_t item = sequence[static_cast<std::size_t>(example.position)];
    cache_.AppendUser(example.user, HistoryOf(example), &users_);
    batch_.weights.push_back(static_cast<float>(std::pow(static_cast<double>(sequence.size()), -options_.user_weight)));
    if (options_.loss == "full") {
      batch_.targets.push_back(item);
      return;
    }
    batch_.targets.push_back(batch_.items.rows);
    AddItem(item, log_q_[static_cast<std::size_t>(item)]);
  }

  void AddItem(std::int32_t item, float log_q) {
    cache_.AppendItem(item, UnitInterval(&random_) < options_.id_dropout, &batch_.items);
    batch_.numbers.push_back(item);
    batch_.log_q.push_back(log_q);
  }

  // Those that no pair of the batch brings: the whole catalogue, or a few drawn evenly from it.
  void AddNegatives() {
    const std::size_t count = data_.items.size();
    if (options_.loss == "full") {
      for (std::size_t i = 0; i < count; ++i) AddItem(static_cast<std::int32_t>(i), 0);
      return;
    }
    const auto pairs = static_cast<double>(batch_.targets.size());
    const auto drawn = static_cast<double>(options_.uniform_negatives);
    if (drawn == 0) return;
    // A column's share is now that of the mixture (Yang et al., "Mixed negative sampling", WWW 2020).
    const auto mixed = [&](std::size_t item) {
      const double share = std::exp(static_cast<double>(log_q_[item]));
      return static_cast<float>(std::log((pairs * share + drawn / static_cast<double>(count)) / (pairs + drawn)));
    };
    for (std::size_t i = 0; i < batch_.log_q.size(); ++i) {
      batch_.log_q[i] = mixed(static_cast<std::size_t>(batch_.numbers[i]));
    }
    for (int i = 0; i < options_.uniform_negatives; ++i) {
      const std::size_t item = random_() % count;
      AddItem(static_cast<std::int32_t>(item), mixed(item));
    }
  }

  Result<std::vector<float>> EmbedItems() {
    std::vector<float> vectors;
    for (std::size_t begin = 0; begin < data_.items.size(); begin += kEmbedRows) {
      items_.Clear();
      const std::size_t end = std::min(begin + kEmbedRows, data_.items.size());
      for (std::size_t i = begin; i < end; ++i) cache_.AppendItem(static_cast<std::int32_t>(i), false, &items_);
      FRESHET_ASSIGN(const std::vector<float> chunk, trainer_->Embed(Side::kItem, items_));
      vectors.insert(vectors.end(), chunk.begin(), chunk.end());
    }
    return vectors;
  }

  // Recommendation recall: for each validation user the share of their items among the best 100 of all items, averaged
  // over users.
  Result<double> Recall() {
    FRESHET_ASSIGN(const std::vector<float> items, EmbedItems());
    double sum = 0;
    for (std::size_t begin = 0; begin < data_.validation.size(); begin += kScoreRows) {
      const std::size_t end = std::min(begin + kScoreRows, data_.validation.size());
      users_.Clear();
      for (std::size_t i = begin; i < end; ++i) {
        const std::int32_t user = data_.validation[i].user;
        cache_.AppendUser(user, data_.sequences[static_cast<std::size_t>(user)], &users_);
      }
      FRESHET_ASSIGN(const std::vector<float> users, trainer_->Embed(Side::kUser, users_));
      std::vector<float> scores((end - begin) * data_.items.size());
      FRESHET_TRY(InnerProducts(users, items, options_.dim, scores));
      for (std::size_t i = begin; i < end; ++i) {
        sum += RecallOf(data_.validation[i],
                        std::span(scores).subspan((i - begin) * data_.items.size(), data_.items.size()));
      }
    }
    return sum / static_cast<double>(data_.validation.size());
  }

  [[nodiscard]] double PopularityRecall() {
    double sum = 0;
    for (const ValidationCase& one : data_.validation) {
      std::vector<float> scores(data_.item_counts.begin(), data_.item_counts.end());
      sum += RecallOf(one, scores);
    }
    return sum / static_cast<double>(data_.validation.size());
  }

  double RecallOf(const ValidationCase& one, std::span<float> scores) {
    if (options_.mask_seen) {
      for (const std::int32_t seen : data_.sequences[static_cast<std::size_t>(one.user)]) {
        scores[static_cast<std::size_t>(seen)] = -1e30F;
      }
    }
    order_.resize(scores.size());
    std::iota(order_.begin(), order_.end(), 0);
    const std::size_t top = std::min(static_cast<std::size_t>(options_.validation_k), order_.size());
    std::nth_element(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(top - 1), order_.end(),
                     [&](std::int32_t a, std::int32_t b) {
                       const float x = scores[static_cast<std::size_t>(a)];
                       const float y = scores[static_cast<std::size_t>(b)];
                       return x != y ? x > y : a < b;
                     });
    const auto hits =
        std::count_if(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(top),
                      [&](std::int32_t item) { return std::binary_search(one.items.begin(), one.items.end(), item); });
    return static_cast<double>(hits) / static_cast<double>(one.items.size());
  }

  Status Keep(const TrainProgress& state, Kept* kept) {
    kept->epoch = state.epoch;
    kept->recall = state.recall;
    kept->loss = state.loss;
    kept->item = trainer_->Parameters(Side::kItem);
    kept->user = trainer_->Parameters(Side::kUser);
    return MakeGoldens(&kept->goldens);
  }

  // The first items, one that nobody knows, the first validation users and a stranger: computed by the network in
  // training, through the same extraction as in serving.
  Status MakeGoldens(Goldens* goldens) {
    *goldens = Goldens{};
    const std::size_t count = std::min(kGoldenRows, data_.items.size());
    goldens->items.assign(data_.items.begin(), data_.items.begin() + static_cast<std::ptrdiff_t>(count));
    goldens->items.emplace_back().item_id = "golden-unknown-item";
    for (std::size_t i = 0; i < std::min(kGoldenRows, data_.validation.size()); ++i) {
      const auto number = static_cast<std::size_t>(data_.validation[i].user);
      UserContext user = data_.users[number];
      for (const std::int32_t item : data_.sequences[number]) {
        user.history.push_back({data_.items[static_cast<std::size_t>(item)].item_id, "purchase", 1.0, 0});
      }
      const std::size_t keep = std::min(user.history.size(), static_cast<std::size_t>(options_.history));
      user.history.erase(user.history.begin(), user.history.end() - static_cast<std::ptrdiff_t>(keep));
      goldens->users.push_back(std::move(user));
    }
    goldens->users.emplace_back().user_id = "golden-unknown-user";

    const auto dim = static_cast<std::ptrdiff_t>(options_.dim);
    items_.Clear();
    for (ItemUpdate& item : goldens->items) {
      item.attributes.clear();
      AppendItem(data_.item_spec, item, &items_);
    }
    FRESHET_ASSIGN(const std::vector<float> item_vectors, trainer_->Embed(Side::kItem, items_));
    auto row = item_vectors.begin();
    for (ItemUpdate& item : goldens->items) {
      item.vector.assign(row, row + dim);
      row += dim;
    }
    users_.Clear();
    for (const UserContext& user : goldens->users) AppendUser(data_.user_spec, user, &users_);
    FRESHET_ASSIGN(const std::vector<float> user_vectors, trainer_->Embed(Side::kUser, users_));
    for (row = user_vectors.begin(); row != user_vectors.end(); row += dim)
      goldens->user_vectors.emplace_back(row, row + dim);
    return Status::Ok();
  }

  // Both towers are loaded and must agree with the network that was trained before anything is written.
  Result<std::string> Write(const Kept& best) {
    PackageContents contents;
    contents.manifest.name = options_.name;
    contents.manifest.version = options_.version;
    contents.manifest.dim = options_.dim;
    contents.manifest.item = data_.item_spec;
    contents.manifest.user = data_.user_spec;
    contents.manifest.library_version = "LibTorch " + TorchVersion();
    contents.goldens = best.goldens;
    FRESHET_ASSIGN(contents.item_tower, SerializeTower(best.item, trainer_->ForwardSource(Side::kItem)));
    FRESHET_ASSIGN(contents.user_tower, SerializeTower(best.user, trainer_->ForwardSource(Side::kUser)));

    const Metric metric = contents.manifest.metric;
    FRESHET_ASSIGN(std::unique_ptr<Tower> item,
                   Tower::Load(contents.item_tower, ShapeOf(data_.item_spec, options_.dim)));
    FRESHET_TRY(CheckGoldens(best.goldens, metric, MakeTowerItemEncoder(contents.manifest, std::move(item)).get()));
    FRESHET_ASSIGN(std::unique_ptr<Tower> user,
                   Tower::Load(contents.user_tower, ShapeOf(data_.user_spec, options_.dim)));
    FRESHET_TRY(CheckGoldens(best.goldens, metric, *MakeTowerUserEncoder(contents.manifest, std::move(user))));
    return WritePackage(std::move(contents), options_.out_directory);
  }

  const TrainOptions& options_;
  TrainingData data_;
  const InputCache cache_;
  const std::function<void(const TrainProgress&)>& progress_;
  std::mt19937_64 random_;
  std::unique_ptr<TorchTrainer> trainer_;
  std::vector<float> log_q_;  // per item
  std::size_t steps_per_epoch_ = 1;
  // Reused from batch to batch:
  TowerInput users_;
  TowerInput items_;
  std::vector<std::int32_t> history_;
  TrainingBatch batch_;
  std::vector<std::int32_t> order_;
};

}  // namespace

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
  FRESHET_TRY(require(epochs >= 1 && epochs <= 10'000, "epochs must be 1 to 10000"));
  FRESHET_TRY(require(batch_size >= 2 && batch_size <= 65'536, "the batch size must be 2 to 65536"));
  FRESHET_TRY(require(history >= 1 && history <= 1000, "the history must be 1 to 1000 interactions"));
  FRESHET_TRY(require(learning_rate > 0 && learning_rate <= 1, "the learning rate must be above 0 and at most 1"));
  FRESHET_TRY(require(temperature >= 0.001 && temperature <= 10, "the temperature must be 0.001 to 10"));
  FRESHET_TRY(require(pooling == "mean" || pooling == "attention", "the pooling must be mean or attention"));
  FRESHET_TRY(require(loss == "in-batch" || loss == "full", "the loss must be in-batch or full"));
  FRESHET_TRY(require(uniform_negatives >= 0 && uniform_negatives <= 65'536, "uniform negatives must be 0 to 65536"));
  FRESHET_TRY(require(dropout >= 0 && dropout < 1, "the dropout must be at least 0 and below 1"));
  FRESHET_TRY(require(history_dropout >= 0 && history_dropout < 1, "the history dropout must be at least 0, below 1"));
  FRESHET_TRY(require(stranger_share >= 0 && stranger_share < 1, "the share of strangers must be at least 0, below 1"));
  FRESHET_TRY(require(user_weight >= 0 && user_weight <= 2, "the user weight must be 0 to 2"));
  FRESHET_TRY(require(validation_k >= 1 && validation_k <= 10'000, "validation's K must be 1 to 10000"));
  FRESHET_TRY(require(patience >= 0, "the patience must not be negative"));
  FRESHET_TRY(require(id_dropout >= 0 && id_dropout < 1, "the id dropout must be at least 0 and below 1"));
  return require(threads >= 1 && threads <= 256, "threads must be 1 to 256");
}

Result<TrainReport> Train(const TrainOptions& options, const std::function<void(const TrainProgress&)>& progress) {
  FRESHET_TRY(options.Validate());
  const SystemClock clock;
  const std::int64_t started_us = clock.MonotonicUs();
  FRESHET_ASSIGN(TrainingData data, LoadTrainingData(options));
  if (data.unknown_items > 0) {
    LogWarning("train", "interactions left out: their items are not in the items file",
               {{"interactions", StrCat(data.unknown_items)}});
  }
  Training training(options, std::move(data), progress);
  FRESHET_ASSIGN(TrainReport report, training.Run());
  report.seconds = static_cast<double>(clock.MonotonicUs() - started_us) * 1e-6;
  return report;
}

}  // namespace freshet
