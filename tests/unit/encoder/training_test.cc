#include "freshet/encoder/training.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/encoder/package.h"
#include "freshet_test/test_support.h"
#include "small_training.h"
#include "training_data.h"
#include "training_report.h"

namespace freshet {
namespace {

constexpr int kClusters = 12;
constexpr int kItemsPerCluster = 25;
constexpr int kUsers = 150;

// Every item looked at: what an index approximates.
Result<std::vector<std::vector<std::int32_t>>> ExactNearest(std::span<const float> items,
                                                            std::span<const float> queries, int dim, int k) {
  const auto width = static_cast<std::size_t>(dim);
  std::vector<std::vector<std::int32_t>> nearest(queries.size() / width);
  std::vector<std::pair<double, std::int32_t>> scores(items.size() / width);
  for (std::size_t query = 0; query < nearest.size(); ++query) {
    for (std::size_t item = 0; item < scores.size(); ++item) {
      scores[item] = {0, static_cast<std::int32_t>(item)};
      for (std::size_t i = 0; i < width; ++i) {
        scores[item].first -=
            static_cast<double>(items[item * width + i]) * static_cast<double>(queries[query * width + i]);
      }
    }
    std::sort(scores.begin(), scores.end());
    for (std::size_t i = 0; i < static_cast<std::size_t>(k); ++i) nearest[query].push_back(scores[i].second);
  }
  return nearest;
}

// How many lines of a training's log say what.
std::map<std::string, int> LinesByWhat(const std::string& log_file) {
  std::map<std::string, int> lines;
  EXPECT_OK(ForEachLine(log_file, [&](std::string_view line, double) -> Status {
    FRESHET_ASSIGN(const auto json, ParseJson(line));
    ++lines[std::string(JsonText(*JsonFind(*json, "what")))];
    return Status::Ok();
  }));
  return lines;
}

// Users who buy within one cluster each; a title names the cluster. Popularity knows nothing of that.
class TrainingTest : public ::testing::Test {
 protected:
  TrainingTest() {
    std::mt19937_64 random(test::TestSeed());
    std::ofstream items(dir_ / "items.jsonl");
    for (int i = 0; i < kClusters * kItemsPerCluster; ++i) {
      items << R"({"item_id": "i)" << i << R"(", "features": {"title": "kind)" << i % kClusters << " number" << i
            << R"(", "price": )" << i % 7 << "}}\n";
    }
    std::ofstream interactions(dir_ / "interactions.jsonl");
    for (int time = 1; time <= 4000; ++time) {
      const auto user = static_cast<int>(random() % kUsers);
      const auto rank = static_cast<int>(random() % kItemsPerCluster);
      interactions << R"({"user_id": "u)" << user << R"(", "item_id": "i)" << user % kClusters + kClusters * rank
                   << R"(", "timestamp": )" << time << "}\n";
    }
  }

  TrainOptions Options(const std::string& out) {
    TrainOptions options = test::SmallTraining(dir_, out);
    options.epochs = 4;
    options.history = 10;
    return options;
  }

  const test::TempDir dir_;
};

