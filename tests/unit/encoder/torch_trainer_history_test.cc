// Towers whose history tells more than its items: event types and gaps, one row beside each item.
#include <algorithm>
#include <random>

#include "freshet_test/test_support.h"
#include "torch_trainer.h"
#include "trainer_inputs.h"

namespace freshet {
namespace {

using test::AddItem;
using test::AddUser;
using test::Apart;
using test::kDim;
using test::kItems;
using test::OptionsWithBeside;

using Rows = std::vector<std::int64_t>;

struct Person {
  Rows history;  // newest first; rows 1 to 9 are items, 10 to 14 events, 15 to 19 gaps
  Rows events;
  Rows gaps;
};

class BesideHistoryTest : public ::testing::TestWithParam<Pooling> {
 protected:
  void SetUp() override {
    InitTorch(1);
    trainer_ = Make(2);
  }

  static std::unique_ptr<TorchTrainer> Make(int beside) {
    auto trainer = TorchTrainer::Create(OptionsWithBeside(GetParam(), beside));
    EXPECT_OK(trainer);
    return std::move(*trainer);
  }

  static void Add(const Person& person, TowerInput* input) {
    AddUser(person.history, {person.events, person.gaps}, input);
  }

  // In training, and by the tower that would be served.
  std::vector<float> Embed(const std::vector<Person>& people) {
    TowerInput input;
    for (const Person& person : people) Add(person, &input);
    const Result<std::vector<float>> trained = trainer_->Embed(Side::kUser, input);
    EXPECT_OK(trained);
    auto bytes = SerializeTower(trainer_->Parameters(Side::kUser), trainer_->ForwardSource(Side::kUser));
    EXPECT_OK(bytes);
    auto tower = Tower::Load(*bytes, OptionsWithBeside(GetParam(), 2).user.shape);
    EXPECT_OK(tower);
    std::vector<float> served(static_cast<std::size_t>(input.rows) * kDim);
    EXPECT_OK((*tower)->Run(input, served));
    EXPECT_LT(Apart(*trained, served), 1e-6) << "what is trained is what is served";
    return served;
  }

  // A few steps, so that nothing is where it began.
  void TrainABit() {
    for (int step = 0; step < 10; ++step) {
      TowerInput users;
      TrainingBatch batch;
      for (const std::int64_t item : {2, 3, 4}) {
        // Of two items the event tells which counts.
        Add({{item, 9}, {10, 11}, {15, 16}}, &users);
        AddItem(item, &batch);
      }
      ASSERT_OK(trainer_->Step(users, batch, 0.05));
    }
  }

