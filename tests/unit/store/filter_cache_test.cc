#include "freshet/store/filter_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "freshet/core/strings.h"
#include "freshet/store/catalog.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

Filter Of(Condition condition) {
  Filter filter;
  filter.condition = std::move(condition);
  return filter;
}

Filter Number(std::int64_t value) { return Of(AnyCondition("n", {value})); }

std::shared_ptr<const FilterCache::Entry> EntryOf(std::uint64_t word) {
  auto entry = std::make_shared<FilterCache::Entry>();
  entry->words.assign(AttributeIndex::kChunkWords, word);
  entry->changed_at = {7};
  return entry;
}

TEST(FilterCacheTest, FiltersThatDifferAnywhereHaveDifferentKeys) {
  std::vector<Filter> filters;
  for (const std::string key : {"a", "b", ""}) {
    filters.push_back(Of(AnyCondition(key, {std::string("x")})));
    filters.push_back(Of(AnyCondition(key, {std::string("x"), std::string("y")})));
    filters.push_back(Of(AnyCondition(key, {std::string("xy")})));
    filters.push_back(Of(AnyCondition(key, {std::int64_t{1}})));
    filters.push_back(Of(AnyCondition(key, {0.5})));
    filters.push_back(Of(AnyCondition(key, {true})));
    filters.push_back(Of(AnyCondition(key, {false})));
    RangeBounds<FilterNumber> bounds;
    bounds.gte = std::int64_t{1};
    filters.push_back(Of(NumberCondition(key, bounds)));
    bounds.lt = 2.5;
    filters.push_back(Of(NumberCondition(key, bounds)));
    RangeBounds<std::int64_t> times;
    times.gt = 1;
    filters.push_back(Of(TimeCondition(key, times)));
    filters.push_back(Of(PrefixCondition(key, "x")));
    filters.push_back(Of(ExistsCondition(key, true)));
    filters.push_back(Of(ExistsCondition(key, false)));
  }
  const std::size_t conditions = filters.size();
  for (std::size_t i = 0; i + 1 < conditions; ++i) {
    Filter must;
    must.must = {filters[i], filters[i + 1]};
    Filter turned;
    turned.must = {filters[i + 1], filters[i]};
    Filter should;
    should.should = must.must;
    Filter must_not;
    must_not.must_not = must.must;
    Filter nested;
    nested.must = {must};
    filters.insert(filters.end(), {must, turned, should, must_not, nested});
  }
  filters.emplace_back();
  std::map<std::string, std::size_t> keys;
  for (std::size_t i = 0; i < filters.size(); ++i) {
    EXPECT_TRUE(keys.emplace(FilterKey(filters[i]), i).second) << i << " as " << keys[FilterKey(filters[i])];
    EXPECT_EQ(FilterKey(filters[i]), FilterKey(Filter(filters[i])));
  }
}

