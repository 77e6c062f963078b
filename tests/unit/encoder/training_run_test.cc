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
    Result<TrainReport> report = Train(options, [this](const TrainProgress& state) {
      if (state.reporting.empty()) ++told_;
    });
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

TEST_F(TrainingRunTest, AnUnusableOutIsToldOfBeforeAnyBatch) {
  fs::create_directories(dir_ / "home");
  std::ofstream(dir_ / "home/precious.txt") << "x";
  std::ofstream(dir_ / "file") << "";
  for (const char* out : {"home", "home/", "file"}) {
    const Status status = Run(Options(out)).status();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.ToString();
    EXPECT_NE(status.message().find("is no model package"), std::string::npos) << status.message();
    EXPECT_EQ(told_, 0);
  }
  fs::create_directories(dir_ / "empty");
  EXPECT_OK(Run(Options("empty")));
}

// Killed when the package is there and the report is not: nothing is trained again.
TEST_F(TrainingRunTest, TheCheckpointStaysUntilAllIsWritten) {
  TrainOptions options = Options("model");
  options.resume = true;
  ASSERT_FALSE(Run(options, "train.before_report=error").ok());
  EXPECT_TRUE(FileExists(dir_ / "model/model.yaml"));
  EXPECT_TRUE(FileExists(dir_ / "model.checkpoint"));
  EXPECT_FALSE(FileExists(dir_ / "model.report.html"));
  const Result<TrainReport> report = Run(options);
  ASSERT_OK(report);
  EXPECT_EQ(told_, 0);
  EXPECT_TRUE(report->resumed);
  EXPECT_EQ(report->epochs.size(), 2U);
  EXPECT_TRUE(FileExists(report->report_file));
  ExpectNoCheckpoints("model");
}

// What a training of other settings left must not be found when this one is resumed.
TEST_F(TrainingRunTest, BeginningAnewLeavesNoOlderCheckpoint) {
  TrainOptions older = Options("model");
  older.refit = true;
  older.seed = 2;
  ASSERT_FALSE(Run(older, "train.before_report=error").ok());
  older.resume = true;
  const auto stop_in_refit = [](const TrainOptions& options) {  // once it has a checkpoint
    bool stopped = false;
    const Result<TrainReport> report = Train(options, [&](const TrainProgress& state) {
      if (!state.refit || stopped) return;
      stopped = true;
      EXPECT_OK(ArmFaults("train.after_batch=error@3"));
    });
    EXPECT_OK(ArmFaults(""));
    return report.ok() ? Status::Ok() : report.status();
  };
  ASSERT_EQ(stop_in_refit(older).code(), Code::kUnavailable);
  ASSERT_TRUE(FileExists(dir_ / "model.refit.checkpoint"));

  TrainOptions options = Options("model");
  options.refit = true;
  ASSERT_FALSE(Run(options, "train.after_batch=error@1").ok()) << "before its first checkpoint";
  ExpectNoCheckpoints("model");
  options.resume = true;
  ASSERT_FALSE(Run(options, "train.after_batch=error@5").ok());
  EXPECT_TRUE(FileExists(dir_ / "model.checkpoint"));
  const Result<TrainReport> report = Run(options);
  ASSERT_OK(report);
  EXPECT_TRUE(report->resumed);
  EXPECT_GT(report->refit_pairs, 0);
  ExpectNoCheckpoints("model");

  // Nor where only that of a refit is left.
  ASSERT_FALSE(Run(options, "train.before_report=error").ok());
  ASSERT_EQ(stop_in_refit(options).code(), Code::kUnavailable);
  fs::remove(dir_ / "model.checkpoint");
  ASSERT_FALSE(Run(options, "train.after_batch=error@1").ok());
  ExpectNoCheckpoints("model");
}

TEST_F(TrainingRunTest, SaysWhichSettingChangedTheData) {
  const TrainOptions options = [&] {
    TrainOptions it = Options("model");
    it.resume = true;
    return it;
  }();
  ASSERT_FALSE(Run(options, "train.after_batch=error@5").ok());
  const auto reason = [&](const std::function<void(TrainOptions*)>& change) {
    TrainOptions other = options;
    change(&other);
    const Status status = Run(other).status();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.ToString();
    EXPECT_EQ(told_, 0);
    return status.message();
  };
  const auto expect = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(reason([](TrainOptions* o) { o->until_ms = 1100; }), "`until 0`, not `until 1100`");
  expect(reason([](TrainOptions* o) { o->split.validation_fraction = 0.2; }),
         "`validation_fraction 0.1`, not `validation_fraction 0.2`");
  expect(reason([](TrainOptions* o) { o->split.test_fraction = 0.25; }), "`test_fraction 0`, not `test_fraction 0.25`");
  expect(reason([](TrainOptions* o) { o->split.kind = SplitKind::kLastItem; }),
         "`split fraction`, not `split last-item`");

  // A setting that changes nothing of the data is no reason; other files are one that no setting tells of.
  TrainOptions same = options;
  same.until_ms = 1'000'000;
  same.validate_strangers = true;
  EXPECT_EQ(Run(same, "train.after_batch=error@1").status().code(), Code::kUnavailable);
  std::ofstream(dir_ / "interactions.jsonl", std::ios::app) << Line(3, 1201);
  expect(reason([](TrainOptions*) {}), "other data: give the same files");
}

}  // namespace
}  // namespace freshet
