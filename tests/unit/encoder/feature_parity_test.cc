// Two implementations of one extraction: ours, and that of deploy/scripts/freshet_features.py, by which towers from
// PyTorch are trained. A value that they read differently makes such a tower answer for another item.
#include <cstdio>
#include <fstream>

#include "feature_builder.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/core/yaml.h"
#include "freshet/encoder/feature_spec.h"
#include "freshet/ingest/event_file.h"
#include "freshet_test/test_support.h"
#include "goldens.h"
#include "model_manifest.h"

namespace freshet {
namespace {

// Every text that a value below may become stands in a vocabulary, so that a difference shows; what does not is in the
// one bucket after it.
const char* const kItemFeatures = R"([
  {"name": "item_id", "kind": "categorical", "vocabulary": ["a", "é", "Ab c"], "buckets": 1},
  {"name": "category", "kind": "categorical", "buckets": 1, "max_values": 3, "vocabulary":
   ["x", "y", "", "X", "1", "0", "-1", "3", "2.5", "true", "True", "nan", "[]"]},
  {"name": "number", "kind": "categorical", "buckets": 1, "vocabulary":
   ["0", "-0", "1", "3", "-2", "2.5", "0.1", "0.30000000000000004", "1e+16", "10000000000000000", "1e16", "1e-07",
    "1e-7", "1e-04", "0.0001", "0.001", "2.5e-05", "0.000025", "9007199254740991", "9007199254740992",
    "9007199254740993", "9007199254740994", "-9007199254740992", "1e+22", "1e+23", "123456789012345683968",
    "1.2345678901234568e+20", "12345678901234567000", "12345678901234567168", "1e+300", "1.5e-300", "5e-324", "5e-325",
    "1.7976931348623157e+308", "123456.789", "1234567.5", "100000", "1e+05", "1000000", "0.3333333333333333"]},
  {"name": "tags", "kind": "multi_valued", "buckets": 0, "max_values": 3, "vocabulary":
   ["x", "y", "z", "", "2", "2.5", "X Y"]},
  {"name": "title", "kind": "text", "buckets": 1, "max_values": 5, "vocabulary":
   ["red", "café", "cafÉ", "42", "shoes", "redshoes", "ÀB", "àb", "à", "b", "2", "5", "2.5", "1", "İx", "日本", "a", "0"]},
  {"name": "price", "kind": "dense", "mean": 1.25, "stddev": 0.3, "log": true},
  {"name": "weight", "kind": "dense", "mean": -2.0, "stddev": 7.0, "log": false}
])";

const char* const kItemRecords[] = {
    R"({"item_id": "a"})",
    R"({"item_id": "é", "features": {}})",
    R"({"item_id": "Ab c", "features": {"category": null, "tags": null, "title": null, "price": null}})",
    R"({"item_id": "ab c", "features": {"category": "", "tags": "", "title": "", "price": 0}})",
    // Lists where one value is wanted, and the other way round.
    R"({"item_id": "a", "features": {"category": ["x", "y"], "tags": ["x", null, "y", "z", "x"], "title": ["red", "shoes"]}})",
    R"({"item_id": "a", "features": {"category": [null, "y"], "tags": "X Y", "title": ["Red, CAFÉ", null, "42"]}})",
    R"({"item_id": "a", "features": {"category": [], "tags": [], "title": []}})",
    R"({"item_id": "a", "features": {"category": ["not", "y"], "tags": ["not", "x", "not", "y"], "title": "not red not"}})",
    // Numbers and booleans where texts are wanted.
    R"({"item_id": "a", "features": {"category": 3, "tags": 2, "title": 42, "price": "2.5", "weight": ["1"]}})",
    R"({"item_id": "a", "features": {"category": 3.0, "tags": 2.5, "title": 2.5, "price": true, "weight": false}})",
    R"({"item_id": "a", "features": {"category": true, "tags": false, "title": true}})",
    R"({"item_id": "a", "features": {"category": -1, "title": false}})",
    // Words.
    R"({"item_id": "a", "features": {"title": "RED-Café, (42) red"}})",
    R"({"item_id": "a", "features": {"title": "redShoes ÀB àb İx"}})",
    R"({"item_id": "a", "features": {"title": "日本 shoes\ttab\u0000nul\u00a0space a1"}})",
    R"({"item_id": "a", "features": {"title": "one two three four five red"}})",
    R"({"item_id": "a", "features": {"title": ["one two three", "four five red", "red"]}})",
    // Dense ones.
    R"({"item_id": "a", "features": {"price": 9.99, "weight": 1e300}})",
    R"({"item_id": "a", "features": {"price": -5, "weight": -1e300}})",
    R"({"item_id": "a", "features": {"price": 1e-07, "weight": 9007199254740993}})",
};