TEST(FilterCacheTest, WhatIsMetTwiceIsKeptAndTheOneUsedLongestAgoGoesFirst) {
  FilterCache cache(2'000);
  EXPECT_TRUE(cache.Find(Number(1)).key.empty()) << "met once: it may be nobody's filter again";
  const auto keep = [&](std::int64_t value) {
    (void)cache.Find(Number(value));
    const FilterCache::Found found = cache.Find(Number(value));
    EXPECT_EQ(found.entry, nullptr);
    ASSERT_FALSE(found.key.empty());
    cache.Keep(found.key, EntryOf(static_cast<std::uint64_t>(value)));
  };
  keep(1);
  keep(2);
  ASSERT_NE(cache.Find(Number(1)).entry, nullptr) << "and is the newest now";
  keep(3);
  EXPECT_EQ(cache.Find(Number(2)).entry, nullptr);
  ASSERT_NE(cache.Find(Number(1)).entry, nullptr);
  ASSERT_NE(cache.Find(Number(3)).entry, nullptr);
  EXPECT_EQ(cache.Find(Number(1)).entry->words[0], 1U);
  EXPECT_LE(cache.stats().bytes, 2'000U);
  // In place of what there was.
  cache.Keep(cache.Find(Number(1)).key, EntryOf(9));
  EXPECT_EQ(cache.Find(Number(1)).entry->words[0], 9U);
  EXPECT_NE(cache.Find(Number(3)).entry, nullptr);
  EXPECT_EQ(cache.Find(Number(1)).entry->Find(0, 8), nullptr) << "as of another change";
  EXPECT_EQ(cache.Find(Number(1)).entry->Find(1, 7), nullptr) << "a chunk that it does not know";
  EXPECT_GT(cache.stats().found, 0U);
}

TEST(FilterCacheTest, NothingIsKeptThatIsLargerThanAllOfItOrHasTooManyValues) {
  FilterCache small(100);
  (void)small.Find(Number(1));
  const FilterCache::Found found = small.Find(Number(1));
  small.Keep(found.key, EntryOf(1));
  EXPECT_EQ(small.Find(Number(1)).entry, nullptr);
  EXPECT_EQ(small.stats().bytes, 0U);
  FilterCache none(0);
  (void)none.Find(Number(1));
  EXPECT_TRUE(none.Find(Number(1)).key.empty());
  FilterCache cache(1 << 20);
  std::vector<FilterValue> values;
  for (std::int64_t i = 0; i < 4'000; ++i) values.emplace_back(i);
  (void)cache.Find(Of(AnyCondition("n", values)));
  EXPECT_TRUE(cache.Find(Of(AnyCondition("n", values))).key.empty());
}

// The same filters again and again while items change: what comes out is what the items say at that moment.
TEST(FilterCacheTest, ACatalogThatRemembersAnswersAsOneThatDoesNot) {
  const std::uint64_t seed = test::TestSeed();
  std::mt19937_64 random(seed);
  AttributeIndexOptions forgetful;
  forgetful.filter_cache_bytes = 0;
  Catalog remembering;
  Catalog forgetting(forgetful);
  Label next_label = 1;
  const auto apply = [&](const std::string& id, std::optional<Attributes> attributes) {
    const std::optional<Label> label = attributes ? std::optional<Label>(next_label++) : std::nullopt;
    for (Catalog* catalog : {&remembering, &forgetting}) {
      catalog->Apply({{id, label, attributes ? *attributes : Attributes{}}});
    }
  };
  const auto some = [&](std::uint64_t below) { return static_cast<std::int64_t>(random() % below); };
  const auto attributes = [&] {
    Attributes all{{"n", some(5)}};
    if (some(3) > 0) all.emplace_back("t", StrCat("text ", some(4)));
    return all;
  };
  for (int i = 0; i < 20'000; ++i) apply(StrCat("i", i), attributes());
  std::vector<Filter> filters;
  for (std::int64_t n = 0; n < 5; ++n) {
    filters.push_back(Number(n));
    Filter both;
    both.must = {Number(n)};
    both.must_not = {Of(AnyCondition("t", {std::string("text 1")}))};
    filters.push_back(both);
  }
  filters.push_back(Of(PrefixCondition("t", "text")));
  filters.push_back(Of(ExistsCondition("t", false)));
  const auto never = [] { return false; };
  std::map<std::uint64_t, std::set<const Filter*>> numbers;
  for (int round = 0; round < 400; ++round) {
    const Filter& filter = filters[random() % filters.size()];
    const auto a = remembering.Select(filter, {"i5"}, never);
    const auto b = forgetting.Select(filter, {"i5"}, never);
    ASSERT_OK(a);
    ASSERT_OK(b);
    ASSERT_EQ(a->count(), b->count()) << "seed " << seed << ", round " << round;
    ASSERT_EQ(remembering.IdsOf(*a), forgetting.IdsOf(*b)) << "seed " << seed << ", round " << round;
    ASSERT_EQ(b->number(), 0U);
    numbers[a->number()].insert(&filter);
    for (std::int64_t changes = some(4); changes > 0; --changes) {
      const std::string id = StrCat("i", some(20'500));
      apply(id, some(4) == 0 ? std::nullopt : std::optional(attributes()));
    }
  }
  EXPECT_GT(remembering.filter_cache_stats().found, 300U);
  // Each its own number, for as long as the same is shown.
  EXPECT_EQ(numbers.size(), filters.size() + 1) << "and 0, of those met first";
  for (const auto& [number, of] : numbers) EXPECT_TRUE(number == 0 || of.size() == 1) << number;
  remembering.ShowOnly(std::set<std::int32_t>{1});
  for (const Filter& filter : filters) {
    const auto selection = remembering.Select(filter, {}, never);
    ASSERT_OK(selection);
    EXPECT_NE(selection->number(), 0U);
    EXPECT_FALSE(numbers.contains(selection->number()));
  }
  EXPECT_EQ(forgetting.filter_cache_stats().bytes, 0U);
}

TEST(FilterCacheTest, AFilterOfADroppedAttributeIsRefusedHoweverOftenItWasAnswered) {
  AttributeIndexOptions options;
  options.max_columns = 2;
  options.max_bytes = 400'000;
  Catalog catalog(options);
  const auto never = [] { return false; };
  Label label = 1;
  for (; label < 100; ++label) catalog.Apply({{StrCat("i", label), label, {{"a", std::string("x")}}}});
  const Filter on_a = Of(AnyCondition("a", {std::string("x")}));
  const Filter on_c = Of(ExistsCondition("c", false));
  for (int i = 0; i < 4; ++i) {
    EXPECT_OK(catalog.Select(on_a, {}, never));
    EXPECT_OK(catalog.Select(on_c, {}, never));
  }
  // Changes of another chunk than the first: its entries are as of its last change all the time.
  for (; label < 5'000; ++label) catalog.Apply({{StrCat("i", label), label, {{"b", true}}}});
  for (int i = 0; i < 4; ++i) EXPECT_OK(catalog.Select(on_a, {}, never));
  catalog.Apply({{StrCat("i", label), label, {{"c", true}}}});
  EXPECT_EQ(catalog.Select(on_c, {}, never).status().code(), Code::kUnavailable) << "more names than columns";
  for (++label; label < 12'000; ++label) catalog.Apply({{StrCat("i", label), label, {{"a", StrCat("text ", label)}}}});
  EXPECT_EQ(catalog.Select(on_a, {}, never).status().code(), Code::kUnavailable) << "more texts than memory";
}

}  // namespace
}  // namespace freshet
