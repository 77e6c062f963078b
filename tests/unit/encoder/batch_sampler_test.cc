#include "batch_sampler.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "freshet_test/test_support.h"
#include "input_cache.h"

namespace freshet {
namespace {

constexpr std::int64_t kDayMs = 86'400'000;

// One user with a pair a day, another with a single pair on the last day.
class BatchSamplerTest : public ::testing::Test {
 protected:
  BatchSamplerTest() {
    for (int i = 0; i < 6; ++i) data_.items.emplace_back().item_id = "i" + std::to_string(i);
    data_.users.resize(2);
    data_.sequences = {{0, 1, 2, 3}, {4}};
    for (std::int32_t day = 0; day < 4; ++day) data_.examples.push_back({0, day, day, day * kDayMs});
    data_.examples.push_back({1, 0, 0, 3 * kDayMs});
    data_.item_counts = {1, 1, 1, 1, 1, 0};
    for (const char* name : {"item_id", "history"}) {
      FeatureDef def;
      def.name = name;
      def.kind = name[0] == 'h' ? FeatureKind::kHistory : FeatureKind::kCategorical;
      def.vocabulary = {"i0", "i1", "i2", "i3", "i4"};
      def.buckets = 1;
      FeatureSpec& spec = name[0] == 'h' ? data_.user_spec : data_.item_spec;
      spec.features = {def};
      EXPECT_OK(spec.Finish());
    }
    options_.batch_size = 5;
  }

  // Item -> weight of its pair, over one epoch.
  std::map<std::int64_t, double> Weights() {
    const InputCache cache(data_);
    std::mt19937_64 random(7);
    BatchSampler sampler(options_, data_, cache, &random);
    sampler.StartEpoch();
    EXPECT_EQ(sampler.steps_per_epoch(), 1);
    EXPECT_EQ(sampler.Fill(0), 5U);
    std::map<std::int64_t, double> weights;
    for (std::size_t i = 0; i < sampler.batch().weights.size(); ++i) {
      weights[sampler.batch().numbers[i]] = static_cast<double>(sampler.batch().weights[i]);
    }
    return weights;
  }

