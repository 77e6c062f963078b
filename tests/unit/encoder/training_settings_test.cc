// What may be asked of a training, and the rate that its settings make.
#include <cmath>
#include <functional>

#include "freshet/encoder/training.h"
#include "freshet_test/test_support.h"
#include "training_run.h"

namespace freshet {
namespace {

TEST(LearningRateTest, ClimbsAndFalls) {
  TrainOptions options;
  options.learning_rate = 0.01;
  EXPECT_DOUBLE_EQ(LearningRate(options, 0), 0.01);
  EXPECT_DOUBLE_EQ(LearningRate(options, 0.5), 0.0055);
  EXPECT_NEAR(LearningRate(options, 1), 0.001, 1e-12);
  options.warmup = 0.2;
  EXPECT_DOUBLE_EQ(LearningRate(options, 0), 0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 0.1), 0.005);
  EXPECT_DOUBLE_EQ(LearningRate(options, 0.2), 0.01);
  options.schedule = "cosine";
  EXPECT_NEAR(LearningRate(options, 0.6), 0.005, 1e-12);
  EXPECT_NEAR(LearningRate(options, 1), 0, 1e-12);
  options.schedule = "constant";
  EXPECT_DOUBLE_EQ(LearningRate(options, 0.9), 0.01);
}

TEST(PairWeightTest, IsOfEventAndValue) {
  TrainOptions options;
  EXPECT_EQ(PairWeight(options, "buy", 7), 1);
  options.event_weights = {{"buy", 5}, {"view", 0}};
  EXPECT_EQ(PairWeight(options, "buy", 7), 5);
  EXPECT_EQ(PairWeight(options, "like", 7), 1) << "what is not named";
  options.value_weight = 0.5;
  EXPECT_DOUBLE_EQ(PairWeight(options, "buy", 9), 15);
  EXPECT_EQ(PairWeight(options, "view", 9), 0);
  EXPECT_DOUBLE_EQ(PairWeight(options, "like", 1e300), 1000) << "no value drowns a batch";
  EXPECT_DOUBLE_EQ(PairWeight(options, "like", 1e-300), 1e-3) << "nor vanishes";
}

TEST(ResultSettingsTest, HoldWhatWeighsPairsOnlyWhereItIsAskedFor) {
  TrainOptions options;
  EXPECT_EQ(ResultSettings(options).find("_weight "), ResultSettings(options).find("user_weight 0") + 4);
  options.event_weights = {{"buy", 5}};
  options.value_weight = 1;
  EXPECT_NE(ResultSettings(options).find("event_weight 5 buy\nvalue_weight 1\n"), std::string::npos);
}

TEST(TrainOptionsTest, RefusesValuesOutOfRange) {
  TrainOptions good;
  good.items_file = "i";
  good.interactions_file = "j";
  good.out_directory = "o";
  ASSERT_OK(good.Validate());
  const std::function<void(TrainOptions*)> mistakes[] = {
      [](TrainOptions* o) { o->items_file.clear(); },
      [](TrainOptions* o) { o->split.validation_fraction = 1; },
      [](TrainOptions* o) { o->dim = 1; },
      [](TrainOptions* o) { o->epochs = 0; },
      [](TrainOptions* o) { o->batch_size = 1; },
      [](TrainOptions* o) { o->history = 0; },
      [](TrainOptions* o) { o->learning_rate = NAN; },
      [](TrainOptions* o) { o->temperature = 0; },
      [](TrainOptions* o) { o->id_dropout = 1; },
      [](TrainOptions* o) { o->threads = 0; },
      [](TrainOptions* o) { o->pooling = "max"; },
      [](TrainOptions* o) { o->schedule = "step"; },
      [](TrainOptions* o) { o->warmup = 1; },
      [](TrainOptions* o) { o->max_gradient_norm = INFINITY; },
      [](TrainOptions* o) { o->log_q = -1; },
      [](TrainOptions* o) { o->hard_negatives = -1; },
      [](TrainOptions* o) {
        o->hard_negatives = 1;
        o->loss = "full";
      },
      [](TrainOptions* o) { o->horizon = -1; },
      [](TrainOptions* o) { o->blocks = 0; },
      [](TrainOptions* o) { o->half_life_days = -1; },
      [](TrainOptions* o) { o->event_weights["buy"] = -1; },
      [](TrainOptions* o) { o->event_weights["buy"] = NAN; },
      [](TrainOptions* o) { o->event_weights[""] = 1; },
      [](TrainOptions* o) { o->value_weight = 3; },
      [](TrainOptions* o) { o->user_id_dropout = 1; },
      [](TrainOptions* o) { o->heads = 3; },
      [](TrainOptions* o) { o->checkpoint_seconds = -1; },
      [](TrainOptions* o) { o->loss = "hinge"; },
      [](TrainOptions* o) { o->dropout = 1; },
      [](TrainOptions* o) { o->stranger_share = -0.1; },
      [](TrainOptions* o) { o->history_dropout = 1; },
      [](TrainOptions* o) { o->validation_k = 0; },
      [](TrainOptions* o) { o->split.test_fraction = 0.95; },
      [](TrainOptions* o) { o->until_ms = -1; },
      [](TrainOptions* o) { o->layers = 0; },
      [](TrainOptions* o) { o->precision = "fp8"; },
      [](TrainOptions* o) { o->split.events = {""}; },
  };
  for (const auto& mistake : mistakes) {
    TrainOptions bad = good;
    mistake(&bad);
    EXPECT_EQ(bad.Validate().code(), Code::kConfig);
  }
}

}  // namespace
}  // namespace freshet
