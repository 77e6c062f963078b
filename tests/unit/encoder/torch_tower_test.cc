#include "torch_tower.h"

#include <cstdlib>
#include <thread>

#include "freshet/encoder/package.h"
#include "freshet_test/test_support.h"
#include "tiny_model.h"

namespace freshet {
namespace {

using test::TinyTower;

constexpr TowerShape kShape{3, 1, 1, 2};

TowerInput Rows(const std::vector<std::int64_t>& rows) {
  TowerInput input;
  for (const std::int64_t row : rows) {
    input.offsets.push_back(static_cast<std::int64_t>(input.indices.size()));
    input.indices.push_back(row);
    input.dense.push_back(static_cast<float>(row));
    ++input.rows;
  }
  return input;
}

std::string Forward(const std::string& body) {
  return "def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:\n" + body;
}

TEST(TorchTowerTest, RunsTheSignature) {
  const auto tower = Tower::Load(TinyTower(test::kTinyForward, 1), kShape);
  ASSERT_OK(tower);
  std::vector<float> out(6);
  ASSERT_OK((*tower)->Run(Rows({0, 1, 2}), out));
  EXPECT_EQ(out, (std::vector<float>{1, 0, 0, 1.5F, 1, 2}));
  ASSERT_OK((*tower)->Run(TowerInput{}, {}));
}

TEST(TorchTowerTest, AnEmptyBagIsZero) {
  const auto tower = Tower::Load(TinyTower(test::kTinyForward, 1), kShape);
  ASSERT_OK(tower);
  TowerInput input;
  input.offsets = {0, 0};
  input.dense = {2, 4};
  input.rows = 2;
  std::vector<float> out(4);
  ASSERT_OK((*tower)->Run(input, out));
  EXPECT_EQ(out, (std::vector<float>{0, 1, 0, 2}));
}

TEST(TorchTowerTest, RefusesWhatDoesNotFitWhenItIsLoaded) {
  const std::string good = TinyTower(test::kTinyForward, 1);
  TowerShape wrong_dim = kShape;
  wrong_dim.dim = 3;
  TowerShape wrong_dense = kShape;
  wrong_dense.dense = 2;
  TowerShape wrong_rows = kShape;
  wrong_rows.table_rows = 4;  // the last row of the spec is not in the table
  for (const TowerShape& shape : {wrong_dim, wrong_dense, wrong_rows}) {
    EXPECT_EQ(Tower::Load(good, shape).status().code(), Code::kCorruption);
  }
  EXPECT_EQ(Tower::Load("", kShape).status().code(), Code::kCorruption);
  EXPECT_EQ(Tower::Load("not a zip file", kShape).status().code(), Code::kCorruption);
  EXPECT_EQ(Tower::Load(good.substr(0, good.size() / 2), kShape).status().code(), Code::kCorruption);
  EXPECT_EQ(Tower::Load(TinyTower("def other(self, x: Tensor) -> Tensor:\n    return x\n", 1), kShape).status().code(),
            Code::kCorruption);
  EXPECT_EQ(
      Tower::Load(TinyTower("def forward(self, x: Tensor) -> Tensor:\n    return x\n", 1), kShape).status().code(),
      Code::kCorruption);
}

TEST(TorchTowerTest, ContainsATowerThatRaises) {
  const auto tower = Tower::Load(TinyTower(Forward("    assert bool((dense <= 1).all()), \"price above one\"\n"
                                                   "    return torch.cat([dense, dense], 1)\n"),
                                           1),
                                 kShape);
  ASSERT_OK(tower);
  std::vector<float> out(2);
  const Status status = (*tower)->Run(Rows({2}), out);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("price above one"), std::string::npos) << status.message();
  EXPECT_OK((*tower)->Run(Rows({1}), out));  // a later, good input still works
}

TEST(TorchTowerTest, TooLittleMemoryIsNobodysMistake) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer ends the process when memory does not suffice";
#endif
  // More than any machine addresses. As the script is loaded, and on a later input.
  const std::string always = TinyTower(Forward("    return torch.empty([1 << 50])\n"), 1);
  EXPECT_EQ(Tower::Load(always, kShape).status().code(), Code::kResourceExhausted);
  const auto tower = Tower::Load(TinyTower(Forward("    if bool((dense > 2).any()):\n"
                                                   "        return torch.empty([1 << 50])\n"
                                                   "    return torch.cat([dense, dense], 1)\n"),
                                           1),
                                 kShape, {"shop/item_tower.pt"});
  ASSERT_OK(tower);
  std::vector<float> out(2);
  TowerInput large = Rows({1});
  large.dense[0] = 3;
  const Status status = (*tower)->Run(large, out);
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
  EXPECT_EQ(status.category(), Category::kTransient);
  EXPECT_NE(status.message().find("shop/item_tower.pt"), std::string::npos) << status.message();
  EXPECT_OK((*tower)->Run(Rows({1}), out));
}