const char* const kNumbers[] = {"0",
                                "-0.0",
                                "0.0",
                                "1",
                                "3",
                                "3.0",
                                "-2",
                                "2.5",
                                "0.1",
                                "0.30000000000000004",
                                "1e16",
                                "10000000000000000",
                                "1e-07",
                                "0.0000001",
                                "1e-4",
                                "0.0001",
                                "0.001",
                                "2.5e-05",
                                "9007199254740991",
                                "9007199254740992",
                                "9007199254740993",
                                "9007199254740994",
                                "-9007199254740992",
                                "1e22",
                                "1e23",
                                "1.2345678901234568e20",
                                "12345678901234567168",
                                "1e300",
                                "1.5e-300",
                                "5e-324",
                                "1.7976931348623157e308",
                                "123456.789",
                                "1234567.5",
                                "100000",
                                "1e5",
                                "1000000.0",
                                "0.3333333333333333",
                                "18446744073709551615"};

const char* const kUserFeatures = R"([
  {"name": "history", "kind": "history", "vocabulary": ["a", "b", "c"], "buckets": 0, "max_values": 2},
  {"name": "user_id", "kind": "categorical", "vocabulary": ["u"], "buckets": 1},
  {"name": "country", "kind": "categorical", "vocabulary": ["DE", "UK"], "buckets": 1},
  {"name": "item_id", "kind": "multi_valued", "vocabulary": ["a", "b"], "buckets": 1},
  {"name": "age", "kind": "dense", "mean": 40.0, "stddev": 12.5}
])";

std::string Event(const char* item) {
  return StrCat(R"({"item_id": ")", item, R"(", "event": "view", "value": 1, "timestamp": 1})");
}

std::string User(const std::string& id, const std::string& history, const std::string& features) {
  return StrCat(R"({"user_id": ")", id, R"(", "history": [)", history, R"(], "features": {)", features,
                R"(}, "vector": [0]})");
}

FeatureSpec SpecOf(const std::string& features) {
  const Result<YamlNode> node = ParseYaml(features, "features");
  EXPECT_OK(node);
  Result<FeatureSpec> spec = FeatureSpec::FromYaml(*node, "features");
  EXPECT_OK(spec);
  return std::move(*spec);
}

class FeatureParityTest : public ::testing::Test {
 protected:
  // What the script makes of it; empty without a Python.
  std::string Python(const std::string& sides) {
    std::ofstream(dir_ / "sides.json") << sides;
    const std::string command = StrCat(FRESHET_PYTHON, " -B ", test::SourceRoot(),
                                       "/tests/unit/encoder/data/extract_rows.py ", dir_ / "sides.json");
    std::FILE* pipe = ::popen(command.c_str(), "r");
    EXPECT_NE(pipe, nullptr);
    std::string out;
    char buffer[4096];
    while (const std::size_t count = std::fread(buffer, 1, sizeof(buffer), pipe)) out.append(buffer, count);
    EXPECT_EQ(::pclose(pipe), 0);
    return out;
  }