TEST_F(TrainingTest, BeatsPopularityAndServesFromItsPackage) {
  std::vector<TrainProgress> ends;
  std::set<std::string> reporting;
  int within = 0;
  const TrainOptions options = Options("model");
  const Result<TrainReport> report = Train(options, [&](const TrainProgress& state) {
    EXPECT_LE(state.fraction, 1);
    if (!state.reporting.empty()) {
      reporting.insert(state.reporting);
      EXPECT_EQ(ends.size(), 4U);
      return;
    }
    if (state.ended) return ends.push_back(state);
    ++within;
    // What is known of the model is what the last epoch showed.
    EXPECT_EQ(state.recall, ends.empty() ? -1 : ends.back().recall);
  });
  ASSERT_OK(report);
  ASSERT_EQ(ends.size(), 4U);
  EXPECT_GE(within, 4);
  EXPECT_TRUE(reporting.contains("co-occurrence"));
  EXPECT_TRUE(reporting.contains("model"));
  EXPECT_LT(ends.back().loss, ends.front().loss);
  EXPECT_GT(report->recall, 1.2 * report->popularity_recall);
  EXPECT_EQ(report->items, kClusters * kItemsPerCluster);
  EXPECT_GT(report->validation_users, 50);

  EXPECT_EQ(report->report_file, dir_ / "model.report.html");
  const std::string page = *ReadFile(report->report_file);
  for (const char* wanted : {"co-occurrence", "kind3 number", "<svg", "popularity", "</html>"}) {
    EXPECT_NE(page.find(wanted), std::string::npos) << wanted;
  }
  std::map<std::string, int> lines = LinesByWhat(report->log_file);
  EXPECT_EQ(lines["start"], 1);
  EXPECT_EQ(lines["epoch"], 4);
  EXPECT_EQ(lines["end"], 1);

  const auto package = OpenModelPackage({options.out_directory, "", 1});
  ASSERT_OK(package);
  EXPECT_EQ((*package)->manifest().space_id, report->space_id);
  const auto items = (*package)->LoadItemEncoder();
  const auto users = (*package)->LoadUserEncoder();
  ASSERT_OK(items);
  ASSERT_OK(users);

  // A user of cluster 3 against a known item of that cluster, a known one of another, and new items that only their
  // titles place: content must carry them.
  std::vector<float> user(16);
  ASSERT_OK((*users)->Encode(
      {"stranger", {}, {{"i3", "view", 1.0, 1}, {"i15", "view", 1.0, 2}, {"i27", "view", 1.0, 3}}}, user));
  const auto score = [&](const std::string& id, const std::string& title) {
    ItemUpdate item;
    item.item_id = id;
    item.features = {{"price", 3.0}, {"title", title}};
    const ItemUpdate* const batch[] = {&item};
    std::vector<float> vector(16);
    EXPECT_OK((*items)->Encode(batch, vector));
    double length = 0;
    double dot = 0;
    for (std::size_t i = 0; i < vector.size(); ++i) {
      EXPECT_TRUE(std::isfinite(vector[i]));
      length += static_cast<double>(vector[i]) * static_cast<double>(vector[i]);
      dot += static_cast<double>(vector[i]) * static_cast<double>(user[i]);
    }
    EXPECT_NEAR(length, 1, 1e-5);
    return dot;
  };
  EXPECT_GT(score("i39", "kind3 number39"), score("i40", "kind4 number40"));
  EXPECT_GT(score("new1", "kind3 brandnew"), score("new2", "kind4 brandnew"));
}

// A page must not take longer than the training: of many users some are drawn.
TEST_F(TrainingTest, TheReportJudgesByABoundedNumberOfUsers) {
  TrainOptions options = Options("bounded");
  options.epochs = 1;
  options.report = false;
  const Result<TrainReport> report = Train(options, nullptr);
  ASSERT_OK(report);
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  const auto page = [&](std::int64_t max_users) {
    const Result<std::string> path = WriteTrainingReport(options, *report, *data, nullptr, max_users);
    EXPECT_OK(path);
    return path.ok() ? *ReadFile(*path) : "";
  };
  EXPECT_NE(page(3).find("Judged by 3 of its "), std::string::npos);
  EXPECT_EQ(page(kMaxReportUsers).find("Judged by "), std::string::npos) << "all of them";
}

TEST_F(TrainingTest, IsDeterministicBySeed) {
  TrainOptions options = Options("first");
  options.epochs = 1;
  const auto train = [&](const std::string& out, std::uint64_t seed) {
    options.out_directory = dir_ / out;
    options.seed = seed;
    const Result<TrainReport> report = Train(options, nullptr);
    EXPECT_OK(report);
    return report.ok() ? report->space_id : "";
  };
  const std::string first = train("first", 1);
  EXPECT_EQ(train("second", 1), first) << "the space id covers every weight";
  EXPECT_NE(train("third", 2), first);
  EXPECT_EQ(*ReadFile(dir_ / "first/goldens.json"), *ReadFile(dir_ / "second/goldens.json"));
}

TEST_F(TrainingTest, TrainsOnIdsAlone) {
  std::ofstream items(dir_ / "items.jsonl");
  for (int i = 0; i < kClusters * kItemsPerCluster; ++i) items << R"({"item_id": "i)" << i << "\"}\n";
  items.close();
  TrainOptions options = Options("ids");
  options.epochs = 2;
  EXPECT_OK(Train(options, nullptr));
}

