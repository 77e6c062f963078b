#include "training_data.h"

#include <algorithm>
#include <fstream>
#include <random>

#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"
#include "input_cache.h"

namespace freshet {
namespace {

class TrainingDataTest : public ::testing::Test {
 protected:
  void Put(const std::string& file, const std::string& text) { std::ofstream(dir_ / file) << text; }

  TrainOptions Options() {
    TrainOptions options;
    options.items_file = dir_ / "items.jsonl";
    options.interactions_file = dir_ / "interactions.jsonl";
    options.out_directory = dir_ / "model";
    options.split.validation_fraction = 0.25;
    return options;
  }

  void PutItems() {
    Put("items.jsonl",
        R"({"item_id": "a", "features": {"price": 1.5}}
{"item_id": "b", "features": {"price": 2.5}}
{"item_id": "c", "features": {"price": 3.5}}
{"item_id": "gone", "features": {"price": 9}}
{"item_id": "gone", "deleted": true}
)");
  }

  static std::string Line(const std::string& user, const std::string& item, int time, double value = 1) {
    return R"({"user_id": ")" + user + R"(", "item_id": ")" + item + R"(", "value": )" + std::to_string(value) +
           R"(, "timestamp": )" + std::to_string(time) + "}\n";
  }

  void ExpectRefusal(const std::string& reason) {
    const Result<TrainingData> data = LoadTrainingData(Options());
    ASSERT_FALSE(data.ok());
    EXPECT_EQ(data.status().code(), Code::kInvalidArgument) << data.status().ToString();
    EXPECT_NE(data.status().message().find(reason), std::string::npos) << data.status().message();
  }