  static void ExpectSame(const TowerInput& ours, const JsonValue& theirs) {
    std::vector<std::int64_t> indices;
    std::vector<std::int64_t> offsets;
    std::vector<float> dense;
    for (const JsonValue& one : JsonFind(theirs, "indices")->GetArray()) indices.push_back(one.GetInt64());
    for (const JsonValue& one : JsonFind(theirs, "offsets")->GetArray()) offsets.push_back(one.GetInt64());
    for (const JsonValue& one : JsonFind(theirs, "dense")->GetArray()) {
      dense.push_back(static_cast<float>(one.GetDouble()));
    }
    EXPECT_EQ(ours.dense, dense) << "to the bit";
    ASSERT_EQ(ours.offsets.size(), offsets.size());
    const auto bags = ours.offsets.size() / static_cast<std::size_t>(ours.rows);
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      const auto bag = [&](const std::vector<std::int64_t>& all, const std::vector<std::int64_t>& begins) {
        const std::int64_t end = i + 1 < begins.size() ? begins[i + 1] : static_cast<std::int64_t>(all.size());
        return std::vector<std::int64_t>(all.begin() + begins[i], all.begin() + end);
      };
      EXPECT_EQ(bag(ours.indices, ours.offsets), bag(indices, offsets)) << "row " << i / bags << ", bag " << i % bags;
    }
  }

  // Of the records above, as the stream has them: through the decoder. Their JSON, comma between them, goes to `json`.
  std::vector<ItemUpdate> Items(std::string* json) {
    std::string lines;
    const auto add = [&](const std::string& record) {
      lines += record + "\n";
      *json += (json->empty() ? "" : ",\n") + record;
    };
    for (const char* record : kItemRecords) add(record);
    for (const char* number : kNumbers) add(StrCat(R"({"item_id": "a", "features": {"number": )", number, "}}"));
    std::ofstream(dir_ / "items.jsonl") << lines;
    std::vector<ItemUpdate> items;
    EXPECT_OK(
        ForEachEvent(dir_ / "items.jsonl", TopicRole::kItems, DecodeLimits{}, [&](freshet::Event&& event, double) {
          items.push_back(std::get<ItemUpdate>(std::move(event.body)));
          return Status::Ok();
        }));
    return items;
  }

  // What the script makes of the items, and of one user by a history of one item, is what ours does; so is the space
  // id.
  void ExpectSameItems(const std::string& features, const FeatureSpec& spec) {
    std::string json;
    TowerInput ours;
    for (const ItemUpdate& item : Items(&json)) AppendItem(spec, item, &ours);
    const std::string users = R"([{"name": "history", "kind": "history", "vocabulary": ["a"]}])";
    const auto theirs = ParseJson(Python(StrCat(R"({"items": {"features": )", features, R"(, "records": [)", json,
                                                R"(]}, "users": {"features": )", users, R"(, "records": []}})")));
    ASSERT_OK(theirs);
    ExpectSame(ours, *JsonFind(**theirs, "items"));
    ModelManifest manifest;
    manifest.item = spec;
    manifest.user = SpecOf(users);
    manifest.dim = 8;
    manifest.sha256 = {{kItemTowerFile, "i"}, {kUserTowerFile, "u"}};
    EXPECT_EQ(JsonText(*JsonFind(**theirs, "space_id")), SpaceIdOf(manifest));
  }

  const test::TempDir dir_;
};

