// What a configuration says of single features, and what of it is refused.
#include "freshet/encoder/feature_request.h"

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

Result<FeatureRequests> Read(const std::string& yaml) {
  const Result<YamlNode> node = ParseYaml(yaml, "c.yaml");
  EXPECT_OK(node);
  return FeatureRequestsFromYaml(*node, "c.yaml");
}

TEST(FeatureRequestTest, ReadsBothSides) {
  const Result<FeatureRequests> read = Read(R"(
items:
  - {name: item_id, kind: categorical, min_count: 5, buckets: 100}
  - {name: title, kind: text, vocabulary_size: 0, buckets: 20000, max_values: 128}
  - {name: price, kind: dense, log: false}
  - {name: internal, kind: ignore}
users:
  - {name: history, kind: history, vocabulary_size: 1000}
  - name: country
    kind: categorical
    vocabulary: [DE, "no", ""]
)");
  ASSERT_OK(read);
  ASSERT_EQ(read->items.size(), 4U);
  EXPECT_EQ(read->items[0].min_count, 5);
  EXPECT_EQ(read->items[1].kind, FeatureKind::kText);
  EXPECT_EQ(read->items[1].vocabulary_size, 0);
  EXPECT_EQ(read->items[1].buckets, 20000);
  EXPECT_EQ(read->items[1].max_values, 128);
  EXPECT_EQ(read->items[2].log, false);
  EXPECT_EQ(read->items[2].where, "c.yaml:5");
  EXPECT_TRUE(read->items[3].ignore);
  ASSERT_EQ(read->users.size(), 2U);
  EXPECT_EQ(read->users[0].vocabulary_size, 1000);
  EXPECT_EQ(read->users[1].vocabulary, (std::vector<std::string>{"DE", "no", ""}));
}

TEST(FeatureRequestTest, ReadsBucketsAndNgrams) {
  const Result<FeatureRequests> read = Read(R"(
items:
  - {name: price, kind: bucketised, boundaries: [-1, 0, 2.5]}
  - {name: weight, kind: bucketised, quantiles: 4}
  - {name: title, kind: text, word_ngrams: 2, char_ngrams: [3, 5]}
)");
  ASSERT_OK(read);
  EXPECT_EQ(read->items[0].boundaries, (std::vector<double>{-1, 0, 2.5}));
  EXPECT_EQ(read->items[1].quantiles, 4);
  EXPECT_TRUE(read->items[1].boundaries.empty());
  EXPECT_EQ(read->items[2].word_ngrams, 2);
  EXPECT_EQ(read->items[2].char_min, 3);
  EXPECT_EQ(read->items[2].char_max, 5);
}

TEST(FeatureRequestTest, ReadsWhatLiesBesideAHistory) {
  const Result<FeatureRequests> read = Read(R"(
users:
  - {name: history_events, kind: history_events, vocabulary: [view, buy], buckets: 2}
  - {name: history_gaps, kind: history_gaps, to: previous, boundaries: [60, 3600]}
)");
  ASSERT_OK(read);
  EXPECT_EQ(read->users[0].kind, FeatureKind::kHistoryEvents);
  EXPECT_EQ(read->users[0].vocabulary.size(), 2U);
  EXPECT_EQ(read->users[1].to, GapsTo::kPrevious);
  EXPECT_EQ(read->users[1].boundaries, (std::vector<double>{60, 3600}));
}