  const test::TempDir dir_;
};

TEST_F(TrainingDataTest, SplitsByTimeAndKeepsBaskets) {
  PutItems();
  // Out of order in the file; u's second basket is at 20; v appears in the validation part only.
  Put("interactions.jsonl", Line("u", "b", 20) + Line("u", "a", 10) + Line("u", "c", 20) + Line("u", "a", 30) +
                                Line("v", "a", 30) + Line("u", "gone", 15) + Line("u", "b", 16, -3));
  TrainOptions options = Options();
  options.split.validation_fraction = 0.4;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  EXPECT_EQ(data->items.size(), 3U) << "a deleted item is no candidate";
  EXPECT_EQ(data->unknown_items, 1);
  ASSERT_EQ(data->examples.size(), 3U);
  const auto u = static_cast<std::size_t>(data->examples[0].user);
  EXPECT_EQ(data->users[u].user_id, "u");
  EXPECT_EQ(data->sequences[u], (std::vector<std::int32_t>{0, 1, 2})) << "by time; a return is no positive";
  EXPECT_EQ(data->examples[2].position, 2);
  EXPECT_EQ(data->examples[2].earlier, 1) << "b was in the same basket";
  ASSERT_EQ(data->validation.size(), 1U) << "v has no history";
  EXPECT_EQ(data->validation[0].items, std::vector<std::int32_t>{0});
  EXPECT_EQ(data->item_counts, (std::vector<std::int64_t>{1, 1, 1}));
}

TEST_F(TrainingDataTest, EventsAndValuesWeighPairs) {
  PutItems();
  const auto line = [](const char* user, const char* item, const char* event, double value, int time) {
    return StrCat(R"({"user_id": ")", user, R"(", "item_id": ")", item, R"(", "event": ")", event, R"(", "value": )",
                  value, R"(, "timestamp": )", time, "}\n");
  };
  Put("interactions.jsonl", line("u", "a", "view", 1, 1) + line("u", "b", "buy", 4, 2) + line("u", "a", "like", 9, 3) +
                                line("u", "c", "view", 1, 4) + line("u", "b", "buy", 1, 5) +
                                line("u", "a", "buy", 1, 6) + line("u", "b", "view", 1, 7) +
                                line("u", "a", "view", 1, 8));
  TrainOptions options = Options();
  options.event_weights = {{"buy", 5}, {"view", 0}};
  options.value_weight = 0.5;
  options.split.validation_fraction = 0.375;  // b looked at, a bought, a looked at
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  ASSERT_EQ(data->sequences[0], (std::vector<std::int32_t>{0, 1, 0, 2, 1})) << "all that was done is history";
  ASSERT_EQ(data->examples.size(), 3U);
  EXPECT_EQ(data->examples[0].position, 1);
  EXPECT_EQ(data->examples[0].weight, 10.0F) << "5 sqrt(4)";
  EXPECT_EQ(data->examples[1].weight, 3.0F) << "what is not named weighs 1, here times sqrt(9)";
  EXPECT_EQ(data->examples[2].weight, 5.0F);
  EXPECT_EQ(data->item_counts, (std::vector<std::int64_t>{1, 2, 0})) << "c was only looked at";
  ASSERT_EQ(data->validation.size(), 1U);
  EXPECT_EQ(data->validation[0].items, std::vector<std::int32_t>{0}) << "what weighs nothing is not asked for";
  EXPECT_EQ(data->item_spec.features[0].vocabulary, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(data->user_spec.features[0].vocabulary.size(), 3U) << "a history also reads c";
  const InputCache cache(*data);
  const std::vector<std::int64_t> shared = cache.SharedRows();
  EXPECT_EQ(std::count(shared.begin(), shared.end(), -1), 1) << "but c has no row of the item tower to share";

  // What is asked for may also be said apart from what is learned.
  options.event_weights = {};
  options.split.events = {"view"};
  const Result<TrainingData> views = LoadTrainingData(options);
  ASSERT_OK(views);
  EXPECT_EQ(views->validation[0].items, (std::vector<std::int32_t>{0, 1}));
  options.split.events = {"buy"};
  const Result<TrainingData> bought = LoadTrainingData(options);
  ASSERT_OK(bought);
  EXPECT_EQ(bought->validation[0].items, std::vector<std::int32_t>{0});
  EXPECT_EQ(bought->examples.size(), views->examples.size()) << "all are pairs";
  options.split.events = {};

  options.event_weights = {{"bye", 5}};
  const Status status = LoadTrainingData(options).status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("is a `bye`: did you mean `buy`?"), std::string::npos) << status.message();
  options.event_weights = {{"view", 0}, {"buy", 0}, {"like", 0}};
  EXPECT_NE(LoadTrainingData(options).status().message().find("whose event weighs 0 do not count"), std::string::npos)
      << LoadTrainingData(options).status().message();
}

TEST_F(TrainingDataTest, UntilHidesWhatCameLater) {
  PutItems();
  std::string lines;
  for (int i = 0; i < 8; ++i) lines += Line("u", i % 2 == 0 ? "a" : "b", 10 + i);
  Put("interactions.jsonl", lines + Line("u", "c", 100));
  TrainOptions options = Options();
  options.until_ms = 100;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  EXPECT_EQ(data->item_counts[2], 0);
  for (const FeatureDef& def : data->item_spec.features) {
    if (def.name == "item_id") {
      EXPECT_EQ(def.vocabulary.size(), 2U) << "c was never bought before";
    }
  }
  options.until_ms = 5;
  EXPECT_EQ(LoadTrainingData(options).status().code(), Code::kInvalidArgument);
}

TEST_F(TrainingDataTest, SaysWhatCannotBeTrainedOn) {
  PutItems();
  Put("interactions.jsonl", "");
  ExpectRefusal("holds no positive interactions");
  Put("interactions.jsonl", Line("u", "x", 1) + Line("u", "y", 2));
  ExpectRefusal("the first is `x`");
  Put("interactions.jsonl", Line("u", "a", 5) + Line("u", "b", 5) + Line("v", "b", 5));
  ExpectRefusal("do they carry a `timestamp`");
  Put("interactions.jsonl", Line("u", "a", 1) + Line("u", "b", 2) + Line("v", "b", 3) + Line("w", "b", 4));
  ExpectRefusal("no user has interactions both before and in the validation part");
  TrainOptions late = Options();
  late.split.kind = SplitKind::kTime;
  late.split.validation_from_ms = 1000;
  EXPECT_NE(LoadTrainingData(late).status().message().find("the validation part is empty: all 4"), std::string::npos)
      << LoadTrainingData(late).status().message();
  Put("items.jsonl", "");
  ExpectRefusal("holds no items");
  Put("items.jsonl", "{\"item_id\": \"a\", \"features\": {\"price\": 1e999}}\n");
  ExpectRefusal("items.jsonl:1");
  TrainOptions options = Options();
  options.items_file = dir_ / "missing.jsonl";
  EXPECT_EQ(LoadTrainingData(options).status().code(), Code::kNotFound);
}

TEST_F(TrainingDataTest, WarnsOfWhatTeachesLittle) {
  Put("items.jsonl", R"({"item_id": "a", "features": {"price": 1.5, "currency": "EUR", "vat": 19}}
{"item_id": "b", "features": {"price": 2.5, "currency": "EUR", "vat": 19}}
)");
  std::string lines = Line("u", "a", 1) + Line("u", "b", 2) + Line("u", "a", 30);
  for (int i = 0; i < 5; ++i) lines += Line("once" + std::to_string(i), "b", 10 + i);
  Put("interactions.jsonl", lines);
  Put("users.jsonl", "{\"user_id\": \"u\", \"features\": {\"age\": 30}}\n");
  TrainOptions options = Options();
  options.users_file = dir_ / "users.jsonl";
  options.split.validation_fraction = 0.1;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  std::string all;
  for (const std::string& warning : data->warnings) all += warning + "\n";
  EXPECT_EQ(data->warnings.size(), 3U) << all;
  for (const char* wanted : {"items.jsonl: feature `currency` has the same value", "items.jsonl: feature `vat`",
                             "5 of 6 users have a single interaction"}) {
    EXPECT_NE(all.find(wanted), std::string::npos) << wanted << "\n" << all;
  }
}

TEST_F(TrainingDataTest, CachedRowsEqualTheExtractionOfServing) {
  PutItems();
  std::string lines;
  for (int i = 0; i < 12; ++i) lines += Line(i % 3 == 0 ? "v" : "u", i % 2 == 0 ? "a" : "b", 10 + i);
  lines += Line("u", "c", 12, -1);  // a return
  Put("interactions.jsonl", lines);
  Put("users.jsonl",
      "{\"user_id\": \"u\", \"features\": {\"age\": 30}}\n{\"user_id\": \"v\", \"features\": {\"age\": 40}}\n");
  TrainOptions options = Options();
  options.users_file = dir_ / "users.jsonl";
  options.history = 3;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  const InputCache cache(*data);

  TowerInput cached;
  TowerInput served;
  for (std::size_t i = 0; i < data->items.size(); ++i) {
    cache.AppendItem(static_cast<std::int32_t>(i), false, &cached);
    AppendItem(data->item_spec, data->items[i], &served);
  }
  EXPECT_EQ(cached.indices, served.indices);
  EXPECT_EQ(cached.offsets, served.offsets);
  EXPECT_EQ(cached.dense, served.dense);

  cached.Clear();
  served.Clear();
  for (std::size_t u = 0; u < data->users.size(); ++u) {
    UserContext user = data->users[u];
    for (const std::int32_t item : data->sequences[u]) {
      user.history.push_back({data->items[static_cast<std::size_t>(item)].item_id, "view", 1.0, 0});
    }
    user.history.push_back({"a", "view", -1.0, 0});  // serving keeps returns, and the tower reads them as little
    cache.AppendUser(static_cast<std::int32_t>(u), &cached);
    AppendUser(data->user_spec, user, &served);
  }
  std::sort(cached.indices.begin(), cached.indices.end());  // the order within a bag means nothing
  std::sort(served.indices.begin(), served.indices.end());
  EXPECT_EQ(cached.indices, served.indices);
  EXPECT_EQ(cached.offsets, served.offsets);
  EXPECT_EQ(cached.dense, served.dense);

  cached.Clear();
  served.Clear();
  ItemUpdate stranger = data->items[0];
  stranger.item_id = "never seen";
  cache.AppendItem(0, true, &cached);
  AppendItem(data->item_spec, stranger, &served);
  EXPECT_EQ(cached.indices, served.indices) << "a hidden id looks like a new item";

  // Where the history is shared, a row of it is the id row of the same item; profiles have rows of their own.
  const std::vector<std::int64_t> shared = cache.SharedRows();
  const FeatureDef& history = data->user_spec.features[0];
  const FeatureDef& ids = data->item_spec.features[0];
  ASSERT_EQ(history.name, "history");
  ASSERT_EQ(ids.name, "item_id");
  ASSERT_EQ(static_cast<std::int64_t>(shared.size()), data->user_spec.table_rows());
  for (std::size_t row = 0; row < shared.size(); ++row) {
    if (row >= history.vocabulary.size()) {
      EXPECT_EQ(shared[row], -1) << row;
    } else {
      EXPECT_EQ(ids.vocabulary[static_cast<std::size_t>(shared[row])], history.vocabulary[row]);
    }
  }
}

// What a configuration asks of features is what the package holds, and what training reads is what serving extracts.
TEST_F(TrainingDataTest, FitsWhatTheConfigurationAsksFor) {
  Put("items.jsonl", R"({"item_id": "a", "features": {"price": 1.5, "title": "red lamp", "code": 7}}
{"item_id": "b", "features": {"price": 2.5, "title": "blue lamp", "code": 8}}
{"item_id": "c", "features": {"price": 3.5, "title": "green lamp", "code": 7}}
{"item_id": "d", "features": {"price": 3.5, "title": "green lamp", "code": 7}}
)");
  std::string lines;
  for (int i = 0; i < 16; ++i) lines += Line(i % 3 == 0 ? "v" : "u", i % 2 == 0 ? "a" : "b", 10 + i);
  Put("interactions.jsonl", Line("u", "c", 1) + lines);
  TrainOptions options = Options();
  const Result<YamlNode> yaml = ParseYaml(R"(
items:
  - {name: item_id, kind: categorical, min_count: 2, buckets: 50}
  - {name: code, kind: categorical, min_count: 1}
  - {name: price, kind: ignore}
  - {name: title, kind: text, vocabulary_size: 0, buckets: 64}
users:
  - {name: history, kind: history, min_count: 2, buckets: 20}
)",
                                          "c.yaml");
  ASSERT_OK(yaml);
  const Result<FeatureRequests> requests = FeatureRequestsFromYaml(*yaml, "c.yaml");
  ASSERT_OK(requests);
  options.features = *requests;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  ASSERT_EQ(data->item_spec.features.size(), 3U);
  EXPECT_EQ(data->item_spec.features[0].vocabulary, (std::vector<std::string>{"a", "b"})) << "c was taken once";
  EXPECT_EQ(data->item_spec.features[1].vocabulary, (std::vector<std::string>{"7", "8"}));
  EXPECT_EQ(data->item_spec.features[2].rows(), 64);
  EXPECT_EQ(data->user_spec.features[0].buckets, 20);

