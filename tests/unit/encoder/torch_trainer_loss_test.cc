// What a step of the trainer computes, held against the formulas.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>

#include "batch_sampler.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"
#include "input_cache.h"
#include "torch_trainer.h"
#include "trainer_inputs.h"
#include "training_data.h"

namespace freshet {
namespace {

using test::AddItem;
using test::AddUser;
using test::Apart;
using test::kDim;
using test::kItems;
using test::Options;
using test::StepOnce;

// After one step the first moments are a tenth of the gradient.
double GradientNorm(const TorchTrainer& trainer) {
  double squares = 0;
  for (const ParameterState& one : trainer.State().parameters) {
    for (const float moment : one.first) squares += 100.0 * static_cast<double>(moment) * static_cast<double>(moment);
  }
  return std::sqrt(squares);
}

TEST(TorchTrainerLossTest, ClipsGradients) {
  InitTorch(1);
  TrainerOptions options = Options(Pooling::kMean);
  auto trainer = std::move(*TorchTrainer::Create(options));
  StepOnce(trainer.get());
  const double norm = GradientNorm(*trainer);
  EXPECT_GT(norm, 0.01);
  for (const double most : {norm / 10, norm * 10}) {
    options.max_gradient_norm = most;
    trainer = std::move(*TorchTrainer::Create(options));
    StepOnce(trainer.get());
    EXPECT_NEAR(GradientNorm(*trainer), std::min(most, norm), 1e-3 * norm);
  }
}

// The loss as the papers write it, from the vectors that the towers gave before the step.
double LossByHand(const std::vector<float>& users, const std::vector<float>& items, const TrainingBatch& batch,
                  double temperature) {
  const auto product = [&](std::size_t user, std::size_t column) {
    double sum = 0;
    for (std::size_t d = 0; d < kDim; ++d) {
      sum += static_cast<double>(users[user * kDim + d]) * static_cast<double>(items[column * kDim + d]);
    }
    return sum;
  };
  double loss = 0;
  double weights = 0;
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    const auto target = static_cast<std::size_t>(batch.targets[i]);
    double denominator = 0;
    double wanted = 0;
    for (std::size_t column = 0; column < batch.numbers.size(); ++column) {
      if (column != target && batch.numbers[column] == batch.numbers[target]) continue;  // an accidental hit
      const double logit = product(i, column) / temperature - static_cast<double>(batch.log_q[column]);
      denominator += std::exp(logit);
      if (column == target) wanted = logit;
    }
    loss += static_cast<double>(batch.weights[i]) * (std::log(denominator) - wanted);
    weights += static_cast<double>(batch.weights[i]);
  }
  return loss / weights;
}

TEST(TorchTrainerLossTest, TheLossIsTheOneByHand) {
  InitTorch(1);
  TrainerOptions options = Options(Pooling::kMean);
  options.temperature = 0.5;  // so warm that every column has a say
  // Item 2 is three columns: two targets, and a negative drawn from the catalogue.
  TowerInput users;
  TrainingBatch batch;
  for (const std::int64_t item : {2, 3, 2, 4}) {
    AddUser({item + 5, item}, &users);
    AddItem(item, &batch);
  }
  for (const std::int64_t item : {2, 7, 3}) {
    AddItem(item, &batch);
    batch.targets.pop_back();
    batch.weights.pop_back();
  }
  batch.log_q = {-1.5F, -2, -1.5F, -4, -1.5F, -0.25F, -2};
  batch.weights = {1, 0.5F, 2, 0.25F};
  const auto trainer = std::move(*TorchTrainer::Create(options));
  const std::vector<float> of_users = *trainer->Embed(Side::kUser, users);
  const std::vector<float> of_items = *trainer->Embed(Side::kItem, batch.items);
  const double by_hand = LossByHand(of_users, of_items, batch, options.temperature);
  const Result<double> loss = trainer->Step(users, batch, 0.01);
  ASSERT_OK(loss);
  EXPECT_NEAR(*loss, by_hand, 1e-4);

  // What each part is worth, so that none can be left out unnoticed.
  TrainingBatch other = batch;
  other.log_q.assign(other.log_q.size(), 0);
  EXPECT_GT(std::abs(LossByHand(of_users, of_items, other, options.temperature) - by_hand), 1e-2);
  other = batch;
  other.numbers = {2, 3, 12, 4, 22, 7, 13};
  EXPECT_GT(std::abs(LossByHand(of_users, of_items, other, options.temperature) - by_hand), 1e-2);
}

// From events and values to the loss: what a configuration says weighs, written out.
TEST(TorchTrainerLossTest, EventsAndValuesWeighInTheLoss) {
  InitTorch(1);
  const test::TempDir dir;
  std::ofstream items(dir / "items.jsonl");
  for (const char* id : {"i0", "i1", "i2", "i3", "i4"}) items << R"({"item_id": ")" << id << "\"}\n";
  items.close();
  std::ofstream interactions(dir / "interactions.jsonl");
  int time = 0;
  const auto add = [&](const char* item, const char* event, double value) {
    interactions << StrCat(R"({"user_id": "u", "item_id": ")", item, R"(", "event": ")", event, R"(", "value": )",
                           value, R"(, "timestamp": )", ++time, "}\n");
  };
  add("i0", "buy", 4);
  add("i1", "view", 1);
  add("i2", "view", 16);
  add("i3", "hover", 1);
  add("i4", "like", 9);
  add("i0", "buy", 1);  // the validation part
  interactions.close();
  TrainOptions options;
  options.items_file = dir / "items.jsonl";
  options.interactions_file = dir / "interactions.jsonl";
  options.out_directory = dir / "model";
  options.split.validation_fraction = 0.15;
  options.event_weights = {{"buy", 5}, {"view", 0.25}, {"hover", 0}};
  options.value_weight = 0.5;
  options.batch_size = 4;
  options.history_dropout = 0;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  const InputCache cache(*data);
  std::mt19937_64 random(3);
  BatchSampler sampler(options, *data, cache, &random);
  ASSERT_EQ(sampler.Fill(0), 4U) << "nobody trains on hovering";

