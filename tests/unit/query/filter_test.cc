#include <gtest/gtest.h>

#include <random>

#include "freshet/core/strings.h"
#include "freshet/query/filter_text.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

Result<Filter> Parse(const std::string& json) {
  FRESHET_ASSIGN(const std::unique_ptr<JsonDocument> document, ParseJson(json, 300));
  return ParseFilter(*document);
}

TEST(FilterJson, ReadsGroupsAndConditions) {
  const auto filter = Parse(R"({
      "must": [{"key": "category", "match": "film"}, {"key": "year", "range": {"gte": 1990, "lt": 2000.5}}],
      "should": [{"key": "tags", "any": ["a", 7, true]}, {"must_not": [{"key": "title", "prefix": "The "}]}],
      "must_not": [{"key": "gone", "exists": true}, {"key": "at", "range": {"gt": "2024-01-01T00:00:00Z"}}]})");
  ASSERT_OK(filter);
  ASSERT_EQ(filter->must.size(), 2U);
  EXPECT_EQ(filter->must[0].condition->texts, std::vector<std::string>{"film"});
  EXPECT_EQ(filter->must[1].condition->integer_range.low, 1990);
  EXPECT_EQ(filter->must[1].condition->integer_range.high, 2000);
  ASSERT_EQ(filter->should.size(), 2U);
  EXPECT_TRUE(filter->should[0].condition->match_true);
  EXPECT_FALSE(filter->should[1].condition);
  EXPECT_EQ(filter->should[1].must_not[0].condition->prefix, "The ");
  EXPECT_EQ(filter->must_not[1].condition->kind, Condition::Kind::kTimes);
  EXPECT_OK(Parse("{}"));
}

TEST(FilterJson, RefusesWithThePointerFirst) {
  const std::string deep = [] {
    std::string json = R"({"key": "a", "match": 1})";
    for (std::size_t i = 0; i <= kMaxFilterDepth; ++i) json = StrCat(R"({"must": [)", json, "]}");
    return json;
  }();
  std::string many = R"({"must": [)";
  for (std::size_t i = 0; i < kMaxFilterConditions; ++i) many += R"({"key": "a", "match": 1},)";
  many += R"({"key": "a", "match": 1}]})";
  std::string values = "0";
  for (std::size_t i = 0; i < kMaxFilterValues; ++i) values += ",0";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"7", "/filter: must be an object"},
      {R"({"must": {}})", "/filter/must: must be an array"},
      {R"({"must": [7]})", "/filter/must/0: must be an object"},
      {R"({"must": [], "must": []})", "/filter/must: is given twice"},
      {R"({"must": [], "key": "a"})", "/filter/key: unknown field"},
      {R"({"mustnot": []})", "/filter/mustnot: unknown field; did you mean `must_not`?"},
      {R"({"match": 1})", "/filter/key: is missing"},
      {R"({"key": "", "match": 1})", "/filter/key: "},
      {R"({"key": "a"})", "/filter: needs exactly one of"},
      {R"({"key": "a", "match": 1, "exists": true})", "/filter: needs exactly one of"},
      {R"({"key": "a", "match": null})", "/filter/match: "},
      {R"({"key": "a", "match": ["x"]})", "/filter/match: "},
      {R"({"key": "a", "any": "x"})", "/filter/any: "},
      {R"({"key": "a", "any": ["x", {}]})", "/filter/any/1: "},
      {R"({"key": "a", "range": {}})", "/filter/range: "},
      {R"({"key": "a", "range": {"ge": 1}})", "/filter/range/ge: unknown field"},
      {R"({"key": "a", "range": {"gt": "yesterday"}})", "/filter/range/gt: "},
      {R"({"key": "a", "range": {"gt": 1, "lt": "2024-01-01T00:00:00Z"}})", "/filter/range/lt: "},
      {R"({"key": "a", "range": {"gt": "2024-01-01T00:00:00Z", "lt": 1}})", "/filter/range/lt: "},
      {R"({"key": "a", "prefix": 1})", "/filter/prefix: "},
      {R"({"key": "a", "exists": 1})", "/filter/exists: "},
      {StrCat(R"({"key": "a", "match": ")", std::string(257, 'x'), "\"}"), "/filter/match: must be at most"},
      {R"({"should": [{"must": [{"key": "a", "range": {"gt": true}}]}]})", "/filter/should/0/must/0/range/gt: "},
      {deep, "/filter/must/0/must/0/must/0/must/0/must/0/must/0/must/0/must/0: groups may be nested 8 deep"},
      {many, "/filter/must/255: a filter may hold at most 256 conditions"},
      {StrCat(R"({"key": "a", "any": [)", values, "]}"), "/filter/any: a filter may hold at most 4096 values"},
  };
  for (const auto& [json, start] : cases) {
    const auto filter = Parse(json);
    ASSERT_FALSE(filter.ok()) << json;
    EXPECT_EQ(filter.status().code(), Code::kInvalidArgument) << json;
    EXPECT_TRUE(filter.status().message().starts_with(start)) << json << " -> " << filter.status().message();
  }
}