  const InputCache cache(*data);
  TowerInput cached;
  TowerInput served;
  for (std::size_t i = 0; i < data->items.size(); ++i) {
    cache.AppendItem(static_cast<std::int32_t>(i), false, &cached);
    AppendItem(data->item_spec, data->items[i], &served);
    UserContext user;
    user.history.push_back({data->items[i].item_id, "view", 1.0, 0});
    TowerInput history;
    AppendUser(data->user_spec, user, &history);
    EXPECT_EQ(cache.InHistories(static_cast<std::int32_t>(i)), !history.indices.empty());
  }
  EXPECT_EQ(cached.indices, served.indices);
  EXPECT_EQ(cached.offsets, served.offsets);
  // A hidden id is in the bucket that a new item of its name would be in.
  for (std::size_t i = 0; i < data->items.size(); ++i) {
    cached.Clear();
    cache.AppendItem(static_cast<std::int32_t>(i), true, &cached);
    const std::string& id = data->items[i].item_id;
    EXPECT_EQ(cached.indices[0], 2 + static_cast<std::int64_t>(Xxh3(id) % 50)) << id;
  }
  // Rows that many ids share are nobody's own.
  const std::vector<std::int64_t> shared = cache.SharedRows();
  EXPECT_EQ(std::count(shared.begin(), shared.end(), -1), 20);
  EXPECT_EQ(shared[0], 0);