TEST_F(FeatureParityTest, PythonExtractsWhatServingExtracts) {
  if (std::string_view(FRESHET_PYTHON).empty()) GTEST_SKIP() << "there is no python3 to run the script with";
  const std::string users =
      User("u", "", "") + ",\n" + User("v", Event("a"), R"("country": "UK", "age": 33, "item_id": ["b", "z"])") +
      ",\n" +
      User("u", StrCat(Event("a"), ",", Event("zz"), ",", Event("b")), R"("country": ["FR", "UK"], "age": "old")") +
      ",\n" + User("u", StrCat(Event("a"), ",", Event("b"), ",", Event("c")), R"("age": 1e9, "item_id": "a")");

  TowerInput of_items;
  const FeatureSpec item_spec = SpecOf(kItemFeatures);
  std::string items;
  for (const ItemUpdate& item : Items(&items)) AppendItem(item_spec, item, &of_items);
  const Result<Goldens> goldens = GoldensFromJson(
      StrCat(R"({"tolerance": 0.001, "items": [{"item_id": "a", "vector": [0]}], "users": [)", users, "]}"), 1);
  ASSERT_OK(goldens);
  TowerInput of_users;
  const FeatureSpec user_spec = SpecOf(kUserFeatures);
  for (const UserContext& user : goldens->users) AppendUser(user_spec, user, &of_users);

  const std::string out =
      Python(StrCat(R"({"items": {"features": )", kItemFeatures, R"(, "records": [)", items,
                    R"(]}, "users": {"features": )", kUserFeatures, R"(, "records": [)", users, "]}}"));
  const auto rows = ParseJson(out);
  ASSERT_OK(rows);
  ASSERT_EQ(of_items.rows, static_cast<std::int64_t>(std::size(kItemRecords) + std::size(kNumbers)));
  ExpectSame(of_items, *JsonFind(**rows, "items"));
  ExpectSame(of_users, *JsonFind(**rows, "users"));
}

// Every run of words and characters has a row of its own, by a vocabulary that training learned from these records.
TEST_F(FeatureParityTest, PythonMakesTheSameNgrams) {
  if (std::string_view(FRESHET_PYTHON).empty()) GTEST_SKIP() << "there is no python3 to run the script with";
  for (const auto& [words, shortest, longest, most] :
       {std::array{1, 3, 5, 64}, {3, 0, 0, 64}, {2, 1, 2, 1000}, {0, 2, 3, 1000}, {5, 4, 10, 7}, {0, 3, 3, 2}}) {
    std::vector<FeatureRequest> requests;
    for (const char* name : {"category", "number", "tags", "title"}) {
      FeatureRequest& request = requests.emplace_back();
      request.name = name;
      request.kind = FeatureKind::kText;
      request.min_count = 1;
      request.buckets = 1;
      request.max_values = most;
      request.word_ngrams = words;
      request.char_min = shortest;
      request.char_max = longest;
    }
    FeatureBuilder builder(requests, "item");
    std::string json;
    for (ItemUpdate& item : Items(&json)) {
      std::erase_if(item.features, [](const auto& one) { return one.first == "price" || one.first == "weight"; });
      ASSERT_OK(builder.Add(item.features));
    }
    FeatureSpec spec;
    spec.features = *builder.Build();
    ASSERT_OK(spec.Finish());
    EXPECT_GT(spec.table_rows(), 60) << "the records have something to say";
    JsonWriter features;
    features.BeginArray();
    for (const FeatureDef& def : spec.features) {
      features.BeginObject().Key("name").String(def.name).Key("kind").String("text").Key("max_values").Int(most);
      features.Key("buckets").Int(1).Key("word_ngrams").Int(words);
      if (longest > 0) features.Key("char_ngrams").BeginArray().Int(shortest).Int(longest).EndArray();
      features.Key("vocabulary").BeginArray();
      for (const std::string& word : def.vocabulary) features.String(word);
      features.EndArray().EndObject();
    }
    features.EndArray();
    const std::string text = features.Take();
    EXPECT_EQ(SpecOf(text).ToYaml(0), spec.ToYaml(0));
    ExpectSameItems(text, spec);
  }
}