  std::unique_ptr<TorchTrainer> trainer_;
};

TEST_P(BesideHistoryTest, PaddingAndNeighboursChangeNothing) {
  TrainABit();
  const std::vector<Person> people = {{{}, {}, {}},
                                      {{3}, {10}, {15}},
                                      {{4, 5, 6, 7, 8}, {10, 11, 12, 10, 11}, {15, 16, 17, 18, 19}},
                                      {{9, 9}, {14, 13}, {19, 15}},
                                      {{}, {}, {}},
                                      {{1, 2, 3}, {10, 10, 10}, {15, 15, 15}}};
  const std::vector<float> together = Embed(people);
  for (std::size_t i = 0; i < people.size(); ++i) {
    const std::vector<float> row(together.begin() + static_cast<std::ptrdiff_t>(i) * kDim,
                                 together.begin() + static_cast<std::ptrdiff_t>(i + 1) * kDim);
    EXPECT_LT(Apart(row, Embed({people[i]})), 1e-6) << "person " << i;
  }
}

// Not only which events there were, but of which item each was.
TEST_P(BesideHistoryTest, AnEventAndAGapBelongToTheirItem) {
  TrainABit();
  const std::vector<float> as_was = Embed({{{1, 2}, {10, 11}, {15, 16}}});
  EXPECT_GT(Apart(as_was, Embed({{{1, 2}, {11, 10}, {15, 16}}})), 1e-4) << "events exchanged";
  EXPECT_GT(Apart(as_was, Embed({{{1, 2}, {10, 11}, {16, 15}}})), 1e-4) << "gaps exchanged";
  EXPECT_GT(Apart(as_was, Embed({{{1, 2}, {10, 10}, {15, 16}}})), 1e-4);
}

class BesideSequenceTest : public BesideHistoryTest {};

// One pass over a history, read at many places, trains what each place alone would.
TEST_P(BesideSequenceTest, EveryPlaceIsAUserOfItsOwn) {
  const std::vector<Person> people = {{{5, 6, 7, 8}, {10, 11, 12, 13}, {15, 16, 17, 19}},
                                      {{2}, {10}, {19}},
                                      {{}, {}, {}},
                                      {{9, 8}, {12, 12}, {18, 19}}};
  TowerInput together;
  TowerInput alone;
  TrainingBatch places;
  for (std::size_t row = 0; row < people.size(); ++row) {
    const Person& one = people[row];
    Add(one, &together);
    for (std::size_t read = 0; read <= one.history.size(); ++read) {
      places.rows.push_back(static_cast<std::int64_t>(row));
      places.reads.push_back(static_cast<std::int64_t>(read));
      AddItem(static_cast<std::int64_t>(places.targets.size()), &places);
      const auto oldest = [&](const Rows& rows) {
        return Rows(rows.end() - static_cast<std::ptrdiff_t>(read), rows.end());
      };
      Add({oldest(one.history), oldest(one.events), oldest(one.gaps)}, &alone);
    }
  }
  TrainingBatch singles = places;
  singles.rows.clear();
  singles.reads.clear();
  const auto other = Make(2);
  for (int step = 0; step < 4; ++step) {
    const Result<double> one_pass = trainer_->Step(together, places, 0.01);
    const Result<double> one_by_one = other->Step(alone, singles, 0.01);
    ASSERT_OK(one_pass);
    ASSERT_OK(one_by_one);
    EXPECT_NEAR(*one_pass, *one_by_one, step == 0 ? 1e-5 : 2e-2) << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Poolings, BesideHistoryTest,
                         ::testing::Values(Pooling::kMean, Pooling::kAttention, Pooling::kGru,
                                           Pooling::kSelfAttention));

INSTANTIATE_TEST_SUITE_P(Poolings, BesideSequenceTest, ::testing::Values(Pooling::kGru, Pooling::kSelfAttention));

// What a mean weighs by is learned: it begins as the mean, and what tells nothing ends up weighing little.
TEST(BesideHistoryMeanTest, LearnsWhichEventCounts) {
  InitTorch(1);
  const auto trainer = std::move(*TorchTrainer::Create(OptionsWithBeside(Pooling::kMean, 1)));
  const auto query = [&] {
    for (const TowerParameter& one : trainer->Parameters(Side::kUser)) {
      if (one.name == "query") return one.values;
    }
    return std::vector<float>();
  };
  EXPECT_EQ(query(), std::vector<float>(8, 0.0F)) << "all alike";
  // Event 10 is of the item that is taken next, event 11 of any.
  std::mt19937_64 random(7);
  for (int step = 0; step < 300; ++step) {
    TowerInput users;
    TrainingBatch batch;
    for (std::int64_t item = 1; item <= 8; ++item) {
      const auto noise = [&] { return static_cast<std::int64_t>(1 + random() % 8); };
      AddUser({noise(), item, noise(), noise()}, {{11, 10, 11, 11}}, &users);
      AddItem(item, &batch);
    }
    ASSERT_OK(trainer->Step(users, batch, 0.02));
  }
  const std::vector<TowerParameter> parameters = trainer->Parameters(Side::kUser);
  const auto weight = [&](std::int64_t row) {
    double sum = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      sum += static_cast<double>(query()[i]) *
             static_cast<double>(parameters[0].values[static_cast<std::size_t>(row) * 8 + i]);
    }
    return sum;
  };
  EXPECT_GT(weight(10), weight(11) + 1) << "more than e times as much";
}

}  // namespace
}  // namespace freshet
