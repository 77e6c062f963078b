#include "freshet/encoder/feature_spec.h"

#include <cmath>
#include <limits>

#include "freshet/core/checksum.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

FeatureDef Def(std::string name, FeatureKind kind, std::int64_t buckets, std::vector<std::string> vocabulary = {}) {
  FeatureDef def;
  def.name = std::move(name);
  def.kind = kind;
  def.buckets = buckets;
  def.vocabulary = std::move(vocabulary);
  return def;
}

FeatureSpec Spec(std::vector<FeatureDef> defs) {
  FeatureSpec spec;
  spec.features = std::move(defs);
  EXPECT_OK(spec.Finish());
  return spec;
}

std::int64_t Bucket(std::string_view value, std::int64_t buckets) {
  return static_cast<std::int64_t>(Xxh3(value) % static_cast<std::uint64_t>(buckets));
}

using Indices = std::vector<std::int64_t>;

TEST(FeatureSpecTest, VocabularyRowsComeFirstThenHashBuckets) {
  const FeatureSpec spec =
      Spec({Def("item_id", FeatureKind::kCategorical, 2, {"a", "b"}), Def("color", FeatureKind::kCategorical, 10)});
  EXPECT_EQ(spec.table_rows(), 14);
  TowerInput input;
  ItemUpdate item;
  item.item_id = "b";
  item.features = {{"color", std::string("red")}};
  AppendItem(spec, item, &input);
  item.item_id = "new";
  item.features.clear();
  AppendItem(spec, item, &input);
  EXPECT_EQ(input.indices, (Indices{1, 4 + Bucket("red", 10), 2 + Bucket("new", 2)}));
  EXPECT_EQ(input.offsets, (Indices{0, 1, 2, 3})) << "a missing feature is an empty bag";
  EXPECT_EQ(input.rows, 2);
}

TEST(FeatureSpecTest, WithoutBucketsAnUnknownValueIsAnEmptyBag) {
  const FeatureSpec spec = Spec({Def("item_id", FeatureKind::kCategorical, 0, {"a"})});
  TowerInput input;
  ItemUpdate item;
  item.item_id = "z";
  AppendItem(spec, item, &input);
  EXPECT_TRUE(input.indices.empty());
  EXPECT_EQ(input.offsets, Indices{0});
}

TEST(FeatureSpecTest, NumbersAsCategoriesArePlainText) {
  const FeatureSpec spec = Spec({Def("n", FeatureKind::kCategorical, 0, {"3", "-2", "2.5", "9007199254740993"})});
  TowerInput input;
  for (const double n : {3.0, -2.0, 2.5}) {
    ItemUpdate item;
    item.features = {{"n", n}};
    AppendItem(spec, item, &input);
  }
  EXPECT_EQ(input.indices, (Indices{0, 1, 2}));
}

TEST(FeatureSpecTest, ListsAreBoundedAndTextIsSplitIntoWords) {
  FeatureDef tags = Def("tags", FeatureKind::kMultiValued, 0, {"x", "y", "z"});
  tags.max_values = 2;
  FeatureDef title = Def("title", FeatureKind::kText, 0, {"red", "café", "42"});
  title.max_values = 3;
  const FeatureSpec spec = Spec({tags, title});
  ItemUpdate item;
  item.features = {{"tags", std::vector<std::string>{"z", "y", "x"}}, {"title", std::string("RED-Café, (42) red")}};
  TowerInput input;
  AppendItem(spec, item, &input);
  EXPECT_EQ(input.indices, (Indices{2, 1, 3, 4, 5}));
  EXPECT_EQ(input.offsets, (Indices{0, 2}));
}

TEST(FeatureSpecTest, HistoryTakesTheNewest) {
  FeatureDef history = Def("history", FeatureKind::kHistory, 0, {"a", "b", "c"});
  history.max_values = 2;
  const FeatureSpec spec = Spec({history, Def("user_id", FeatureKind::kCategorical, 1)});
  UserContext user;
  user.user_id = "u";
  for (const char* id : {"a", "b", "c"}) user.history.push_back({id, "view", 1.0, 0});
  TowerInput input;
  AppendUser(spec, user, &input);
  EXPECT_EQ(input.indices, (Indices{2, 1, 3}));
  EXPECT_EQ(input.offsets, (Indices{0, 2}));
}