// Histories with items that have no row, event types that nobody knows, times that are missing or run backwards, and
// what was given back.
TEST_F(FeatureParityTest, PythonReadsTheSameHistories) {
  if (std::string_view(FRESHET_PYTHON).empty()) GTEST_SKIP() << "there is no python3 to run the script with";
  const auto event = [](const char* item, const char* what, const char* time, const char* value = "1") {
    return StrCat(R"({"item_id": ")", item, R"(", "event": ")", what, R"(", "value": )", value, R"(, "timestamp": )",
                  time, "}");
  };
  std::string users;
  for (const std::string& history :
       {std::string(), event("a", "view", "5000"), event("zz", "view", "5000"),
        StrCat(event("a", "view", "1000"), ",", event("zz", "buy", "1500"), ",", event("b", "buy", "2000"), ",",
               event("a", "rent", "62000"), ",", event("c", "view", "62001")),
        StrCat(event("a", "view", "0"), ",", event("b", "view", "8999999999999998"), ",", event("c", "buy", "-5")),
        StrCat(event("a", "view", "7000000"), ",", event("b", "", "333"), ",", event("c", "buy", "1333")),
        StrCat(event("a", "view", "8999999999999999"), ",", event("c", "buy", "8999999999999999")),
        StrCat(event("a", "view", "1000", "0.25"), ",", event("b", "buy", "1500"), ",",
               event("b", "rent", "2000", "-1"), ",", event("c", "view", "3000", "0"))}) {
    users += (users.empty() ? "" : ",\n") + User("u", history, "");
  }
  const Result<Goldens> goldens = GoldensFromJson(
      StrCat(R"({"tolerance": 0.001, "items": [{"item_id": "a", "vector": [0]}], "users": [)", users, "]}"), 1);
  ASSERT_OK(goldens);
  for (const char* to : {"newest", "previous"}) {
    for (const int most : {2, 64}) {
      const std::string features = StrCat(R"([
        {"name": "history", "kind": "history", "vocabulary": ["a", "b", "c"], "max_values": )",
                                          most, R"(},
        {"name": "history_events", "kind": "history_events", "vocabulary": ["buy", "view"], "buckets": 1},
        {"name": "history_gaps", "kind": "history_gaps", "boundaries": [-1, 0, 0.001, 0.5, 1, 60.001, 1e12], "to": ")",
                                          to, R"("}])");
      const FeatureSpec spec = SpecOf(features);
      TowerInput ours;
      for (const UserContext& user : goldens->users) AppendUser(spec, user, &ours);
      const auto theirs =
          ParseJson(Python(StrCat(R"({"items": {"features": [], "records": []}, "users": {"features": )", features,
                                  R"(, "records": [)", users, "]}}")));
      ASSERT_OK(theirs);
      ExpectSame(ours, *JsonFind(**theirs, "users"));
      ModelManifest manifest;
      manifest.user = spec;
      manifest.dim = 8;
      manifest.sha256 = {{kItemTowerFile, "i"}, {kUserTowerFile, "u"}};
      EXPECT_EQ(JsonText(*JsonFind(**theirs, "space_id")), SpaceIdOf(manifest));
    }
  }
}

TEST_F(FeatureParityTest, PythonFindsTheSameBuckets) {
  if (std::string_view(FRESHET_PYTHON).empty()) GTEST_SKIP() << "there is no python3 to run the script with";
  const std::string features = R"([
    {"name": "item_id", "kind": "categorical", "vocabulary": ["a"], "buckets": 1},
    {"name": "number", "kind": "bucketised", "boundaries":
     [-9007199254740992, -2, -1e-300, 0, 1e-7, 0.0001, 0.1, 0.30000000000000004, 0.3333333333333333, 1, 2.5, 3,
      9007199254740992, 9007199254740994, 1e16, 1e23, 1.7976931348623157e308]},
    {"name": "price", "kind": "bucketised", "boundaries": [0.5]},
    {"name": "weight", "kind": "bucketised", "boundaries": [-1e300, 0, 1]},
    {"name": "category", "kind": "bucketised", "boundaries": [0, 2, 3]},
    {"name": "title", "kind": "bucketised", "boundaries": [1]}
  ])";
  ExpectSameItems(features, SpecOf(features));
}

}  // namespace
}  // namespace freshet
