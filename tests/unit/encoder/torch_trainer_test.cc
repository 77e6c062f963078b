#include "torch_trainer.h"

#include <algorithm>

#include "freshet_test/test_support.h"
#include "trainer_inputs.h"

namespace freshet {
namespace {

using test::AddItem;
using test::AddUser;
using test::Apart;
using test::kDim;
using test::kItems;
using test::Options;
using test::StepOnce;

class SequenceTowerTest : public ::testing::TestWithParam<Pooling> {
 protected:
  void SetUp() override {
    InitTorch(1);
    auto trainer = TorchTrainer::Create(Options(GetParam()));
    ASSERT_OK(trainer);
    trainer_ = std::move(*trainer);
    auto bytes = SerializeTower(trainer_->Parameters(Side::kUser), trainer_->ForwardSource(Side::kUser));
    ASSERT_OK(bytes);
    auto tower = Tower::Load(*bytes, Options(GetParam()).user.shape);
    ASSERT_OK(tower);
    tower_ = std::move(*tower);
  }

  std::vector<float> Embed(const std::vector<std::vector<std::int64_t>>& histories) {
    TowerInput input;
    for (const auto& history : histories) AddUser(history, &input);
    const Result<std::vector<float>> trained = trainer_->Embed(Side::kUser, input);
    EXPECT_OK(trained);
    std::vector<float> served(static_cast<std::size_t>(input.rows) * kDim);
    EXPECT_OK(tower_->Run(input, served));
    EXPECT_LT(Apart(*trained, served), 1e-6) << "what is trained is what is served";
    return served;
  }

