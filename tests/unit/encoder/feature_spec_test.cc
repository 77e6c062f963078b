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

// As in training: a return or a thumb down is no part of a history, and takes no place in it.
TEST(FeatureSpecTest, AHistoryIsOfWhatWasTaken) {
  FeatureDef history = Def("history", FeatureKind::kHistory, 0, {"a", "b", "c"});
  history.max_values = 2;
  FeatureDef gaps = Def("history_gaps", FeatureKind::kHistoryGaps, 0);
  gaps.boundaries = {1, 60};
  const FeatureSpec spec =
      Spec({history, Def("history_events", FeatureKind::kHistoryEvents, 1, {"buy", "return"}), gaps});
  UserContext user;
  user.history = {{"a", "buy", 0.5, 1'000}, {"b", "buy", 1, 2'000}};
  TowerInput without;
  AppendUser(spec, user, &without);
  EXPECT_EQ(without.indices.size(), 6U);
  user.history = {{"c", "return", -3, 500},
                  {"a", "buy", 0.5, 1'000},
                  {"c", "buy", 0, 1'500},
                  {"b", "buy", 1, 2'000},
                  {"b", "return", -1, 90'000}};
  TowerInput with;
  AppendUser(spec, user, &with);
  EXPECT_EQ(with.indices, without.indices);
  EXPECT_EQ(with.offsets, without.offsets);
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

TEST(FeatureSpecTest, ANumberIsInItsInterval) {
  FeatureDef price = Def("price", FeatureKind::kBucketised, 0);
  price.boundaries = {0, 1.5, 10};
  const FeatureSpec spec = Spec({Def("item_id", FeatureKind::kCategorical, 1), price});
  EXPECT_EQ(spec.table_rows(), 1 + 5) << "four intervals, and what is missing";
  EXPECT_EQ(spec.bag_count(), 2);
  TowerInput input;
  const std::pair<FeatureValue, std::int64_t> cases[] = {{-0.1, 0},
                                                         {0.0, 1},
                                                         {-0.0, 1},
                                                         {1.4999, 1},
                                                         {1.5, 2},
                                                         {9.0, 2},
                                                         {10.0, 3},
                                                         {1e300, 3},
                                                         {std::numeric_limits<double>::quiet_NaN(), 4},
                                                         {std::numeric_limits<double>::infinity(), 4},
                                                         {std::string("5"), 4},
                                                         {std::vector<std::string>{"5"}, 4}};
  for (const auto& [value, bucket] : cases) {
    input.Clear();
    ItemUpdate item;
    item.features = {{"price", value}};
    AppendItem(spec, item, &input);
    EXPECT_EQ(input.indices, (Indices{0, 1 + bucket}));
  }
  input.Clear();
  AppendItem(spec, {}, &input);
  EXPECT_EQ(input.indices, (Indices{0, 5})) << "a missing value is a value";
  EXPECT_EQ(input.offsets, (Indices{0, 1}));
}

// Each item of a history has its event and its gap at the same place of the bags beside it.
TEST(FeatureSpecTest, EventsAndGapsLieBesideTheHistory) {
  FeatureDef history = Def("history", FeatureKind::kHistory, 0, {"a", "b", "c"});
  history.max_values = 4;
  const FeatureDef events = Def("history_events", FeatureKind::kHistoryEvents, 1, {"view", "buy"});
  FeatureDef gaps = Def("history_gaps", FeatureKind::kHistoryGaps, 0);
  gaps.boundaries = {1, 60};  // rows: below a second, below a minute, more, not known
  const auto rows = [&](const std::vector<HistoryEntry>& of, GapsTo to) {
    gaps.to = to;
    const FeatureSpec spec = Spec({history, Def("user_id", FeatureKind::kCategorical, 1), events, gaps});
    EXPECT_EQ(spec.format(), 2);
    UserContext user;
    user.history = of;
    TowerInput input;
    AppendUser(spec, user, &input);
    EXPECT_EQ(input.offsets.size(), 4U);
    const auto bag = [&](std::size_t b) {
      const auto begin = input.indices.begin() + input.offsets[b];
      const auto end = b + 1 < 4 ? input.indices.begin() + input.offsets[b + 1] : input.indices.end();
      Indices out(begin, end);
      for (std::int64_t& row : out) row -= spec.row_base[b];
      return out;
    };
    return std::vector<Indices>{bag(0), bag(2), bag(3)};
  };
  const std::vector<HistoryEntry> some = {{"b", "view", 1, 1'000},
                                          {"a", "view", 1, 50'000},
                                          {"unknown", "buy", 1, 99'000},
                                          {"c", "hover", 1, 99'500},
                                          {"a", "buy", 1, 100'000}};
  // The oldest is not read, the unknown has no row: newest first a, c, a. Gaps: 0 s, 0.5 s, 50 s.
  EXPECT_EQ(rows(some, GapsTo::kNewest), (std::vector<Indices>{{0, 2, 0}, {1, 2, 0}, {0, 0, 1}}));
  // 0.5 s, 49.5 s, and nothing is read before the last.
  EXPECT_EQ(rows(some, GapsTo::kPrevious), (std::vector<Indices>{{0, 2, 0}, {1, 2, 0}, {0, 1, 3}}));
  EXPECT_EQ(rows({}, GapsTo::kNewest), (std::vector<Indices>{{}, {}, {}}));
  EXPECT_EQ(rows({{"unknown", "view", 1, 5}}, GapsTo::kNewest), (std::vector<Indices>{{}, {}, {}}));
  // Times that are not known, that cannot be, or that run backwards.
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(rows({{"a", "view", 1, 0}, {"b", "view", 1, 5}}, GapsTo::kNewest)[2], (Indices{0, 3}));
  EXPECT_EQ(rows({{"a", "view", 1, 5}, {"b", "view", 1, 0}}, GapsTo::kNewest)[2], (Indices{3, 3}));
  EXPECT_EQ(rows({{"a", "view", 1, kLeast}, {"b", "view", 1, kMost}}, GapsTo::kNewest)[2], (Indices{3, 3}));
  EXPECT_EQ(rows({{"a", "view", 1, 900'000}, {"b", "view", 1, 5}}, GapsTo::kPrevious)[2], (Indices{0, 3}));
}

// Of a text by each run of words and characters, in order.
TEST(FeatureSpecTest, NgramsOfWordsAndCharacters) {
  FeatureDef title = Def("title", FeatureKind::kText, 0);
  title.word_ngrams = 2;
  title.char_min = 3;
  title.char_max = 4;
  title.vocabulary = {"red",  "an",   "é",    "red an", "#<re",  "#red", "#ed>",
                      "#<an", "#an>", "#<é>", "#<red",  "#red>", "#<an>"};
  const auto of = [&](const FeatureValue& value) {
    const FeatureSpec spec = Spec({title});
    TowerInput input;
    ItemUpdate item;
    item.features = {{"title", value}};
    AppendItem(spec, item, &input);
    return input.indices;
  };
  EXPECT_EQ(of(std::string("RED, an")), (Indices{0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12}));
  EXPECT_EQ(of(std::vector<std::string>{"red", "an é"}), (Indices{0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12}))
      << "no run from one text into the next; é is one character, and <é> one run of three";
  title.max_values = 4;
  EXPECT_EQ(of(std::string("red an")), (Indices{0, 1, 3, 4}));
  title.word_ngrams = 0;
  EXPECT_EQ(of(std::string("red an")), (Indices{4, 5, 6, 7}));
  title.vocabulary = {"2.5", "#2.5"};
  title.max_values = 64;
  EXPECT_EQ(of(2.5), Indices{1}) << "a number is one word";
  title.word_ngrams = 1;
  EXPECT_EQ(of(2.5), (Indices{0, 1}));
  // What is no UTF-8 is cut somewhere, and nothing breaks.
  title.vocabulary.clear();
  title.buckets = 7;
  for (const char* bytes : {"\x80\x80", "\xff", "a\xc3", "\xe6\x97", "", " "}) of(std::string(bytes));
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
  EXPECT_EQ(spec.format(), 1);
  EXPECT_EQ(spec.ToYaml(0).find("ngrams"), std::string::npos) << "what older versions read";
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

TEST(FeatureSpecTest, YamlRoundTripsWhatCameWithFormat2) {
  FeatureDef price = Def("price", FeatureKind::kBucketised, 0);
  for (int i = 0; i < 45; ++i) price.boundaries.push_back(std::exp(i - 20.0) + 0.1);
  FeatureDef words = Def("words", FeatureKind::kText, 7, {"a b"});
  words.word_ngrams = 3;
  FeatureDef characters = Def("characters", FeatureKind::kText, 7);
  characters.word_ngrams = 0;
  characters.char_min = 2;
  characters.char_max = 5;
  const FeatureDef history = Def("history", FeatureKind::kHistory, 0, {"a"});
  const FeatureDef events = Def("history_events", FeatureKind::kHistoryEvents, 1, {"view", "null"});
  FeatureDef gaps = Def("history_gaps", FeatureKind::kHistoryGaps, 0);
  gaps.boundaries = {0.5, 60};
  gaps.to = GapsTo::kPrevious;
  for (const auto& defs : {std::vector{price},
                           {words},
                           {characters},
                           {price, words, characters},
                           {history, events},
                           {history, gaps},
                           {history, events, gaps}}) {
    const FeatureSpec spec = Spec(defs);
    EXPECT_EQ(spec.format(), 2);
    const Result<YamlNode> node = ParseYaml("root:\n" + spec.ToYaml(2), "x.yaml");
    ASSERT_OK(node);
    const Result<FeatureSpec> parsed = FeatureSpec::FromYaml(*node->Find("root"), "x.yaml");
    ASSERT_OK(parsed);
    EXPECT_EQ(parsed->ToYaml(2), spec.ToYaml(2));
    EXPECT_EQ(parsed->features[0].boundaries, spec.features[0].boundaries) << "to the last bit";
    EXPECT_EQ(parsed->features[0].word_ngrams, spec.features[0].word_ngrams);
    EXPECT_EQ(parsed->features[0].char_max, spec.features[0].char_max);
    EXPECT_EQ(parsed->features.back().to, spec.features.back().to);
  }
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
      {"- name: a\n  kind: bucketised\n", "feature `a`: needs 1 to 10000 `boundaries`"},
      {"- name: a\n  kind: bucketised\n  boundaries: [1, 1]\n", "`boundaries` must ascend"},
      {"- name: a\n  kind: bucketised\n  boundaries: [1, x]\n", "x.yaml:3: a finite number"},
      {"- name: a\n  kind: bucketised\n  boundaries: [1, .inf]\n", "x.yaml:3: a finite number"},
      {"- name: a\n  kind: bucketised\n  boundaries: 1\n", "x.yaml:3: `boundaries` must be a list"},
      {"- name: a\n  kind: bucketised\n  boundaries: [1]\n  buckets: 3\n", "neither vocabulary nor buckets"},
      {"- name: a\n  kind: categorical\n  buckets: 1\n  boundaries: [1]\n",
       "belong to the kinds bucketised and history_gaps"},
      {"- name: e\n  kind: history_events\n  buckets: 1\n", "belongs to the feature of that name"},
      {"- name: history_events\n  kind: history_events\n  buckets: 1\n",
       "lies beside `history`, which must come before"},
      {"- name: history\n  kind: history\n  buckets: 1\n- name: history_events\n  kind: history_events\n"
       "  vocabulary: [a]\n",
       "needs at least one of `buckets`"},
      {"- name: history_gaps\n  kind: history_gaps\n", "feature `history_gaps`: needs 1 to 10000 `boundaries`"},
      {"- name: history_gaps\n  kind: history_gaps\n  to: oldest\n", "x.yaml:3: `to` must be newest or previous"},
      {"- name: a\n  kind: bucketised\n  boundaries: [1]\n  to: previous\n", "`to` belongs to the kind history_gaps"},
      {"- name: a\n  kind: text\n  buckets: 1\n  word_ngrams: 6\n", "x.yaml:4: `word_ngrams` must be 0 to 5"},
      {"- name: a\n  kind: text\n  buckets: 1\n  word_ngrams: 0\n", "leaves nothing of a text"},
      {"- name: a\n  kind: text\n  buckets: 1\n  char_ngrams: [3]\n", "x.yaml:4: `char_ngrams` must be two"},
      {"- name: a\n  kind: text\n  buckets: 1\n  char_ngrams: [3, 2]\n", "`char_ngrams` must be two"},
      {"- name: a\n  kind: text\n  buckets: 1\n  char_ngrams: [0, 2]\n", "`char_ngrams` must be two"},
      {"- name: a\n  kind: text\n  buckets: 1\n  char_ngrams: [1.5, 2]\n", "`char_ngrams` must be two"},
      {"- name: a\n  kind: categorical\n  buckets: 1\n  word_ngrams: 2\n", "belong to the kind text"},
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