TEST(TorchTowerTest, ADeviceThatIsNotThereIsAMistakeOfTheConfiguration) {
  const std::string good = TinyTower(test::kTinyForward, 1);
  TowerOptions options;
  options.device = {Device::Kind::kCuda, 63};
  const Status status = Tower::Load(good, kShape, options).status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("there is no CUDA device `cuda:63`: "), std::string::npos) << status.message();
  // Whatever the machine has.
  options.device = {};
  const auto tower = Tower::Load(good, kShape, options);
  ASSERT_OK(tower);
  EXPECT_NE((*tower)->device().kind, Device::Kind::kAuto);
  std::vector<float> out(2);
  ASSERT_OK((*tower)->Run(Rows({1}), out));
  EXPECT_EQ(out, (std::vector<float>{0, 1.5F}));
}

// What is chosen holds for the next process, so there is never a second restart.
TEST(TorchTowerTest, ABlasThatIsChosenByHandIsLeftAlone) {
  const std::string better = BetterBlasCore();
  EXPECT_TRUE(better.empty() || better == "Haswell" || better == "SkylakeX") << better;
  const char* const before = std::getenv("OPENBLAS_CORETYPE");
  const std::string restored = before == nullptr ? "" : before;
  ASSERT_EQ(::setenv("OPENBLAS_CORETYPE", "Haswell", 1), 0);
  EXPECT_EQ(BetterBlasCore(), "");
  if (before == nullptr) {
    ::unsetenv("OPENBLAS_CORETYPE");
  } else {
    ::setenv("OPENBLAS_CORETYPE", restored.c_str(), 1);
  }
  EXPECT_EQ(BetterBlasCore(), better);
}

TEST(TorchTowerTest, IsWarmedWithAWholeBatch) {
  const auto limited = [](int rows) {
    return TinyTower(Forward("    assert dense.shape[0] <= " + std::to_string(rows) +
                             ", \"too many\"\n    return torch.cat([dense, dense], 1)\n"),
                     1);
  };
  TowerOptions options;
  options.warm_up_rows = 64;
  EXPECT_OK(Tower::Load(limited(64), kShape, options));
  const Status status = Tower::Load(limited(63), kShape, options).status();
  EXPECT_EQ(status.code(), Code::kCorruption);
  EXPECT_NE(status.message().find("fails at 64 rows: "), std::string::npos) << status.message();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // Too little memory for so many is what the stage can deal with.
  EXPECT_OK(Tower::Load(TinyTower(Forward("    if dense.shape[0] > 10:\n"
                                          "        return torch.empty([1 << 50])\n"
                                          "    return torch.cat([dense, dense], 1)\n"),
                                  1),
                        kShape, options));
#endif
}

TEST(TorchTowerTest, ASizeThatCannotBeIsTheScriptsMistake) {
  const auto tower = Tower::Load(TinyTower(Forward("    dense = dense + torch.empty([2 - int(dense.max())]).sum() * 0\n"
                                                   "    return torch.cat([dense, dense], 1)\n"),
                                           1),
                                 kShape);
  ASSERT_OK(tower);
  std::vector<float> out(2);
  TowerInput large = Rows({1});
  large.dense[0] = 3;
  EXPECT_EQ((*tower)->Run(large, out).code(), Code::kInvalidArgument);
}

TEST(TorchTowerTest, ATowerThatDoesNotComeBackWhenItIsLoadedEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string endless = TinyTower(Forward("    y = dense.sum()\n"
                                                "    while bool(y == y):\n"
                                                "        y = y * 0.5\n"
                                                "    return torch.cat([dense, dense + y], 1)\n"),
                                        1);
  EXPECT_EXIT((void)Tower::Load(endless, kShape, {"shop/item_tower.pt", std::chrono::milliseconds(300)}),
              ::testing::ExitedWithCode(1), "does not come back.*model=shop/item_tower.pt");
}

TEST(TorchTowerTest, RefusesNumbersThatAreNotFinite) {
  const auto tower =
      Tower::Load(TinyTower(Forward("    return torch.cat([dense, dense / (dense - 2.0)], 1)\n"), 1), kShape);
  ASSERT_OK(tower);
  std::vector<float> out(4);
  EXPECT_OK((*tower)->Run(Rows({0, 1}), out));
  EXPECT_EQ((*tower)->Run(Rows({1, 2}), out).code(), Code::kInvalidArgument);
}

TEST(TorchTowerTest, RunsOnSeveralThreadsAtOnce) {
  const auto tower = Tower::Load(TinyTower(test::kTinyForward, 1), kShape);
  ASSERT_OK(tower);
  std::vector<std::thread> threads;
  std::vector<int> right(4);
  for (std::size_t t = 0; t < right.size(); ++t) {
    threads.emplace_back([&, t] {
      std::vector<float> out(2);
      for (int i = 0; i < 200; ++i) {
        const std::int64_t row = (i + static_cast<std::int64_t>(t)) % 3;
        const bool ok = (*tower)->Run(Rows({row}), out).ok();
        const std::vector<float> wanted[] = {{1, 0}, {0, 1.5F}, {1, 2}};
        if (ok && out == wanted[row]) ++right[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(4, 200));
}

TEST(TorchTowerTest, ReportsACompilerError) {
  EXPECT_EQ(SerializeTower({}, Forward("    return torch.no_such_function(dense)\n")).status().code(), Code::kInternal);
}

TEST(TorchTowerTest, NamesItsBlas) {
  const std::string blas = BlasInUse();
  EXPECT_TRUE(blas == "mkl" || blas == "openblas" || blas == "reference") << blas;
}

}  // namespace
}  // namespace freshet