  TrainOptions options_;
  TrainingData data_;
};

TEST_F(BatchSamplerTest, WeighsByAgeAndByUser) {
  for (const auto& [item, weight] : Weights()) EXPECT_EQ(weight, 1) << item;
  options_.half_life_days = 1;
  std::map<std::int64_t, double> weights = Weights();
  EXPECT_NEAR(weights[0], 0.125, 1e-6);
  EXPECT_NEAR(weights[2], 0.5, 1e-6);
  EXPECT_NEAR(weights[4], 1, 1e-6);
  options_.user_weight = 1;
  weights = Weights();
  EXPECT_NEAR(weights[3], 0.25, 1e-6);
  EXPECT_NEAR(weights[4], 1, 1e-6);
  options_.half_life_days = 1e-3;
  for (const auto& [item, weight] : Weights()) EXPECT_GT(weight, 0) << item;
}

// Every pair is a target once an epoch, and knows of its user what came before it, or before its basket.
TEST_F(BatchSamplerTest, WindowsHoldEveryPairOnce) {
  options_.pooling = "gru";
  options_.history_dropout = 0;
  options_.batch_size = 2;
  for (const int history : {1, 2, 3, 10}) {
    options_.history = history;
    data_.user_spec.features[0].max_values = history;
    const InputCache cache(data_);
    std::mt19937_64 random(7);
    BatchSampler sampler(options_, data_, cache, &random);
    sampler.StartEpoch();
    std::vector<std::int64_t> items;
    for (std::int64_t step = 0; step < sampler.steps_per_epoch(); ++step) {
      sampler.Fill(step);
      const TrainingBatch& batch = sampler.batch();
      const TowerInput& users = sampler.users();
      ASSERT_EQ(batch.rows.size(), batch.targets.size());
      ASSERT_EQ(batch.reads.size(), batch.targets.size());
      for (std::size_t i = 0; i < batch.targets.size(); ++i) {
        const std::int64_t item = batch.numbers[static_cast<std::size_t>(batch.targets[i])];
        items.push_back(item);
        const auto row = static_cast<std::size_t>(batch.rows[i]);
        const auto begin = static_cast<std::size_t>(users.offsets[row]);
        const std::size_t end =
            row + 1 < users.offsets.size() ? static_cast<std::size_t>(users.offsets[row + 1]) : users.indices.size();
        ASSERT_LE(batch.reads[i], static_cast<std::int64_t>(end - begin));
        if (item == 4) {
          EXPECT_EQ(batch.reads[i], 0);
          continue;
        }
        // Item i is row i here, and the user took 0, 1, 2, 3: the newest that is read is the one before the target.
        const std::int64_t reads = batch.reads[i];
        EXPECT_GE(reads, std::min<std::int64_t>(item, history - std::max(1, history / 2) + 1));
        if (reads > 0) {
          EXPECT_EQ(users.indices[end - static_cast<std::size_t>(reads)], item - 1) << "history " << history;
        }
      }
    }
    std::sort(items.begin(), items.end());
    EXPECT_EQ(items, (std::vector<std::int64_t>{0, 1, 2, 3, 4})) << "history " << history;
  }
}

TEST_F(BatchSamplerTest, HorizonAndCorrection) {
  options_.history_dropout = 0;
  options_.horizon = 2;
  const InputCache cache(data_);
  std::mt19937_64 random(7);
  BatchSampler sampler(options_, data_, cache, &random);
  std::map<std::size_t, int> lengths;  // of the history of item 3
  for (int epoch = 0; epoch < 300; ++epoch) {
    sampler.Fill(0);
    const TowerInput& users = sampler.users();
    ++lengths[static_cast<std::size_t>(users.offsets[4] - users.offsets[3])];
  }
  for (const std::size_t length : {1U, 2U, 3U}) EXPECT_GT(lengths[length], 60) << length;
  EXPECT_EQ(lengths.size(), 3U);
  const std::vector<float> whole = sampler.batch().log_q;
  options_.log_q = 0.5;
  sampler.Fill(0);
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_FLOAT_EQ(sampler.batch().log_q[i], whole[i] / 2);
}

// Of what weighs nothing there is no pair: it stands in histories, and in no column.
TEST_F(BatchSamplerTest, WhatIsNoPairIsHistoryOnly) {
  // Of the first user 0 and 2 were looked at, 1 and 3 bought, 3 for more.
  data_.examples = {{0, 1, 1, kDayMs}, {0, 3, 3, 3 * kDayMs, 2.5F}, {1, 0, 0, 3 * kDayMs}};
  data_.item_counts = {0, 1, 0, 1, 1, 0};
  options_.history_dropout = 0;
  options_.user_weight = 1;
  for (const char* pooling : {"mean", "gru"}) {
    options_.pooling = pooling;
    options_.batch_size = 3;
    options_.history = 2;  // windows of one place
    data_.user_spec.features[0].max_values = 2;
    const InputCache cache(data_);
    std::mt19937_64 random(7);
    BatchSampler sampler(options_, data_, cache, &random);
    ASSERT_EQ(sampler.steps_per_epoch(), 1);
    EXPECT_EQ(sampler.order().size(), 3U) << "no window without a pair";
    EXPECT_EQ(sampler.Fill(0), 3U);
    const TrainingBatch& batch = sampler.batch();
    std::map<std::int64_t, double> weights;
    for (std::size_t i = 0; i < 3; ++i) {
      weights[batch.numbers[static_cast<std::size_t>(batch.targets[i])]] = static_cast<double>(batch.weights[i]);
    }
    EXPECT_EQ(weights, (std::map<std::int64_t, double>{{1, 0.5}, {3, 1.25}, {4, 1}})) << "the user has two pairs";
    const std::vector<std::int64_t>& read = sampler.users().indices;
    EXPECT_NE(std::find(read.begin(), read.end(), 2), read.end()) << "what was looked at is read";
  }
}

// The share of ids that are hidden is the one asked for: of targets and of negatives, never of their numbers.
TEST_F(BatchSamplerTest, HidesItsShareOfTheIds) {
  constexpr std::int64_t kUnknown = 5;  // the row after the vocabulary
  options_.uniform_negatives = 4;
  const InputCache cache(data_);
  for (const double share : {0.0, 0.3, 1.0}) {
    options_.id_dropout = share;
    std::mt19937_64 random(7);
    BatchSampler sampler(options_, data_, cache, &random);
    int hidden = 0;
    int known = 0;
    for (int fill = 0; fill < 2000; ++fill) {
      sampler.Fill(0);
      const TrainingBatch& batch = sampler.batch();
      ASSERT_EQ(batch.items.indices.size(), batch.numbers.size());
      for (std::size_t i = 0; i < batch.numbers.size(); ++i) {
        if (batch.numbers[i] == kUnknown) continue;  // i5 has no row of its own
        ++known;
        if (batch.items.indices[i] == kUnknown) {
          ++hidden;
        } else {
          ASSERT_EQ(batch.items.indices[i], batch.numbers[i]);
        }
      }
    }
    EXPECT_GT(known, 15'000);
    EXPECT_NEAR(static_cast<double>(hidden) / known, share, 0.015);
  }
}

// The share of user ids that are hidden is the one asked for; of strangers, whose history is not read, all are.
TEST_F(BatchSamplerTest, HidesItsShareOfTheUserIds) {
  for (int i = 0; i < 2; ++i) data_.users[static_cast<std::size_t>(i)].user_id = "u" + std::to_string(i);
  FeatureDef def;
  def.name = "user_id";
  def.vocabulary = {"u0", "u1"};
  def.buckets = 1;
  data_.user_spec.features.push_back(def);
  ASSERT_OK(data_.user_spec.Finish());
  options_.history_dropout = 0;
  const InputCache cache(data_);
  for (const double share : {0.0, 0.4, 0.9}) {
    options_.user_id_dropout = share;
    std::mt19937_64 random(7);
    BatchSampler sampler(options_, data_, cache, &random);
    int hidden = 0;
    int known = 0;
    for (int fill = 0; fill < 2000; ++fill) {
      sampler.Fill(0);
      const TowerInput& users = sampler.users();
      for (std::size_t row = 0; row < 5; ++row) {
        const auto history = static_cast<std::size_t>(users.offsets[2 * row + 1] - users.offsets[2 * row]);
        const bool unknown = users.indices[static_cast<std::size_t>(users.offsets[2 * row + 1])] == 6 + 2;
        if (history == 0) {
          ASSERT_TRUE(unknown) << "a stranger";
          continue;
        }
        ++known;
        hidden += unknown ? 1 : 0;
      }
    }
    EXPECT_GT(known, 5000);
    EXPECT_NEAR(static_cast<double>(hidden) / known, share, 0.02);
  }
}

TEST_F(BatchSamplerTest, CorrectionsAreThoseOfThePapers) {
  data_.item_counts = {3, 1, 1, 2, 3, 0};
  const InputCache cache(data_);
  const auto corrections = [&](int negatives) {
    options_.uniform_negatives = negatives;
    std::mt19937_64 random(7);
    BatchSampler sampler(options_, data_, cache, &random);
    EXPECT_EQ(sampler.Fill(0), 5U);
    const TrainingBatch& batch = sampler.batch();
    EXPECT_EQ(batch.numbers.size(), 5U + static_cast<std::size_t>(negatives));
    std::vector<std::pair<std::int64_t, double>> columns;
    for (std::size_t i = 0; i < batch.numbers.size(); ++i) {
      columns.emplace_back(batch.numbers[i], static_cast<double>(batch.log_q[i]));
    }
    return columns;
  };
  // In-batch: the log of an item's share of the pairs (Yi et al., 2019).
  const double shares[] = {3.0 / 5, 1.0 / 5, 1.0 / 5, 2.0 / 5, 3.0 / 5, 1.0 / 5};
  for (const auto& [item, log_q] : corrections(0)) EXPECT_NEAR(log_q, std::log(shares[item]), 1e-6) << item;
  // With 30 more drawn evenly from six: its share of the mixture of 5 and 30 (Yang et al., 2020), for every column.
  std::map<std::int64_t, int> drawn;
  for (const auto& [item, log_q] : corrections(30)) {
    EXPECT_NEAR(log_q, std::log((5 * shares[item] + 30.0 / 6) / 35), 1e-6) << item;
    ++drawn[item];
  }
  EXPECT_EQ(drawn.size(), 6U) << "also what no pair brings";
}

TEST_F(BatchSamplerTest, TakesBackOnlyAnOrderOfItsExamples) {
  const InputCache cache(data_);
  std::mt19937_64 random(7);
  BatchSampler sampler(options_, data_, cache, &random);
  EXPECT_TRUE(sampler.SetOrder({4, 3, 2, 1, 0}));
  EXPECT_EQ(sampler.order().front(), 4U);
  EXPECT_FALSE(sampler.SetOrder({0, 1, 2, 3}));
  EXPECT_FALSE(sampler.SetOrder({0, 1, 2, 3, 3}));
  EXPECT_FALSE(sampler.SetOrder({0, 1, 2, 3, 5}));
  EXPECT_EQ(sampler.order().front(), 4U) << "a refusal changes nothing";
}

}  // namespace
}  // namespace freshet