// Each way to train must learn what this data has to say, and serve it from its package (Train checks its goldens).
TEST_F(TrainingTest, EveryLossAndPoolingBeatsPopularity) {
  const std::function<void(TrainOptions*)> ways[] = {
      [](TrainOptions* o) { o->loss = "full"; },
      [](TrainOptions* o) { o->uniform_negatives = 64; },
      [](TrainOptions* o) { o->hard_negatives = 32; },
      [](TrainOptions* o) { o->pooling = "attention"; },
      [](TrainOptions* o) { o->share_items = true; },
      [](TrainOptions* o) {
        o->learn_temperature = true;
        o->temperature = 0.2;
        o->max_gradient_norm = 1;
        o->schedule = "cosine";
        o->warmup = 0.1;
      },
      [](TrainOptions* o) {
        o->batch_norm = true;
        o->layers = 3;
        o->dropout = 0.1;
        o->schedule = "constant";
        o->log_q = 0.5;
        o->horizon = 3;
      },
      [](TrainOptions* o) {
        o->pooling = "gru";
        o->dropout = 0.1;
        o->epochs = 8;
      },
      [](TrainOptions* o) {
        o->pooling = "self-attention";
        o->share_items = true;
        o->batch_norm = true;
        o->loss = "full";
        o->dropout = 0.1;
        o->epochs = 8;
      },
      [](TrainOptions* o) {
        o->loss = "full";
        o->pooling = "attention";
        o->share_items = true;
        o->dropout = 0.1;
        o->stranger_share = 0.1;
        o->user_weight = 1;
        o->validate_strangers = true;
        o->history_dropout = 0.1;
      },
  };
  int number = 0;
  for (const auto& way : ways) {
    TrainOptions options = Options("way" + std::to_string(++number));
    options.validation_k = 25;
    way(&options);
    const Result<TrainReport> report = Train(options, nullptr, ExactNearest);
    ASSERT_OK(report);
    EXPECT_GT(report->recall, 1.5 * report->popularity_recall) << "way " << number;
    const auto package = OpenModelPackage({options.out_directory, "", 1});
    ASSERT_OK(package);
    const auto users = (*package)->LoadUserEncoder();
    ASSERT_OK(users);
    // All but the mean read the order of a history.
    const auto embed = [&](const std::string& older, const std::string& newer) {
      std::vector<float> vector(16);
      EXPECT_OK((*users)->Encode({"u", {}, {{older, "view", 1.0, 1}, {newer, "view", 1.0, 2}}}, vector));
      return vector;
    };
    const std::vector<float> forward = embed("i3", "i4");
    const std::vector<float> backward = embed("i4", "i3");
    double apart = 0;
    for (std::size_t i = 0; i < forward.size(); ++i) {
      apart = std::max(apart, std::abs(static_cast<double>(forward[i]) - static_cast<double>(backward[i])));
    }
    if (options.pooling != "mean") {
      EXPECT_GT(apart, 1e-4) << "way " << number;
    } else {
      EXPECT_LT(apart, 1e-5) << "way " << number;
    }
  }
}

