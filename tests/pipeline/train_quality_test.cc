// A small model, trained on the committed shop in seconds, must be worth more than always recommending what sells most:
// judged by `freshet evaluate` on two weeks that neither its training nor the choice of its epoch has seen.
#include <iostream>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr int kTimeoutMs = 300'000;  // about 10 s of a processor; a busy machine has less of one
const char* const kSeed = "1";       // of the model; on one thread the figures are then always the same

// Of ratios to popularity. Seeds 1 to 5 had 1.43 to 1.59 at 20 and 1.23 to 1.28 at 100: what falls below is no longer
// the luck of a seed. Popularity counts the validation part too, which the model was not trained on.
constexpr double kLeastAt20 = 1.25;
constexpr double kLeastAt100 = 1.12;

class TrainQualityTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<std::string> Command(const std::string& verb, const std::vector<std::string>& more) const {
    std::vector<std::string> command = {FreshetBinary(),
                                        verb,
                                        "--items",
                                        dir_ / "items.jsonl",
                                        "--interactions",
                                        dir_ / "interactions.jsonl",
                                        "--users",
                                        dir_ / "users.jsonl",
                                        "--split",
                                        "time",
                                        "--validation-from",
                                        "2011-05-09",
                                        "--test-from",
                                        "2011-05-16",
                                        "--json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }

  // The figures of `system`, seen items masked, over all users; null when there are none.
  static const JsonValue* SystemOf(const JsonValue& report, std::string_view system) {
    for (const JsonValue& table : JsonFind(report, "tables")->GetArray()) {
      if (JsonText(*JsonFind(table, "seen")) != "masked") continue;
      for (const JsonValue& slice : JsonFind(table, "slices")->GetArray()) {
        if (JsonText(*JsonFind(slice, "slice")) != "all") continue;
        for (const JsonValue& one : JsonFind(slice, "systems")->GetArray()) {
          if (JsonText(*JsonFind(one, "system")) == system) return &one;
        }
      }
    }
    return nullptr;
  }

  static double Figure(const JsonValue& system, const char* kind, const char* metric) {
    return JsonFind(*JsonFind(*JsonFind(system, kind), metric), "value")->GetDouble();
  }

  const TempDir dir_;
};

TEST_F(TrainQualityTest, BeatsPopularityOnWhatItHasNotSeen) {
  std::string out;
  ASSERT_EQ(RunCommand({FreshetBinary(), "import", "online-retail",
                        SourceRoot() + "/tests/data/online-retail-2011-03-05.csv.zst", "--out", dir_.path()},
                       &out, kTimeoutMs),
            0)
      << out;
  out.clear();
  // Chosen on the validation part.
  ASSERT_EQ(RunCommand(Command("train", {"--out",
                                         dir_ / "model",
                                         "--no-report",
                                         "--seed",
                                         kSeed,
                                         "--epochs",
                                         "4",
                                         "--dim",
                                         "32",
                                         "--embedding-dim",
                                         "32",
                                         "--batch-size",
                                         "256",
                                         "--learning-rate",
                                         "0.005",
                                         "--half-life-days",
                                         "20",
                                         "--log-q",
                                         "0.7",
                                         "--id-dropout",
                                         "0.3",
                                         "--dropout",
                                         "0.2",
                                         "--stranger-share",
                                         "0.3",
                                         "--user-weight",
                                         "0.5",
                                         "--mask-seen",
                                         "--validate-strangers"}),
                       &out, kTimeoutMs),
            0)
      << out;
  const auto trained = ParseJson(out);
  ASSERT_OK(trained);
  std::cout << "trained in " << JsonFind(**trained, "seconds")->GetDouble() << " s\n";
  out.clear();
  ASSERT_EQ(RunCommand(Command("evaluate", {"--model", StrCat("small=", dir_ / "model"), "--k", "100,20,100", "--seen",
                                            "masked", "--resamples", "200"}),
                       &out, kTimeoutMs),
            0)
      << out;
  const auto report = ParseJson(out);
  ASSERT_OK(report);
  ASSERT_EQ(JsonText(*JsonFind(**report, "judged")), "test");
  const JsonValue* model = SystemOf(**report, "small");
  const JsonValue* popularity = SystemOf(**report, "popularity");
  ASSERT_NE(model, nullptr) << out;
  ASSERT_NE(popularity, nullptr) << out;
  EXPECT_EQ(JsonFind(*model, "metrics")->MemberCount(), 9U) << "each K once: four figures of it, and MRR";
  // The index that serves loses next to nothing of what the model ranks first; that is another recall than those below.
  const JsonValue& ann = *JsonFind(**report, "ann");
  ASSERT_EQ(ann.Size(), 1U) << out;
  const JsonValue& index = *ann.Begin();
  EXPECT_EQ(JsonText(*JsonFind(index, "system")), "small");
  EXPECT_GT(JsonFind(index, "users")->GetInt(), 100);
  EXPECT_GE(JsonFind(*JsonFind(index, "mean"), "ann_recall_at_100")->GetDouble(), 0.95);
  for (const auto& [metric, least] : {std::pair("recall_at_20", kLeastAt20), std::pair("recall_at_100", kLeastAt100)}) {
    const double ratio = Figure(*model, "ratio_to_popularity", metric);
    std::cout << metric << " " << Figure(*model, "metrics", metric) << ", popularity "
              << Figure(*popularity, "metrics", metric) << ", ratio " << ratio << "\n";
    EXPECT_GT(Figure(*popularity, "metrics", metric), 0.03) << "the baseline is one";
    EXPECT_GE(ratio, least) << metric;
    // Not by chance of whom it was asked for: the lower end of the 95% interval over users.
    EXPECT_GT(JsonFind(*JsonFind(*JsonFind(*model, "ratio_to_popularity"), metric), "low")->GetDouble(), 1.0) << metric;
  }
}

}  // namespace
}  // namespace freshet::test