  std::unique_ptr<TorchTrainer> trainer_;
  std::unique_ptr<Tower> tower_;
};

TEST_P(SequenceTowerTest, PaddingAndNeighboursChangeNothing) {
  const std::vector<std::vector<std::int64_t>> users = {{}, {3}, {4, 5, 6, 7, 8}, {9, 9}, {}, {1, 2, 3}};
  const std::vector<float> together = Embed(users);
  for (std::size_t i = 0; i < users.size(); ++i) {
    const std::vector<float> row(together.begin() + static_cast<std::ptrdiff_t>(i) * kDim,
                                 together.begin() + static_cast<std::ptrdiff_t>(i + 1) * kDim);
    EXPECT_LT(Apart(row, Embed({users[i]})), 1e-6) << "user " << i;
  }
}

TEST_P(SequenceTowerTest, ReadsOrderAndEveryPlace) {
  const std::vector<float> whole = Embed({{1, 2, 3}});
  EXPECT_GT(Apart(whole, Embed({{3, 2, 1}})), 1e-5);
  EXPECT_GT(Apart(whole, Embed({{2, 1, 3}})), 1e-5);
  EXPECT_GT(Apart(whole, Embed({{1, 2, 4}})), 1e-5) << "the oldest counts";
  EXPECT_GT(Apart(Embed({{1}}), Embed({{}})), 1e-5);
}

// A step moves rows that were read, and no others: padding looks up nothing.
TEST_P(SequenceTowerTest, TrainsOnlyTheRowsThatItRead) {
  const auto table = [&] { return trainer_->State().parameters[0].value; };
  const std::vector<float> before = table();
  TowerInput users;
  AddUser({5, 6}, &users);
  AddUser({}, &users);
  TrainingBatch batch;
  for (const std::int64_t item : {2, 3}) AddItem(item, &batch);
  ASSERT_OK(trainer_->Step(users, batch, 0.01));
  const std::vector<float> after = table();
  const std::size_t width = 8;
  for (std::size_t row = 0; row < 2 * kItems; ++row) {
    const bool moved = !std::equal(before.begin() + static_cast<std::ptrdiff_t>(row * width),
                                   before.begin() + static_cast<std::ptrdiff_t>((row + 1) * width),
                                   after.begin() + static_cast<std::ptrdiff_t>(row * width));
    const bool read = row == 2 || row == 3 || row == kItems || row == kItems + 5 || row == kItems + 6;
    EXPECT_EQ(moved, read) << "row " << row;
  }
}

// One pass over a history, read at many places, trains what each place alone would.
TEST_P(SequenceTowerTest, EveryPlaceIsAUserOfItsOwn) {
  const std::vector<std::vector<std::int64_t>> histories = {{5, 6, 7, 8}, {2}, {}, {9, 8}};  // newest first
  TowerInput together;
  TowerInput alone;
  TrainingBatch places;
  for (std::size_t row = 0; row < histories.size(); ++row) {
    const std::vector<std::int64_t>& history = histories[row];
    AddUser(history, &together);
    for (std::size_t read = 0; read <= history.size(); ++read) {
      places.rows.push_back(static_cast<std::int64_t>(row));
      places.reads.push_back(static_cast<std::int64_t>(read));
      places.targets.push_back(static_cast<std::int64_t>(places.targets.size()));
      places.weights.push_back(1.0F + static_cast<float>(read));
      places.numbers.push_back(places.targets.back());
      places.log_q.push_back(0);
      places.items.offsets.push_back(places.items.rows);
      places.items.indices.push_back(places.items.rows++);
      AddUser({history.end() - static_cast<std::ptrdiff_t>(read), history.end()}, &alone);
    }
  }
  TrainingBatch singles = places;
  singles.rows.clear();
  singles.reads.clear();
  auto other = TorchTrainer::Create(Options(GetParam()));
  ASSERT_OK(other);
  double first = 0;
  double last = 0;
  for (int step = 0; step < 5; ++step) {
    const Result<double> one_pass = trainer_->Step(together, places, 0.01);
    const Result<double> one_by_one = (*other)->Step(alone, singles, 0.01);
    ASSERT_OK(one_pass);
    ASSERT_OK(one_by_one);
    // Later steps differ by what rounding leaves of gradients near zero, which Adam scales up.
    EXPECT_NEAR(*one_pass, *one_by_one, step == 0 ? 1e-5 : 2e-2) << "step " << step;
    if (step == 0) first = *one_pass;
    last = *one_pass;
  }
  EXPECT_LT(last, first - 0.1);
}

INSTANTIATE_TEST_SUITE_P(Poolings, SequenceTowerTest, ::testing::Values(Pooling::kGru, Pooling::kSelfAttention));

// With a shared row the history moves what the item tower reads, and both packages hold the same numbers.
TEST(TorchTrainerTest, SharedRowsAreOneTable) {
  InitTorch(1);
  TrainerOptions options = Options(Pooling::kMean);
  const auto row = [](const std::vector<TowerParameter>& parameters, std::int64_t at) {
    const auto begin = parameters[0].values.begin() + at * 8;
    return std::vector<float>(begin, begin + 8);
  };
  // Item 9 is in a history only, and no column of the batch.
  const auto step = [&](TorchTrainer* trainer) {
    TowerInput users;
    TrainingBatch batch;
    for (const std::int64_t item : {2, 3}) {
      AddUser({9, item}, &users);
      AddItem(item, &batch);
    }
    ASSERT_OK(trainer->Step(users, batch, 0.01));
  };
  for (const bool shared : {false, true}) {
    if (shared) {
      for (std::int64_t item = 0; item < kItems; ++item) options.shared_rows.push_back(item % 2 == 1 ? item : -1);
    }
    const auto trainer = std::move(*TorchTrainer::Create(options));
    const std::vector<float> before = row(trainer->Parameters(Side::kItem), 9);
    step(trainer.get());
    EXPECT_EQ(Apart(before, row(trainer->Parameters(Side::kItem), 9)) > 1e-4, shared);
    for (const std::int64_t item : {3, 9}) {
      EXPECT_EQ(row(trainer->Parameters(Side::kItem), item) == row(trainer->Parameters(Side::kUser), item), shared);
    }
    EXPECT_NE(row(trainer->Parameters(Side::kItem), 2), row(trainer->Parameters(Side::kUser), 2)) << "not shared";
  }
}

TEST(TorchTrainerTest, NormalisesBatchesAndServesRunningStatistics) {
  InitTorch(1);
  TrainerOptions options = Options(Pooling::kMean);
  options.item.batch_norm = options.user.batch_norm = true;
  options.item.layers = options.user.layers = 2;
  const auto trainer = std::move(*TorchTrainer::Create(options));
  const auto mean = [&] {
    for (const ParameterState& one : trainer->State().parameters) {
      if (one.name == "batch_mean") return one.value;
    }
    return std::vector<float>();
  };
  std::size_t second = 0;
  for (const ParameterState& one : trainer->State().parameters) second += one.name == "mlp2_batch_variance" ? 1 : 0;
  EXPECT_EQ(second, 2U) << "each block is normalised, in both towers";
  const std::vector<float> before = mean();
  for (int step = 0; step < 20; ++step) StepOnce(trainer.get());
  EXPECT_GT(Apart(before, mean()), 1e-4);
  TowerInput one;
  TowerInput two;
  AddUser({7}, &one);
  AddUser({7}, &two);
  AddUser({8, 9}, &two);
  const std::vector<float> alone = *trainer->Embed(Side::kUser, one);
  std::vector<float> beside = *trainer->Embed(Side::kUser, two);
  beside.resize(alone.size());
  EXPECT_LT(Apart(alone, beside), 1e-6) << "in serving a neighbour does not count";
  const auto bytes = SerializeTower(trainer->Parameters(Side::kUser), trainer->ForwardSource(Side::kUser));
  ASSERT_OK(bytes);
  const auto tower = Tower::Load(*bytes, options.user.shape);
  ASSERT_OK(tower);
  std::vector<float> served(kDim);
  ASSERT_OK((*tower)->Run(one, served));
  EXPECT_LT(Apart(alone, served), 1e-6);
}

TEST(TorchTrainerTest, RestoresOnlyItsOwnState) {
  InitTorch(1);
  const auto make = [](Pooling pooling) { return std::move(*TorchTrainer::Create(Options(pooling))); };
  const auto trainer = make(Pooling::kGru);
  const TrainerState good = trainer->State();
  EXPECT_OK(trainer->Restore(good));
  EXPECT_EQ(make(Pooling::kSelfAttention)->Restore(good).code(), Code::kCorruption);
  TrainerState bad = good;
  bad.parameters[1].second.pop_back();
  EXPECT_EQ(make(Pooling::kGru)->Restore(bad).code(), Code::kCorruption);
  bad = good;
  bad.generator.resize(7);
  EXPECT_EQ(make(Pooling::kGru)->Restore(bad).code(), Code::kCorruption);
}

}  // namespace
}  // namespace freshet