TEST(FilterText, SaysWhatTheJsonSays) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"(category = "film")", R"({"key":"category","match":"film"})"},
      {R"(category = 'film' AND year >= 1990)",
       R"({"must":[{"key":"category","match":"film"},{"key":"year","range":{"gte":1990}}]})"},
      {"a = 1 or b = 2 and c = 3",
       R"({"should":[{"key":"a","match":1},{"must":[{"key":"b","match":2},{"key":"c","match":3}]}]})"},
      {"(a = 1 or b = 2) and c = 3",
       R"({"must":[{"should":[{"key":"a","match":1},{"key":"b","match":2}]},{"key":"c","match":3}]})"},
      {"not a = true", R"({"must_not":[{"key":"a","match":true}]})"},
      {"a != -1.5e3", R"({"must_not":[{"key":"a","match":-1.5e3}]})"},
      {R"(tags in ("x", 2, false))", R"({"key":"tags","any":["x",2,false]})"},
      {R"(tags not in ("x"))", R"({"must_not":[{"key":"tags","any":["x"]}]})"},
      {R"(title starts with "Toy \"S")", R"({"key":"title","prefix":"Toy \"S"})"},
      {"`in stock` exists and x not exists",
       R"({"must":[{"key":"in stock","exists":true},{"key":"x","exists":false}]})"},
      {R"(at < "2024-01-01T00:00:00Z")", R"({"key":"at","range":{"lt":"2024-01-01T00:00:00Z"}})"},
      {"größe<=1", R"({"key":"größe","range":{"lte":1}})"},
  };
  for (const auto& [text, json] : cases) {
    const auto read = FilterTextToJson(text);
    ASSERT_TRUE(read.ok()) << text << " -> " << read.status().ToString();
    EXPECT_EQ(*read, json) << text;
  }
}

TEST(FilterText, ErrorsPointAtTheColumn) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "column 1: a condition is missing"},
      {"   ", "column 4: a condition is missing"},
      {"category", "column 9: one of = != < <= > >= in starts exists"},
      {"category = film", "column 12: a value is expected here: "},
      {"category == \"film\"", "column 11: a value is expected here"},
      {"category = \"film", "column 12: the text that begins here has no end"},
      {R"(a = "\n")", "column 6: only "},
      {"a = 1 b = 2", "column 7: `and`, `or` or the end"},
      {"a = 1 and", "column 10: the name of an attribute"},
      {"and = 1", "column 1: the name of an attribute"},
      {"(a = 1", "column 1: this ( is never closed"},
      {"(a = 1 b", "column 8: `and`, `or` or `)`"},
      {"a = 1)", "column 6: `and`, `or` or the end"},
      {"a = 1.2.3", "column 5: `1.2.3` is not a number"},
      {"a = 1990s", "column 5: `1990s` is not a number"},
      {"a >= \"film\"", "column 6: `>=` compares numbers and timestamps"},
      {"a > true", "column 5: `>` compares numbers and timestamps"},
      {"a in 1", "column 6: `(` is expected here"},
      {"a in (1 2)", "column 9: `,` or `)` is expected"},
      {"a starts \"x\"", "column 10: `with` is expected"},
      {"a starts with 1", "column 15: a quoted text"},
      {"a not = 1", "column 7: after `not` comes"},
      {"größe # 1", "column 7: this character has no meaning"},
      {"`` = 1", "column 1: a name is 1 to"},
      {"\xff = 1", "column 1: a filter is UTF-8"},
      {std::string(300, '('), "column 65: this is nested too deep"},
  };
  for (const auto& [text, start] : cases) {
    const auto read = FilterTextToJson(text);
    ASSERT_FALSE(read.ok()) << text << " -> " << *read;
    EXPECT_EQ(read.status().code(), Code::kInvalidArgument);
    EXPECT_TRUE(read.status().message().starts_with(start)) << text << " -> " << read.status().message();
  }
}

TEST(FilterText, SurvivesDamage) {
  std::mt19937_64 random(test::TestSeed());
  const std::string text =
      R"(a = "x" and (b in (1, 2.5) or not c starts with 'y') and `d e` >= "2024-01-01T00:00:00Z")";
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string damaged = text;
    for (std::uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % damaged.size();
      switch (random() % 3) {
        case 0:
          damaged[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          damaged.erase(at, 1);
          break;
        default:
          damaged.insert(at, 1, text[random() % text.size()]);
      }
    }
    const auto read = FilterTextToJson(damaged);
    accepted += read.ok() ? 1 : 0;
    if (!read.ok()) {
      ASSERT_TRUE(read.status().message().starts_with("column ")) << read.status().message();
      ASSERT_TRUE(IsValidUtf8(read.status().message())) << damaged;
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_LT(accepted, 19'900);
}

}  // namespace
}  // namespace freshet