// The same events in another form: the same model to the bit, and its page.
TEST_F(TrainingTest, FilesInTheSchemaOfTheirProducerTrainTheSameModel) {
  TrainOptions options = Options("plain");
  options.epochs = 1;
  const Result<TrainReport> plain = Train(options, nullptr);
  ASSERT_OK(plain);
  std::ofstream own(dir_ / "own.jsonl");
  ASSERT_OK(ForEachLine(dir_ / "interactions.jsonl", [&](std::string_view line, double) -> Status {
    own << R"({"click": )" << line << "}\n";
    return Status::Ok();
  }));
  own.close();
  options.out_directory = dir_ / "own";
  options.interactions_file = dir_ / "own.jsonl";
  options.schemas.interactions = PlainLineSchema(TopicRole::kInteractions);
  options.schemas.interactions->user_id = "/click/user_id";
  options.schemas.interactions->item_id = "/click/item_id";
  options.schemas.interactions->timestamp = "/click/timestamp";
  const Result<TrainReport> report = Train(options, nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(report->space_id, plain->space_id);
  EXPECT_TRUE(FileExists(report->report_file)) << "the page judges on the same files";
}

TEST_F(TrainingTest, StopsWhenValidationNoLongerGetsBetter) {
  TrainOptions options = Options("patient");
  options.epochs = 60;
  options.patience = 1;
  int epochs = 0;
  const Result<TrainReport> report = Train(options, [&](const TrainProgress& state) { epochs = state.epoch; });
  ASSERT_OK(report);
  EXPECT_LT(epochs, 60);
  EXPECT_EQ(report->best_epoch, epochs - 1);
}

// Stopped within an epoch, at its end, after its last: continued, every weight and every golden is the same.
TEST_F(TrainingTest, ResumesToTheSameModel) {
  TrainOptions options = Options("whole");
  options.epochs = 3;
  options.dropout = 0.2;
  options.pooling = "gru";
  options.uniform_negatives = 16;
  options.hard_negatives = 16;
  options.checkpoint_seconds = 0;  // after every batch
  const Result<TrainReport> whole = Train(options, nullptr, ExactNearest);
  ASSERT_OK(whole);
  const std::string weights = *ReadFile(dir_ / "whole/user_tower.pt");
  EXPECT_FALSE(FileExists(dir_ / "whole.checkpoint"));

  options.out_directory = dir_ / "parts";
  options.resume = true;
  int stops = 0;
  for (const char* stop : {"train.after_batch=stop@1", "train.after_batch=stop@5", "train.before_validation=stop@1",
                           "train.after_epoch=stop@1", "train.after_batch=stop@30", "train.after_epoch=stop@1"}) {
    ASSERT_OK(ArmFaults(stop));
    const Result<TrainReport> part = Train(options, nullptr, ExactNearest);
    if (part.ok()) break;
    ++stops;
    EXPECT_EQ(part.status().code(), Code::kInternal) << part.status().ToString();
    EXPECT_FALSE(FileExists(dir_ / "parts/model.yaml"));
  }
  EXPECT_GE(stops, 5);
  ASSERT_OK(ArmFaults(""));
  const Result<TrainReport> parts = Train(options, nullptr, ExactNearest);
  ASSERT_OK(parts);
  EXPECT_TRUE(parts->resumed);
  EXPECT_EQ(parts->space_id, whole->space_id);
  EXPECT_EQ(*ReadFile(dir_ / "parts/goldens.json"), *ReadFile(dir_ / "whole/goldens.json"));
  ASSERT_EQ(parts->epochs.size(), whole->epochs.size());
  for (std::size_t i = 0; i < parts->epochs.size(); ++i) {
    EXPECT_EQ(parts->epochs[i].loss, whole->epochs[i].loss);
    EXPECT_EQ(parts->epochs[i].recall, whole->epochs[i].recall);
  }
  EXPECT_FALSE(FileExists(dir_ / "parts.checkpoint"));
}

// What the refit leaves knows the validation part, and is the same whether or not it was stopped on its way.
TEST_F(TrainingTest, RefitsOnTheValidationPartToo) {
  std::ofstream items(dir_ / "items.jsonl", std::ios::app);
  items << R"({"item_id": "late", "features": {"title": "kind1 late"}})"
        << "\n";
  items.close();
  std::ofstream interactions(dir_ / "interactions.jsonl", std::ios::app);
  for (int time = 4001; time <= 4040; ++time) {
    interactions << R"({"user_id": "u)" << time % kUsers << R"(", "item_id": "late", "timestamp": )" << time << "}\n";
  }
  interactions.close();
  TrainOptions options = Options("chosen");
  options.epochs = 3;
  options.pooling = "gru";
  options.checkpoint_seconds = 0;
  const auto knows_late = [&](const std::string& out) {
    return ReadFile(dir_ / (out + "/model.yaml"))->find("late") != std::string::npos;
  };
  const Result<TrainReport> chosen = Train(options, nullptr);
  ASSERT_OK(chosen);
  EXPECT_EQ(chosen->refit_pairs, 0);

  options.refit = true;
  options.out_directory = dir_ / "whole";
  const Result<TrainReport> whole = Train(options, nullptr);
  ASSERT_OK(whole);
  EXPECT_EQ(whole->recall, chosen->recall) << "the refit chooses nothing";
  EXPECT_EQ(LinesByWhat(whole->log_file)["epoch"], options.epochs + whole->best_epoch) << "its epochs are told too";
  EXPECT_GT(whole->refit_pairs, whole->train_pairs + 40);
  // The title's word "late" is rare enough for a bucket, so the name stands for the id.
  EXPECT_NE(whole->space_id, chosen->space_id);
  EXPECT_TRUE(knows_late("whole"));
  EXPECT_FALSE(knows_late("chosen"));
  EXPECT_FALSE(FileExists(dir_ / "whole.checkpoint"));
  EXPECT_FALSE(FileExists(dir_ / "whole.refit.checkpoint"));

  options.out_directory = dir_ / "parts";
  options.resume = true;
  int stops = 0;
  for (const char* stop : {"train.after_epoch=stop@2", "train.after_batch=stop@70", "train.after_epoch=stop@1"}) {
    ASSERT_OK(ArmFaults(stop));
    stops += Train(options, nullptr).ok() ? 0 : 1;
  }
  EXPECT_GE(stops, 2);
  ASSERT_OK(ArmFaults(""));
  const Result<TrainReport> parts = Train(options, nullptr);
  ASSERT_OK(parts);
  EXPECT_EQ(parts->space_id, whole->space_id);
}

TEST_F(TrainingTest, MinesHardNegativesFromTheSecondEpochOn) {
  TrainOptions options = Options("hard");
  options.hard_negatives = 16;
  options.epochs = 2;
  EXPECT_EQ(Train(options, nullptr).status().code(), Code::kConfig) << "there is no index";
  std::size_t asked = 0;
  const auto count = [&](std::span<const float> items, std::span<const float> queries, int dim, int k) {
    EXPECT_EQ(items.size(), static_cast<std::size_t>(kClusters * kItemsPerCluster * dim));
    asked += queries.size() / static_cast<std::size_t>(dim);
    return ExactNearest(items, queries, dim, k);
  };
  ASSERT_OK(Train(options, nullptr, count));
  EXPECT_EQ(asked, static_cast<std::size_t>(kUsers)) << "once, before the second epoch";
  const auto broken = [](std::span<const float>, std::span<const float> queries, int dim, int) {
    return Result<std::vector<std::vector<std::int32_t>>>(
        std::vector<std::vector<std::int32_t>>(queries.size() / static_cast<std::size_t>(dim), {1'000'000}));
  };
  options.out_directory = dir_ / "broken";
  EXPECT_EQ(Train(options, nullptr, broken).status().code(), Code::kInternal) << "no item has this number";
}

TEST_F(TrainingTest, ResumesNothingThatIsNotItsOwn) {
  TrainOptions options = Options("model");
  options.checkpoint_seconds = 0;
  options.resume = true;
  ASSERT_OK(ArmFaults("train.after_batch=stop@5"));
  ASSERT_EQ(Train(options, nullptr).status().code(), Code::kInternal);
  ASSERT_OK(ArmFaults(""));
  const std::string path = dir_ / "model.checkpoint";
  const std::string good = *ReadFile(path);

  TrainOptions other = options;
  other.learning_rate = 0.02;
  const Status settings = Train(other, nullptr).status();
  EXPECT_EQ(settings.code(), Code::kFailedPrecondition);
  EXPECT_NE(settings.message().find("learning_rate 0.01"), std::string::npos) << settings.message();
  other = options;
  other.until_ms = 3900;
  const Status data = Train(other, nullptr).status();
  EXPECT_EQ(data.code(), Code::kFailedPrecondition);
  EXPECT_NE(data.message().find("`until 0`, not `until 3900`"), std::string::npos) << data.message();

  std::string bad = good;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
  ASSERT_OK(WriteFileAtomically(path, bad));
  const Status damaged = Train(options, nullptr).status();
  EXPECT_EQ(damaged.code(), Code::kCorruption);
  EXPECT_NE(damaged.message().find("model.checkpoint"), std::string::npos) << damaged.message();
  EXPECT_EQ(ReadFile(dir_ / "model/model.yaml").status().code(), Code::kNotFound);

  options.resume = false;  // without it the checkpoint is not even read
  EXPECT_OK(Train(options, nullptr));
}

TEST_F(TrainingTest, WritesNothingWhenItFails) {
  TrainOptions options = Options("model");
  options.until_ms = 1;
  EXPECT_EQ(Train(options, nullptr).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(ReadFile(dir_ / "model/model.yaml").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace freshet
