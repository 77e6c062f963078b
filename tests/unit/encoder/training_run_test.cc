// What a training does around its epochs: where it begins, what it leaves, how it goes on.
#include <filesystem>
#include <fstream>
#include <functional>

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/training.h"
#include "freshet_test/test_support.h"
#include "small_training.h"

namespace freshet {
namespace {

namespace fs = std::filesystem;

class TrainingRunTest : public ::testing::Test {
 protected:
  TrainingRunTest() {
    std::ofstream items(dir_ / "items.jsonl");
    for (int i = 0; i < 40; ++i) items << R"({"item_id": "i)" << i << "\"}\n";
    std::ofstream interactions(dir_ / "interactions.jsonl");
    for (int time = 1; time <= 1200; ++time) interactions << Line(time * 7 % 30, time);
  }

  static std::string Line(int user, int time) {
    return StrCat(R"({"user_id": "customer-)", user, R"(", "item_id": "i)", (time * 11 + user) % 40,
                  R"(", "timestamp": )", time, "}\n");
  }

  TrainOptions Options(const std::string& out) {
    TrainOptions options = test::SmallTraining(dir_, out);
    options.epochs = 2;
    options.history = 10;
    options.checkpoint_seconds = 0;  // after every batch
    return options;
  }

  Result<TrainReport> Run(const TrainOptions& options, const std::string& fault = "") {
    EXPECT_OK(ArmFaults(fault));
    told_ = 0;
    Result<TrainReport> report = Train(options, [this](const TrainProgress&) { ++told_; });
    EXPECT_OK(ArmFaults(""));
    return report;
  }

  void ExpectNoCheckpoints(const std::string& out) {
    EXPECT_FALSE(FileExists(dir_ / (out + ".checkpoint")));
    EXPECT_FALSE(FileExists(dir_ / (out + ".refit.checkpoint")));
  }

  const test::TempDir dir_;
  int told_ = 0;  // how often a training said how far it is: 0 where it never began an epoch
};

// A package outlives that a user is forgotten.
TEST_F(TrainingRunTest, APackageDoesNotSayWhoItsUsersAre) {
  const auto says = [&](const std::string& out, const std::string& what) {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(dir_ / out)) {
      files += ReadFile(entry.path().string())->find(what) != std::string::npos ? 1 : 0;
    }
    return files;
  };
  TrainOptions options = Options("model");
  options.epochs = 1;
  ASSERT_OK(Run(options));
  EXPECT_EQ(says("model", "customer-"), 0);
  EXPECT_EQ(says("model", "golden-user-1"), 1);

  // Nor by an id that is hashed; one that has a row of its own is in the package anyhow.
  for (const int learned : {0, 1000}) {
    FeatureRequest id;
    id.name = "user_id";
    id.kind = FeatureKind::kCategorical;
    id.vocabulary_size = learned;
    id.buckets = 8;
    options.features.users = {id};
    options.out_directory = dir_ / StrCat("ids", learned);
    ASSERT_OK(Run(options));
    EXPECT_EQ(says(StrCat("ids", learned), "customer-"), learned == 0 ? 0 : 2);
  }
}

}  // namespace
}  // namespace freshet