TEST(FeatureSpecTest, DenseIsStandardisedAndMissingIsTheMean) {
  FeatureDef price = Def("price", FeatureKind::kDense, 0);
  price.mean = 1;
  price.stddev = 2;
  FeatureDef sales = price;
  sales.name = "sales";
  sales.log = true;
  const FeatureSpec spec = Spec({price, sales});
  EXPECT_EQ(spec.dense_count(), 2);
  EXPECT_EQ(spec.bag_count(), 0);
  TowerInput input;
  ItemUpdate item;
  item.features = {{"price", 5.0}, {"sales", std::expm1(3.0)}};
  AppendItem(spec, item, &input);
  item.features = {{"price", std::numeric_limits<double>::quiet_NaN()}, {"sales", std::string("many")}};
  AppendItem(spec, item, &input);
  item.features = {{"price", 1e30}, {"sales", -5.0}};
  AppendItem(spec, item, &input);
  ASSERT_EQ(input.dense.size(), 6U);
  EXPECT_FLOAT_EQ(input.dense[0], 2);
  EXPECT_FLOAT_EQ(input.dense[1], 1);
  EXPECT_FLOAT_EQ(input.dense[2], 0);
  EXPECT_FLOAT_EQ(input.dense[3], 0);
  EXPECT_FLOAT_EQ(input.dense[4], 10) << "outliers are clipped";
  EXPECT_FLOAT_EQ(input.dense[5], -0.5F);
}

TEST(FeatureSpecTest, YamlRoundTrips) {
  FeatureDef dense = Def("price", FeatureKind::kDense, 0);
  dense.mean = 0.1 + 0.2;
  dense.stddev = 1.0 / 3;
  dense.log = true;
  std::vector<std::string> words;
  for (int i = 0; i < 300; ++i) words.push_back("w" + std::to_string(i));
  words.insert(words.end(), {"", "yes", "null", "a: b", "\"quoted\"", "new\nline", "# no comment", "ключ", "~", "[x]"});
  const FeatureSpec spec =
      Spec({Def("item_id", FeatureKind::kCategorical, 1, words), dense, Def("t: x", FeatureKind::kText, 7)});
  const std::string yaml = "root:\n" + spec.ToYaml(2);
  const Result<YamlNode> node = ParseYaml(yaml, "x.yaml");
  ASSERT_OK(node);
  const Result<FeatureSpec> parsed = FeatureSpec::FromYaml(*node->Find("root"), "x.yaml");
  ASSERT_OK(parsed);
  EXPECT_EQ(parsed->ToYaml(2), spec.ToYaml(2));
  EXPECT_EQ(parsed->features[0].vocabulary, words);
  EXPECT_EQ(parsed->features[1].mean, dense.mean) << "to the last bit";
  EXPECT_EQ(parsed->table_rows(), spec.table_rows());
}

TEST(FeatureSpecTest, RefusesMistakesWithTheirLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"- name: a\n  kind: dense\n- name: a\n  kind: dense\n", "named twice"},
      {"- name: a\n  kind: text\n", "needs a vocabulary or buckets"},
      {"- name: a\n  kind: texts\n  buckets: 3\n", "x.yaml:2: `texts` is no kind"},
      {"- name: a\n  kind: text\n  buckets: -1\n", "out of range"},
      {"- name: a\n  kind: text\n  buckets: 1.5\n", "x.yaml:3: a whole number"},
      {"- name: a\n  kind: dense\n  stddev: 0\n", "`stddev` finite and above 0"},
      {"- name: a\n  kind: dense\n  mean: .nan\n", "a finite number is wanted"},
      {"- name: a\n  kind: text\n  bucket: 1\n", "unknown key `bucket`"},
      {"- name: a\n  kind: text\n  vocabulary: [x, x]\n", "in the vocabulary twice"},
      {"- name: a\n  kind: history\n  buckets: 1\n", "belongs to the feature of that name"},
      {"- kind: dense\n", "needs `name` and `kind`"},
      {"[]\n", "at least one feature"},
      {"a: b\n", "must be a list"},
  };
  for (const auto& [yaml, reason] : cases) {
    const Result<YamlNode> node = ParseYaml(yaml, "x.yaml");
    ASSERT_OK(node);
    const Result<FeatureSpec> spec = FeatureSpec::FromYaml(*node, "x.yaml");
    ASSERT_FALSE(spec.ok()) << yaml;
    EXPECT_EQ(spec.status().code(), Code::kConfig);
    EXPECT_NE(spec.status().message().find(reason), std::string::npos) << spec.status().message();
  }
}

}  // namespace
}  // namespace freshet