TEST(FeatureRequestTest, TellsEveryMistakeWithItsLineAndWhatToDo) {
  const std::pair<const char*, const char*> cases[] = {
      {"items: [{name: a, kind: txt}]", "c.yaml:1: `txt` is no kind of feature: did you mean `text`?"},
      {"items: [{name: a, kind: text, bucket: 1}]",
       "feature `a`: a text one has no key `bucket`: did you mean `buckets`? (it has `vocabulary`, `vocabulary_size`"},
      {"items: [{name: a, kind: dense, buckets: 1}]", "a dense one has no key `buckets` (it has `log`)"},
      {"items: [{name: a, kind: dense, log: yes}]", "`log` must be true or false"},
      {"items: [{name: a, kind: text, buckets: -1}]", "`buckets` must be a whole number from 0 to 10000000"},
      {"items: [{name: a, kind: text, min_count: 0}]", "`min_count` must be a whole number from 1"},
      {"items: [{name: a, kind: text, max_values: 70000}]", "`max_values` must be a whole number from 1 to 65536"},
      {"items: [{name: a, kind: text, vocabulary_size: 0}]", "it needs `buckets`"},
      {"items: [{name: a, kind: text, vocabulary: [x, x]}]", "`x` is in the vocabulary twice"},
      {"items: [{name: a, kind: text, vocabulary: []}]", "`vocabulary` must be a list"},
      {"items: [{name: a, kind: text, vocabulary: [x], min_count: 3}]", "a vocabulary that is given is not learned"},
      {"items: [{name: a, kind: ignore, buckets: 3}]", "a feature that is ignored has nothing but its name"},
      {"items:\n- {name: a, kind: dense}\n- {name: a, kind: text}", "c.yaml:3: feature `a` is named twice"},
      {"items: [{name: item_id, kind: ignore}]", "`id_dropout` of `train` says how often it is hidden"},
      {"items: [{name: item_id, kind: categorical, vocabulary: [a]}]", "has no key `vocabulary`"},
      {"items: [{name: history, kind: history}]", "belongs to `users`"},
      {"users: [{name: history, kind: ignore}]", "`history` is of kind `history`"},
      {"users: [{name: clicks, kind: history}]", "belongs to the feature `history`"},
      {"users: [{name: item_id, kind: categorical}]", "`item_id` belongs to `items`"},
      {"users: [{kind: dense}]", "a feature needs `name` and `kind`"},
      {"users: [x]", "a feature must be a mapping"},
      {"items: [{name: a, kind: bucketised, boundaries: [2, 1]}]", "`boundaries` must be a list of 1 to 10000 numbers"},
      {"items: [{name: a, kind: bucketised, boundaries: []}]", "`boundaries` must be a list"},
      {"items: [{name: a, kind: bucketised, boundaries: [.nan]}]", "`boundaries` must be a list"},
      {"items: [{name: a, kind: bucketised, boundaries: [1], quantiles: 3}]", "either `boundaries` or `quantiles`"},
      {"items: [{name: a, kind: bucketised, quantiles: 1}]", "`quantiles` must be a whole number from 2 to 1000"},
      {"items: [{name: a, kind: bucketised, log: true}]", "a bucketised one has no key `log`"},
      {"items: [{name: a, kind: dense, boundaries: [1]}]", "a dense one has no key `boundaries`"},
      {"items: [{name: a, kind: text, word_ngrams: 9}]", "`word_ngrams` must be a whole number from 0 to 5"},
      {"items: [{name: a, kind: text, word_ngrams: 0}]", "leaves nothing of a text"},
      {"items: [{name: a, kind: text, char_ngrams: 3}]", "`char_ngrams` must be two whole numbers"},
      {"items: [{name: a, kind: text, char_ngrams: [2, 20]}]", "`char_ngrams` must be two whole numbers"},
      {"items: [{name: a, kind: categorical, word_ngrams: 2}]", "a categorical one has no key `word_ngrams`"},
      {"users: [{name: history_events, kind: history_events, buckets: 0}]", "`buckets` must be a whole number from 1"},
      {"users: [{name: history_events, kind: ignore}]", "is of kind `history_events`, and belongs to `users`"},
      {"items: [{name: history_gaps, kind: history_gaps}]", "belongs to `users`"},
      {"users: [{name: gaps, kind: history_gaps}]", "belongs to the feature `history_gaps` of `users`"},
      {"users: [{name: history_gaps, kind: history_gaps, to: now}]", "`to` must be newest or previous"},
      {"items: [{name: user_id, kind: categorical}]", "`user_id` belongs to `users`"},
      {"users: [{name: user_id, kind: ignore}]", "`user_id` is categorical; not named, no tower reads it"},
      {"users: [{name: user_id, kind: categorical, vocabulary: [u]}]", "has no key `vocabulary`"},
      {"user: []", "c.yaml:1: `features` has no list `user`"},
      {"users: {a: b}", "`users` must be a list of features"},
      {"[]", "must hold the lists `items` and `users`"},
  };
  for (const auto& [yaml, reason] : cases) {
    const Result<FeatureRequests> read = Read(yaml);
    ASSERT_FALSE(read.ok()) << yaml;
    EXPECT_EQ(read.status().code(), Code::kConfig);
    EXPECT_NE(read.status().message().find(reason), std::string::npos) << yaml << "\n" << read.status().message();
  }
  const Status both = Read("items: [{name: a, kind: txt}]\nusers: [{name: b, kind: dense, x: 1}]").status();
  EXPECT_NE(both.message().find("c.yaml:1"), std::string::npos);
  EXPECT_NE(both.message().find("c.yaml:2"), std::string::npos) << "all of them at once";
}

TEST(FeatureRequestTest, TheTextTellsRequestsApart) {
  const char* const all[] = {"items: [{name: a, kind: text}]",
                             "users: [{name: a, kind: text}]",
                             "items: [{name: a, kind: ignore}]",
                             "items: [{name: a, kind: text, buckets: 3}]",
                             "items: [{name: a, kind: text, min_count: 3}]",
                             "items: [{name: a, kind: text, vocabulary_size: 3}]",
                             "items: [{name: a, kind: text, max_values: 3}]",
                             "items: [{name: a, kind: text, vocabulary: [b]}]",
                             "items: [{name: a, kind: text, word_ngrams: 2}]",
                             "items: [{name: a, kind: text, char_ngrams: [2, 3]}]",
                             "items: [{name: a, kind: bucketised}]",
                             "items: [{name: a, kind: bucketised, quantiles: 4}]",
                             "items: [{name: a, kind: bucketised, boundaries: [4]}]",
                             "users: [{name: history_gaps, kind: history_gaps}]",
                             "users: [{name: history_gaps, kind: history_gaps, to: newest}]",
                             "users: [{name: history_gaps, kind: history_gaps, to: previous}]",
                             "items: [{name: a, kind: dense}]",
                             "items: [{name: a, kind: dense, log: true}]",
                             "items: [{name: a, kind: dense, log: false}]"};
  for (const char* one : all) {
    for (const char* other : all) {
      EXPECT_EQ(FeatureRequestsText(*Read(one)) == FeatureRequestsText(*Read(other)), one == other) << one << other;
    }
  }
}

}  // namespace
}  // namespace freshet
