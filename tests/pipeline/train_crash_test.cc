// `freshet train` killed with -9 at its fault points and at random moments: resumed each time, it ends with the package
// of a training that nobody touched, to the bit.
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr int kTimeoutMs = 120'000;
constexpr int kKilled = 128 + SIGKILL;
constexpr int kMaxKills = 8;  // of one training at random moments; then it may end
const char* const kFiles[] = {"model.yaml", "item_tower.pt", "user_tower.pt", "goldens.json"};

class TrainCrashTest : public ::testing::Test {
 protected:
  TrainCrashTest() {
    std::ofstream items(dir_ / "items.jsonl");
    for (int i = 0; i < 200; ++i) {
      items << R"({"item_id": "i)" << i << R"(", "features": {"title": "kind)" << i % 10 << " number" << i << "\"}}\n";
    }
    std::ofstream interactions(dir_ / "interactions.jsonl");
    for (int time = 1; time <= 6000; ++time) {
      interactions << R"({"user_id": "u)" << random_() % 150 << R"(", "item_id": "i)" << random_() % 200
                   << R"(", "timestamp": )" << time << "}\n";
    }
  }

  [[nodiscard]] std::vector<std::string> Command(const std::string& out) const {
    return {FreshetBinary(),
            "train",
            "--items",
            dir_ / "items.jsonl",
            "--interactions",
            dir_ / "interactions.jsonl",
            "--out",
            dir_ / out,
            "--epochs",
            "4",
            "--dim",
            "16",
            "--pooling",
            "self-attention",
            "--embedding-dim",
            "16",
            "--history",
            "10",
            "--batch-size",
            "64",
            "--dropout",
            "0.1",
            "--uniform-negatives",
            "32",
            "--seed",
            "7",
            "--checkpoint-seconds",
            "0",
            "--refit",
            "--resume"};
  }

  void ExpectSame(const std::string& out) const {
    for (const char* file : kFiles) {
      const Result<std::string> whole = ReadFile(dir_ / StrCat("whole/", file));
      const Result<std::string> parts = ReadFile(dir_ / StrCat(out, "/", file));
      ASSERT_OK(whole);
      ASSERT_OK(parts);
      EXPECT_TRUE(*whole == *parts) << out << "/" << file;
    }
    EXPECT_FALSE(FileExists(dir_ / StrCat(out, ".checkpoint")));
    EXPECT_EQ(Unfinished(out), 0);
  }

  // Directories of packages that nobody finished.
  [[nodiscard]] int Unfinished(const std::string& out) const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      count += entry.path().filename().string().starts_with(StrCat(".", out, ".tmp.")) ? 1 : 0;
    }
    return count;
  }

  std::mt19937_64 random_{TestSeed()};
  const TempDir dir_;
};

TEST_F(TrainCrashTest, EndsAsIfNobodyHadKilledIt) {
  const auto started = std::chrono::steady_clock::now();
  ASSERT_EQ(RunCommand(Command("whole"), nullptr), 0);
  const auto whole_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started);

  for (const char* point : {"train.after_batch=kill@1", "train.after_batch=kill@100", "train.before_validation=kill@2",
                            "train.after_epoch=kill@1", "train.after_epoch=kill@1", "package.before_rename=kill"}) {
    Process killed(Command("points"), dir_ / "points.log", {StrCat("FRESHET_FAULTS=", point)});
    ASSERT_EQ(killed.Wait(kTimeoutMs), kKilled) << point << "\n" << *ReadFile(dir_ / "points.log");
    EXPECT_FALSE(FileExists(dir_ / "points/model.yaml")) << point;
  }
  EXPECT_EQ(Unfinished("points"), 1) << "the next one finds it";
  ASSERT_EQ(RunCommand(Command("points"), nullptr), 0);
  ExpectSame("points");

  const char* wanted = std::getenv("FRESHET_CRASH_ROUNDS");
  const int rounds = wanted == nullptr ? 3 : std::atoi(wanted);
  int kills = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string out = StrCat("round", round);
    for (int kill = 0; kill < kMaxKills; ++kill) {
      Process process(Command(out), dir_ / "round.log");
      // The first comes early, so that it comes: how fast the machine is changes from run to run.
      const std::int64_t within_ms = kill == 0 ? whole_ms.count() / 5 : whole_ms.count();
      const auto wait_ms = within_ms * static_cast<std::int64_t>(random_() % 1000) / 1000;
      int status = process.Wait(static_cast<int>(wait_ms));
      if (status < 0) {
        process.Signal(SIGKILL);
        status = process.Wait(kTimeoutMs);
      }
      ASSERT_TRUE(status == 0 || status == kKilled) << *ReadFile(dir_ / "round.log");
      if (status == 0) break;
      ++kills;
    }
    if (!FileExists(dir_ / StrCat(out, "/model.yaml")) || FileExists(dir_ / StrCat(out, ".checkpoint"))) {
      ASSERT_EQ(RunCommand(Command(out), nullptr), 0);
    }
    ExpectSame(out);
  }
  EXPECT_GT(kills, 0);
}

}  // namespace
}  // namespace freshet::test
