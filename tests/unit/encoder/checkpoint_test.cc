#include "checkpoint.h"

#include <random>

#include "freshet/core/checksum.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TrainingCheckpoint Sample() {
  TrainingCheckpoint one;
  one.settings = "dim 8\nepochs 3\n";
  one.data = "abc";
  one.epoch = 2;
  one.step = 7;
  one.loss_sum = 1.25;
  one.seconds = 3.5;
  one.order = {2, 0, 1};
  one.mined = {4, -1};
  one.random = "1 2 3";
  one.trainer.steps = 17;
  one.trainer.generator = std::string("\0\1", 2);
  one.trainer.parameters = {{"table", {1, 2}, {3, 4}, {5, 6}}, {"w1", {7}, {8}, {9}}};
  one.best.epoch = 1;
  one.best.recall = 0.5;
  one.best.loss = 2;
  one.best.item = {{"table", {2, 1}, {1, 2}}};
  one.best.user = {{"b1", {3}, {1, 2, 3}}};
  one.best.golden_items = {0.5F};
  one.best.golden_users = {0.25F, 1};
  one.epochs = {{1, 2, 0.5, 1.5}};
  return one;
}

TEST(CheckpointTest, ComesBackAsItWas) {
  const std::string bytes = EncodeCheckpoint(Sample());
  const Result<TrainingCheckpoint> read = DecodeCheckpoint(bytes);
  ASSERT_OK(read);
  EXPECT_EQ(EncodeCheckpoint(*read), bytes);
  EXPECT_EQ(read->order, Sample().order);
  EXPECT_EQ(read->mined, Sample().mined);
  EXPECT_EQ(read->trainer.parameters[1].second, std::vector<float>{9});
  EXPECT_EQ(read->best.user[0].shape, std::vector<std::int64_t>{3});
  EXPECT_EQ(read->epochs[0].seconds, 1.5);
  TrainingCheckpoint none = Sample();
  none.best = {};
  EXPECT_OK(DecodeCheckpoint(EncodeCheckpoint(none)));
}

TEST(CheckpointTest, RefusesEveryCutAndEveryFlippedBit) {
  const std::string good = EncodeCheckpoint(Sample());
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(DecodeCheckpoint(std::string_view(good).substr(0, size)).status().code(), Code::kCorruption) << size;
  }
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(static_cast<unsigned char>(bad[bit / 8]) ^ (1U << (bit % 8)));
    EXPECT_FALSE(DecodeCheckpoint(bad).ok()) << "bit " << bit;
  }
}

// What a wrong program could write with a right checksum: lengths that no file holds must not be believed.
TEST(CheckpointTest, BelievesNoLength) {
  std::mt19937_64 random(test::TestSeed());
  const std::string good = EncodeCheckpoint(Sample());
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bad = good.substr(0, good.size() - 8);
    for (int i = 0; i < 8; ++i) bad[8 + random() % (bad.size() - 8)] = static_cast<char>(random());
    const std::uint64_t sum = Xxh3(bad);
    bad.append(reinterpret_cast<const char*>(&sum), sizeof(sum));
    refused += DecodeCheckpoint(bad).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 500);
}

TEST(CheckpointTest, SaysWhichVersionAndWhichSetting) {
  std::string newer = EncodeCheckpoint(Sample());
  newer[7] = '3';
  EXPECT_EQ(DecodeCheckpoint(newer).status().code(), Code::kFailedPrecondition);
  const TrainingCheckpoint sample = Sample();
  EXPECT_OK(CheckContinues(sample, sample.settings, "abc"));
  EXPECT_EQ(CheckContinues(sample, sample.settings, "abd").code(), Code::kFailedPrecondition);
  const Status other = CheckContinues(sample, "dim 8\nepochs 4\n", "abc");
  EXPECT_EQ(other.code(), Code::kFailedPrecondition);
  EXPECT_NE(other.message().find("`epochs 3`, not `epochs 4`"), std::string::npos) << other.message();

  // What decides nothing but the data matters where the data differs, and where it is told: older ones do not.
  const std::string now = sample.settings + "data_until 5\ndata_split time\n";
  EXPECT_OK(CheckContinues(sample, now, "abc"));
  EXPECT_NE(CheckContinues(sample, now, "abd").message().find("other data"), std::string::npos);
  TrainingCheckpoint told = sample;
  told.settings += "data_until 5\ndata_split random\n";
  EXPECT_OK(CheckContinues(told, now, "abc"));
  const Status split = CheckContinues(told, now, "abd");
  EXPECT_NE(split.message().find("`split random`, not `split time`"), std::string::npos) << split.message();
}

}  // namespace
}  // namespace freshet
