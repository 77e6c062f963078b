// The trainer's way on a GPU, as far as it can be walked on the CPU: steps by operators, products in bfloat16.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "freshet_test/test_support.h"
#include "torch_trainer.h"
#include "trainer_inputs.h"

namespace freshet {
namespace {

using test::AddItem;
using test::AddUser;
using test::Apart;
using test::Options;

class TrainerDeviceTest : public ::testing::TestWithParam<Pooling> {
 protected:
  void SetUp() override { InitTorch(1); }

  static Result<std::vector<double>> Losses(TorchTrainer* trainer, int steps) {
    TowerInput users;
    TrainingBatch batch;
    for (const std::int64_t item : {2, 3, 4, 9}) {
      AddUser({item + 5, item, 1}, &users);
      AddItem(item, &batch);
    }
    std::vector<double> losses;
    for (int step = 0; step < steps; ++step) {
      FRESHET_ASSIGN(const double loss, trainer->Step(users, batch, 0.01));
      losses.push_back(loss);
    }
    return losses;
  }
};

TEST_P(TrainerDeviceTest, StepsByOperatorsAreTheStepsOfTheLoop) {
  TrainerOptions options = Options(GetParam());
  options.learn_temperature = true;
  options.max_gradient_norm = 0.5;
  options.item.batch_norm = options.user.batch_norm = true;
  const auto loop = std::move(*TorchTrainer::Create(options));
  options.step_by_operators = true;
  const auto operators = std::move(*TorchTrainer::Create(options));
  ASSERT_OK(Losses(loop.get(), 1));
  ASSERT_OK(Losses(operators.get(), 1));
  // Of the same gradients. Later steps differ by what rounding leaves of gradients near zero, which Adam scales up.
  const TrainerState a = loop->State();
  const TrainerState b = operators->State();
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    EXPECT_LT(Apart(a.parameters[i].value, b.parameters[i].value), 1e-5) << a.parameters[i].name;
    EXPECT_LT(Apart(a.parameters[i].first, b.parameters[i].first), 1e-6) << a.parameters[i].name;
    EXPECT_LT(Apart(a.parameters[i].second, b.parameters[i].second), 1e-6) << a.parameters[i].name;
  }
  const auto by_loop = Losses(loop.get(), 9);
  const auto by_operators = Losses(operators.get(), 9);
  ASSERT_OK(by_loop);
  ASSERT_OK(by_operators);
  for (std::size_t i = 0; i < by_loop->size(); ++i) EXPECT_NEAR((*by_loop)[i], (*by_operators)[i], 1e-2) << i;
}

TEST_P(TrainerDeviceTest, Bfloat16LearnsWhatFloatDoes) {
  TrainerOptions options = Options(GetParam());
  const auto exact = std::move(*TorchTrainer::Create(options));
  options.bf16 = true;
  const auto mixed = std::move(*TorchTrainer::Create(options));
  const auto of_exact = Losses(exact.get(), 60);
  const auto of_mixed = Losses(mixed.get(), 60);
  ASSERT_OK(of_exact);
  ASSERT_OK(of_mixed);
  EXPECT_NE(of_mixed->front(), of_exact->front()) << "nothing was computed in bfloat16";
  EXPECT_NEAR(of_mixed->front(), of_exact->front(), 0.1);
  EXPECT_LT(of_mixed->back(), 0.2 * of_mixed->front());
  // Between steps everything is float, and serving never hears of it: what is embedded is what the parameters say.
  TowerInput users;
  AddUser({7, 2, 1}, &users);
  const Result<std::vector<float>> embedded = mixed->Embed(Side::kUser, users);
  const auto bytes = SerializeTower(mixed->Parameters(Side::kUser), mixed->ForwardSource(Side::kUser));
  ASSERT_OK(embedded);
  ASSERT_OK(bytes);
  const auto tower = Tower::Load(*bytes, options.user.shape);
  ASSERT_OK(tower);
  std::vector<float> served(embedded->size());
  ASSERT_OK((*tower)->Run(users, served));
  EXPECT_LT(Apart(*embedded, served), 1e-6);
  // Small steps are not lost in the eight bits of a bfloat16: parameters are float.
  bool fine = false;
  for (const ParameterState& parameter : mixed->State().parameters) {
    for (const float value : parameter.value) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof(bits));
      fine |= (bits & 0xffffU) != 0;
    }
  }
  EXPECT_TRUE(fine);
}

INSTANTIATE_TEST_SUITE_P(Poolings, TrainerDeviceTest,
                         ::testing::Values(Pooling::kMean, Pooling::kAttention, Pooling::kGru,
                                           Pooling::kSelfAttention));

TEST(TrainerDeviceErrorsTest, ADeviceThatIsNotThereIsNamed) {
  TrainerOptions options = Options(Pooling::kMean);
  options.device = {Device::Kind::kCuda, 63};
  const Status status = TorchTrainer::Create(options).status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("there is no CUDA device `cuda:63`"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace freshet