  options.features.items[1].name = "codes";
  const Status status = LoadTrainingData(options).status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(
      status.message().find("c.yaml:4: feature `codes`: no item of the training part has it: did you mean `code`?"),
      std::string::npos)
      << status.message();
}

// Event types and gaps of a history: every part of it that a batch may read, to the bit.
TEST_F(TrainingDataTest, CachedHistoriesEqualTheExtractionOfServing) {
  PutItems();
  const char* const events[] = {"view", "buy", "like"};
  std::string lines;
  for (int i = 0; i < 24; ++i) {
    const int time = 1000 + i * i * i * 40;  // from ticks to minutes
    std::string line = Line(i % 3 == 0 ? "v" : "u", i % 4 == 0 ? "a" : i % 4 == 1 ? "b" : "c", time);
    lines += line.replace(line.find("\"value\""), 7,
                          std::string("\"event\": \"") + events[i > 12 ? i % 3 : i % 2] + "\", \"value\"");
  }
  Put("interactions.jsonl", lines);
  TrainOptions options = Options();
  options.history = 5;
  for (const char* to : {"newest", "previous"}) {
    const Result<YamlNode> yaml = ParseYaml(StrCat(R"(
users:
  - {name: history_gaps, kind: history_gaps, to: )",
                                                   to, R"(, boundaries: [0.5, 2, 5, 20, 60, 120]}
  - {name: history, kind: history, min_count: 3}
  - {name: history_events, kind: history_events, vocabulary: [buy, view], buckets: 2}
)"),
                                            "c.yaml");
    ASSERT_OK(yaml);
    options.features = *FeatureRequestsFromYaml(*yaml, "c.yaml");
    const Result<TrainingData> data = LoadTrainingData(options);
    ASSERT_OK(data);
    ASSERT_EQ(data->user_spec.features.size(), 3U);
    EXPECT_EQ(data->user_spec.features[1].kind, FeatureKind::kHistoryEvents) << "in the order that towers expect";
    const InputCache cache(*data);
    EXPECT_EQ(cache.history_bag(), 0);
    EXPECT_EQ(cache.history_beside(), 2);
    std::mt19937_64 random(test::TestSeed());
    std::int64_t told_apart = 0;
    for (int i = 0; i < 200; ++i) {
      const std::size_t u = random() % data->users.size();
      UserContext user = data->users[u];
      std::vector<std::int32_t> positions;
      for (std::size_t at = 0; at < data->sequences[u].size(); ++at) {
        if (random() % 3 == 0) continue;
        positions.push_back(static_cast<std::int32_t>(at));
        user.history.push_back({data->items[static_cast<std::size_t>(data->sequences[u][at])].item_id,
                                data->event_names[static_cast<std::size_t>(data->sequence_events[u][at])], 1.0,
                                data->sequence_times_ms[u][at]});
      }
      TowerInput cached;
      TowerInput served;
      cache.AppendUser(static_cast<std::int32_t>(u), positions, {}, &cached);
      AppendUser(data->user_spec, user, &served);
      EXPECT_EQ(cached.indices, served.indices);
      EXPECT_EQ(cached.offsets, served.offsets);
      ASSERT_EQ(cached.offsets.size(), 3U);
      EXPECT_EQ(static_cast<std::size_t>(cached.offsets[1]) * 3, cached.indices.size())
          << "one row each beside an item";

      // Hidden, it is the history of somebody of whom the item ids alone are known.
      const std::vector<std::int64_t> told = cached.indices;
      cached.Clear();
      served.Clear();
      cache.AppendUser(static_cast<std::int32_t>(u), positions, {.context = true}, &cached);
      for (HistoryEntry& entry : user.history) entry.timestamp_ms = 0;
      AppendUser(data->user_spec, user, &served);
      const auto gaps = static_cast<std::ptrdiff_t>(cached.offsets[2]);
      EXPECT_TRUE(std::equal(cached.indices.begin() + gaps, cached.indices.end(), served.indices.begin() + gaps));
      const std::int64_t first = data->user_spec.row_base[1];
      for (std::int64_t at = cached.offsets[1]; at < cached.offsets[2]; ++at) {
        const std::int64_t row = cached.indices[static_cast<std::size_t>(at)] - first;
        EXPECT_TRUE(row == 2 || row == 3) << row;
      }
      told_apart += told != cached.indices ? 1 : 0;
    }
    EXPECT_GT(told_apart, 100);
  }
}

// Only where it is asked for; and then hidden as one that nobody knows.
TEST_F(TrainingDataTest, UserIdsAreReadWhereTheyAreNamed) {
  PutItems();
  std::string lines;
  for (int i = 0; i < 12; ++i) lines += Line(i % 3 == 0 ? "v" : "u", i % 2 == 0 ? "a" : "b", 10 + i);
  Put("interactions.jsonl", Line("once", "a", 1) + lines);
  TrainOptions options = Options();
  options.features.users.resize(1);
  options.features.users[0].name = "user_id";
  options.features.users[0].buckets = 4;
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  ASSERT_EQ(data->user_spec.features.size(), 2U);
  const FeatureDef& id = data->user_spec.features[1];
  EXPECT_EQ(id.name, "user_id");
  EXPECT_EQ(id.vocabulary, (std::vector<std::string>{"u", "v"})) << "of a single pair nothing is learned";
  EXPECT_TRUE(options.ReadsUserId());
  const InputCache cache(*data);
  EXPECT_TRUE(cache.reads_user_id());
  const std::int64_t first = data->user_spec.row_base[1];
  for (std::size_t u = 0; u < data->users.size(); ++u) {
    TowerInput cached;
    TowerInput served;
    cache.AppendUser(static_cast<std::int32_t>(u), {}, {}, &cached);
    AppendUser(data->user_spec, data->users[u], &served);
    EXPECT_EQ(cached.indices, served.indices);
    cached.Clear();
    cache.AppendUser(static_cast<std::int32_t>(u), {}, {.id = true}, &cached);
    const auto bucket = static_cast<std::int64_t>(Xxh3(data->users[u].user_id) % 4);
    EXPECT_EQ(cached.indices, std::vector<std::int64_t>{first + 2 + bucket}) << data->users[u].user_id;
  }
  options.features.users.clear();
  const Result<TrainingData> without = LoadTrainingData(options);
  ASSERT_OK(without);
  EXPECT_EQ(without->user_spec.features.size(), 1U);
  EXPECT_FALSE(InputCache(*without).reads_user_id());
}

TEST_F(TrainingDataTest, GapsToTheNewestAreNotForSequences) {
  TrainOptions options = Options();
  FeatureRequest& gaps = options.features.users.emplace_back();
  gaps.name = "history_gaps";
  gaps.kind = FeatureKind::kHistoryGaps;
  gaps.where = "c.yaml:7";
  options.pooling = "gru";
  EXPECT_OK(options.Validate());
  PutItems();
  std::string lines;
  for (int i = 0; i < 16; ++i) lines += Line("u", i % 2 == 0 ? "a" : "b", 10 + i);
  Put("interactions.jsonl", lines);
  const Result<TrainingData> data = LoadTrainingData(options);
  ASSERT_OK(data);
  EXPECT_EQ(data->user_spec.features[1].to, GapsTo::kPrevious);
  EXPECT_EQ(data->user_spec.features[1].boundaries.size(), 11U) << "from a minute to a year";
  gaps.to = GapsTo::kNewest;
  const Status status = options.Validate();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("c.yaml:7"), std::string::npos) << status.message();
  options.pooling = "attention";
  EXPECT_OK(options.Validate());
}

}  // namespace
}  // namespace freshet