  TrainerOptions trainer_options = Options(Pooling::kMean);
  trainer_options.temperature = 0.5;
  trainer_options.item.shape = {data->item_spec.table_rows(), 1, 0, kDim};
  trainer_options.user.shape = {data->user_spec.table_rows(), 1, 0, kDim};
  trainer_options.user.history_bag = 0;
  const auto trainer = std::move(*TorchTrainer::Create(trainer_options));
  const std::vector<float> of_users = *trainer->Embed(Side::kUser, sampler.users());
  const std::vector<float> of_items = *trainer->Embed(Side::kItem, sampler.batch().items);
  // Items are their numbers: i0 bought for 4, i1 seen once, i2 seen at 16, i4 liked at 9.
  const std::map<std::int64_t, float> weights = {{0, 5 * 2}, {1, 0.25F}, {2, 0.25F * 4}, {4, 3}};
  TrainingBatch by_hand = sampler.batch();
  ASSERT_EQ(by_hand.targets.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    by_hand.weights[i] = weights.at(by_hand.numbers[static_cast<std::size_t>(by_hand.targets[i])]);
  }
  const double wanted = LossByHand(of_users, of_items, by_hand, trainer_options.temperature);
  by_hand.weights = {1, 1, 1, 1};
  EXPECT_GT(std::abs(LossByHand(of_users, of_items, by_hand, trainer_options.temperature) - wanted), 1e-2);
  const Result<double> loss = trainer->Step(sampler.users(), sampler.batch(), 0.01);
  ASSERT_OK(loss);
  EXPECT_NEAR(*loss, wanted, 1e-4);
}

// An accidental hit pulls nowhere: a batch of one item, however often, has nothing to learn from.
TEST(TorchTrainerLossTest, ARepeatedItemIsNoNegativeOfItself) {
  InitTorch(1);
  TowerInput users;
  TrainingBatch batch;
  for (int i = 0; i < 4; ++i) {
    AddUser({i}, &users);
    AddItem(2, &batch);
  }
  const auto trainer = std::move(*TorchTrainer::Create(Options(Pooling::kMean)));
  const std::vector<float> before = trainer->State().parameters[0].value;
  const Result<double> loss = trainer->Step(users, batch, 0.01);
  ASSERT_OK(loss);
  EXPECT_NEAR(*loss, 0, 1e-6);
  EXPECT_LT(Apart(before, trainer->State().parameters[0].value), 1e-6);
}

TEST(TorchTrainerLossTest, LearnsItsTemperature) {
  InitTorch(1);
  TrainerOptions options = Options(Pooling::kMean);
  options.temperature = 0.5;
  const std::size_t without = (*TorchTrainer::Create(options))->State().parameters.size();
  options.learn_temperature = true;
  const auto trainer = std::move(*TorchTrainer::Create(options));
  const double first = StepOnce(trainer.get());
  double last = first;
  for (int step = 0; step < 200; ++step) last = StepOnce(trainer.get());
  EXPECT_LT(last, first);
  const TrainerState state = trainer->State();
  ASSERT_EQ(state.parameters.size(), without + 1);
  // Pairs that are told apart are told apart more clearly when it is colder.
  EXPECT_GT(static_cast<double>(state.parameters.back().value[0]), -std::log(0.5) + 0.1);
}

// A bound is where it stops, not where it stays: from either side of both it goes where the loss wants it.
TEST(TorchTrainerLossTest, ATemperatureAtItsBoundIsStillLearned) {
  InitTorch(1);
  TrainerOptions options = Options(Pooling::kMean);
  options.learn_temperature = true;
  const double kColdest = std::log(1000.0);
  for (const double temperature : {2.0, 1.0, 0.001, 0.0001}) {
    options.temperature = temperature;
    const auto trainer = std::move(*TorchTrainer::Create(options));
    const auto scale = [&] { return static_cast<double>(trainer->State().parameters.back().value[0]); };
    const double first = std::clamp(-std::log(temperature), 0.0, kColdest);
    EXPECT_NEAR(scale(), first, 1e-4) << temperature;
    double lowest = scale();
    double highest = scale();
    for (int step = 0; step < 100; ++step) {
      StepOnce(trainer.get());
      EXPECT_GE(scale(), 0) << temperature;
      EXPECT_LE(scale(), kColdest + 1e-4) << temperature;
      lowest = std::min(lowest, scale());
      highest = std::max(highest, scale());
    }
    EXPECT_GT(highest - lowest, 0.05) << "temperature " << temperature << " did not move";
  }
}

}  // namespace
}  // namespace freshet
