#include "freshet/store/attribute_index.h"

#include <algorithm>
#include <map>
#include <random>

#include "freshet/core/strings.h"
#include "freshet/store/catalog.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Items = std::map<std::string, Attributes>;

Filter Of(Condition condition) {
  Filter filter;
  filter.condition = std::move(condition);
  return filter;
}

// What the filter means, said a second time: over the attributes themselves, by other means than the index's.
struct Oracle {
  static bool Equal(const FilterValue& a, const AttributeValue& b) {
    if (const auto* list = std::get_if<std::vector<std::string>>(&b)) {
      return std::any_of(list->begin(), list->end(), [&](const std::string& s) { return a == FilterValue(s); });
    }
    const auto one_of = [&](const auto& values) {
      return std::any_of(values.begin(), values.end(), [&](const auto& v) { return Equal(a, AttributeValue(v)); });
    };
    if (const auto* list = std::get_if<std::vector<std::int64_t>>(&b)) return one_of(*list);
    if (const auto* list = std::get_if<std::vector<double>>(&b)) return one_of(*list);
    if (const auto* list = std::get_if<std::vector<bool>>(&b)) {
      return std::any_of(list->begin(), list->end(), [&](bool v) { return Equal(a, AttributeValue(v)); });
    }
    if (std::holds_alternative<std::string>(b)) return a == FilterValue(std::get<std::string>(b));
    if (std::holds_alternative<bool>(b)) return a == FilterValue(std::get<bool>(b));
    const auto wide = [](const auto& v) -> std::optional<long double> {
      if (const auto* i = std::get_if<std::int64_t>(&v)) return *i;
      if (const auto* d = std::get_if<double>(&v)) return *d;
      return std::nullopt;
    };
    return wide(a) && wide(a) == wide(b);
  }
};

std::vector<std::string> Selected(const Catalog& catalog, const Filter& filter) {
  const auto selection = catalog.Select(filter, {}, [] { return false; });
  EXPECT_OK(selection);
  if (!selection.ok()) return {};
  std::vector<std::string> ids = catalog.IdsOf(*selection);
  EXPECT_EQ(ids.size(), selection->count());
  std::sort(ids.begin(), ids.end());
  return ids;
}

class AttributeFilterTest : public ::testing::Test {
 protected:
  void Put(const std::string& id, Attributes attributes) {
    catalog_.Apply({{id, next_label_++, std::move(attributes)}});
  }
  std::vector<std::string> Matching(Condition condition) { return Selected(catalog_, Of(std::move(condition))); }
  Catalog catalog_;
  Label next_label_ = 1;
};

using Ids = std::vector<std::string>;

TEST_F(AttributeFilterTest, ComparesEachTypeWithItself) {
  Put("int", {{"v", std::int64_t{1990}}});
  Put("double", {{"v", 1990.0}});
  Put("text", {{"v", std::string("1990")}});
  Put("true", {{"v", true}});
  Put("list", {{"v", std::vector<std::string>{"1990", "b", "b"}}});
  Put("none", {});
  EXPECT_EQ(Matching(AnyCondition("v", {std::int64_t{1990}})), (Ids{"double", "int"}));
  EXPECT_EQ(Matching(AnyCondition("v", {1990.0})), (Ids{"double", "int"}));
  EXPECT_EQ(Matching(AnyCondition("v", {std::string("1990")})), (Ids{"list", "text"}));
  EXPECT_EQ(Matching(AnyCondition("v", {std::string("b"), true})), (Ids{"list", "true"}));
  EXPECT_EQ(Matching(AnyCondition("v", {false})), Ids{});
  EXPECT_EQ(Matching(PrefixCondition("v", "19")), (Ids{"list", "text"}));
  EXPECT_EQ(Matching(PrefixCondition("v", "")), (Ids{"list", "text"}));
  EXPECT_EQ(Matching(ExistsCondition("v", true)), (Ids{"double", "int", "list", "text", "true"}));
  EXPECT_EQ(Matching(ExistsCondition("v", false)), Ids{"none"});
  EXPECT_EQ(Matching(ExistsCondition("never", false)).size(), 6U);
  EXPECT_EQ(Matching(NumberCondition("v", {.gt = FilterNumber(1989.5), .gte = {}, .lt = {}, .lte = {}})),
            (Ids{"double", "int"}));
}

TEST_F(AttributeFilterTest, OfAListOneValueIsEnough) {
  constexpr std::int64_t kBig = (std::int64_t{1} << 53) + 1;  // has no double
  Put("ints", {{"v", std::vector<std::int64_t>{40, 3, kBig, 3}}});
  Put("doubles", {{"v", std::vector<double>{2.5, 40.0}}});
  Put("bools", {{"v", std::vector<bool>{false, false}}});
  Put("both", {{"v", std::vector<bool>{true, false}}});
  Put("times", {{"v", std::vector<std::string>{"2024-05-01T12:00:00Z", "soon", "2025-05-01T12:00:00Z"}}});
  Put("empty", {{"v", std::vector<double>{}}});
  EXPECT_EQ(Matching(AnyCondition("v", {std::int64_t{40}})), (Ids{"doubles", "ints"}));
  EXPECT_EQ(Matching(AnyCondition("v", {kBig})), Ids{"ints"});
  EXPECT_EQ(Matching(AnyCondition("v", {kBig - 1})), Ids{});
  EXPECT_EQ(Matching(AnyCondition("v", {2.5, true})), (Ids{"both", "doubles"}));
  EXPECT_EQ(Matching(AnyCondition("v", {false})), (Ids{"bools", "both"}));
  EXPECT_EQ(Matching(ExistsCondition("v", true)).size(), 6U);
  EXPECT_EQ(Matching(NumberCondition("v", {.gt = FilterNumber(2.5), .gte = {}, .lt = 4.0, .lte = {}})), Ids{"ints"});
  EXPECT_EQ(Matching(NumberCondition("v", {.gt = FilterNumber(4.0), .gte = {}, .lt = 40.0, .lte = {}})), Ids{})
      << "3 is not above, 40 is not below";
  const auto us = *ParseTimestampUs("2024-06-01T00:00:00Z");
  EXPECT_EQ(Matching(TimeCondition("v", {.gt = us, .gte = {}, .lt = {}, .lte = {}})), Ids{"times"});
  EXPECT_EQ(Matching(TimeCondition("v", {.gt = us, .gte = {}, .lt = us + 1'000'000, .lte = {}})), Ids{});
  const auto values = catalog_.ValuesOf({"ints", "both"}, "v");
  EXPECT_EQ(values[0], (std::vector<FilterValue>{std::int64_t{3}, std::int64_t{40}, kBig}));
  EXPECT_EQ(values[1], (std::vector<FilterValue>{false, true}));
  Put("ints", {});
  EXPECT_EQ(Matching(AnyCondition("v", {kBig})), Ids{});
}

TEST_F(AttributeFilterTest, RangesAreExactAtTheirEdges) {
  constexpr std::int64_t kBig = (std::int64_t{1} << 53) + 1;  // has no double
  Put("big", {{"v", kBig}});
  Put("below", {{"v", kBig - 1}});
  Put("double", {{"v", 9'007'199'254'740'992.0}});  // 2^53
  Put("max", {{"v", std::numeric_limits<std::int64_t>::max()}});
  Put("huge", {{"v", 1e300}});
  using Bounds = RangeBounds<FilterNumber>;
  const auto range = [&](const Bounds& bounds) { return Matching(NumberCondition("v", bounds)); };
  EXPECT_EQ(range({.gt = {}, .gte = kBig, .lt = {}, .lte = kBig}), Ids{"big"});
  EXPECT_EQ(range({.gt = {}, .gte = {}, .lt = kBig, .lte = {}}), (Ids{"below", "double"}));
  EXPECT_EQ(range({.gt = kBig - 1, .gte = {}, .lt = {}, .lte = {}}), (Ids{"big", "huge", "max"}));
  EXPECT_EQ(range({.gt = 9'007'199'254'740'992.0, .gte = {}, .lt = 1e18, .lte = {}}), Ids{"big"});
  EXPECT_EQ(range({.gt = std::numeric_limits<std::int64_t>::max(), .gte = {}, .lt = {}, .lte = {}}), Ids{"huge"});
  EXPECT_EQ(range({.gt = {}, .gte = 1e300, .lt = {}, .lte = {}}), Ids{"huge"});
  EXPECT_EQ(range({.gt = {}, .gte = {}, .lt = -1e300, .lte = {}}), Ids{});
}

TEST_F(AttributeFilterTest, TimestampsAreInstants) {
  Put("utc", {{"at", std::string("2024-05-01T12:00:00Z")}});
  Put("same", {{"at", std::string("2024-05-01T14:00:00+02:00")}});
  Put("later", {{"at", std::string("2024-05-01T12:00:00.000001Z")}});
  Put("day", {{"at", std::string("2024-05-01")}});
  const auto us = *ParseTimestampUs("2024-05-01T12:00:00Z");
  EXPECT_EQ(Matching(TimeCondition("at", {.gt = {}, .gte = us, .lt = {}, .lte = us})), (Ids{"same", "utc"}));
  EXPECT_EQ(Matching(TimeCondition("at", {.gt = us, .gte = {}, .lt = {}, .lte = {}})), Ids{"later"});
  for (const char* wrong : {"", "2024-02-30T00:00:00Z", "2024-05-01T24:00:00Z", "2024-05-01T12:00:00",
                            "2024-05-01T12:00:00.Z", "2024-05-01T12:00:00+2:00", "2024-05-01T12:00:00Zx"}) {
    EXPECT_FALSE(ParseTimestampUs(wrong)) << wrong;
  }
  EXPECT_EQ(*ParseTimestampUs("1970-01-01T00:00:00.25-00:01"), 60'250'000);
}

TEST_F(AttributeFilterTest, LongTextsAreComparedByTheirBeginning) {
  const std::string limit(kMaxFilterTextBytes, 'x');
  Put("long", {{"v", limit + "y"}});
  Put("limit", {{"v", limit}});
  EXPECT_EQ(Matching(AnyCondition("v", {limit})), Ids{"limit"});
  EXPECT_EQ(Matching(PrefixCondition("v", limit)), (Ids{"limit", "long"}));
}

TEST_F(AttributeFilterTest, AReplacedOrDeletedItemMatchesAsItIsNow) {
  Put("a", {{"v", std::int64_t{1}}, {"gone", true}});
  Put("a", {{"v", std::string("one")}});
  EXPECT_EQ(Matching(AnyCondition("v", {std::int64_t{1}})), Ids{});
  EXPECT_EQ(Matching(AnyCondition("v", {std::string("one")})), Ids{"a"});
  EXPECT_EQ(Matching(ExistsCondition("gone", true)), Ids{});
  catalog_.Apply({{"a", std::nullopt}});
  EXPECT_EQ(Matching(ExistsCondition("v", false)), Ids{});
  EXPECT_EQ(catalog_.attribute_stats().texts, 0U);
}

TEST_F(AttributeFilterTest, ASelectionAllowsBothLabelsOfAnItemBeingReplacedAndResolveJudgesAsOfNow) {
  Put("a", {{"v", true}});
  const Filter filter = Of(AnyCondition("v", {true}));
  const auto selection = catalog_.Select(filter, {}, [] { return false; });
  ASSERT_OK(selection);
  EXPECT_TRUE(selection->Allows(1));
  EXPECT_FALSE(selection->Allows(2));
  Put("a", {{"v", false}});
  for (const Catalog::Resolved& one : catalog_.Resolve({{1, 1.0F}, {2, 1.0F}}, &filter)) EXPECT_EQ(one.id, "");
}

TEST(AttributeIndexTest, WhatDoesNotFitIsRefusedRatherThanAnsweredWrongly) {
  AttributeIndexOptions options;
  options.max_columns = 2;
  options.max_bytes = 200'000;
  AttributeIndex index(options);
  index.Set(0, {{"a", std::int64_t{1}}, {"b", std::string("x")}});
  const Filter on_a = Of(AnyCondition("a", {std::int64_t{1}}));
  const Filter on_b = Of(AnyCondition("b", {std::string("x")}));
  const Filter on_c = Of(ExistsCondition("c", false));
  EXPECT_OK(index.Compile(on_a));
  EXPECT_OK(index.Compile(on_b));
  EXPECT_OK(index.Compile(on_c));
  index.Set(1, {{"c", true}});
  EXPECT_EQ(index.Compile(on_c).status().code(), Code::kUnavailable);
  for (std::uint32_t slot = 2; slot < 4'000; ++slot) index.Set(slot, {{"b", StrCat("text ", slot)}});
  EXPECT_EQ(index.Compile(on_b).status().code(), Code::kUnavailable);
  EXPECT_OK(index.Compile(on_a));
  EXPECT_EQ(index.Stats().dropped_columns, 1U);
  EXPECT_LT(index.Stats().bytes, options.max_bytes);
}

TEST(AttributeIndexTest, MemoryComesBackWithTheItems) {
  AttributeIndex index;
  const auto fill = [&] {
    for (std::uint32_t slot = 0; slot < 5'000; ++slot) {
      index.Set(slot, {{"at", std::vector<std::string>{"2024-05-01T12:00:00Z"}},
                       {"flags", std::vector<bool>{true}},
                       {"id", StrCat("text ", slot)},
                       {"prices", std::vector<double>{1.5, 2}},
                       {"sizes", std::vector<std::int64_t>{slot, 7}},
                       {"tags", std::vector<std::string>{StrCat(slot), "all"}}});
    }
  };
  fill();
  const std::size_t full = index.Stats().bytes;
  fill();
  EXPECT_EQ(index.Stats().bytes, full);
  for (std::uint32_t slot = 0; slot < 5'000; ++slot) index.Remove(slot);
  EXPECT_EQ(index.Stats().texts, 0U);
  fill();
  EXPECT_EQ(index.Stats().bytes, full);
}

// Random filters over random items through adds, updates and deletes: by chunks, one by one, and by the oracle.
TEST(AttributeIndexTest, EqualsTheOracleThroughAddsUpdatesAndDeletes) {
  std::mt19937_64 random(test::TestSeed());
  const auto uniform = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  const auto value = [&]() -> AttributeValue {
    switch (uniform(8)) {
      case 5: {
        std::vector<std::int64_t> list;
        for (int i = uniform(4); i > 0; --i) list.push_back(uniform(20));
        return list;
      }
      case 6: {
        std::vector<double> list;
        for (int i = uniform(4); i > 0; --i) list.push_back(uniform(40) / 2.0);
        return list;
      }
      case 7: {
        std::vector<bool> list;
        for (int i = uniform(3); i > 0; --i) list.push_back(uniform(2) == 0);
        return list;
      }
      case 0:
        return uniform(2) == 0;
      case 1:
        return std::int64_t{uniform(20)};
      case 2:
        return uniform(40) / 2.0;
      case 3:
        return StrCat("t", uniform(20));
      default: {
        std::vector<std::string> list;
        for (int i = uniform(4); i > 0; --i) list.push_back(StrCat("t", uniform(20)));
        return list;
      }
    }
  };
  struct Term {
    Filter filter;
    std::function<bool(const Attributes&)> matches;
  };
  const auto condition = [&]() -> Term {
    const std::string key = StrCat("k", uniform(4));
    switch (uniform(4)) {
      case 0: {
        std::vector<FilterValue> wanted;
        for (int i = uniform(4); i >= 0; --i) {
          const AttributeValue v = value();
          std::visit(
              [&](const auto& one) {
                if constexpr (std::is_constructible_v<FilterValue, decltype(one)>) wanted.emplace_back(one);
              },
              v);
        }
        return {Of(AnyCondition(key, wanted)), [=](const Attributes& attributes) {
                  const AttributeValue* found = FindAttribute(attributes, key);
                  return found != nullptr && std::any_of(wanted.begin(), wanted.end(), [&](const FilterValue& w) {
                           return Oracle::Equal(w, *found);
                         });
                }};
      }
      case 1: {
        const double low = uniform(40) / 2.0;
        const std::int64_t high = uniform(20);
        return {Of(NumberCondition(key, {.gt = low, .gte = {}, .lt = {}, .lte = high})),
                [=](const Attributes& attributes) {
                  const AttributeValue* found = FindAttribute(attributes, key);
                  if (found == nullptr) return false;
                  const auto within = [&](auto v) {
                    return static_cast<double>(v) > low && static_cast<double>(v) <= static_cast<double>(high);
                  };
                  const auto any = [&](const auto& list) { return std::any_of(list.begin(), list.end(), within); };
                  if (const auto* i = std::get_if<std::int64_t>(found)) return within(*i);
                  if (const auto* d = std::get_if<double>(found)) return within(*d);
                  if (const auto* list = std::get_if<std::vector<std::int64_t>>(found)) return any(*list);
                  const auto* list = std::get_if<std::vector<double>>(found);
                  return list != nullptr && any(*list);
                }};
      }
      case 2: {
        const std::string prefix = StrCat("t", uniform(2));
        return {Of(PrefixCondition(key, prefix)), [=](const Attributes& attributes) {
                  const AttributeValue* found = FindAttribute(attributes, key);
                  if (found == nullptr) return false;
                  if (const auto* s = std::get_if<std::string>(found)) return s->compare(0, 2, prefix) == 0;
                  const auto* list = std::get_if<std::vector<std::string>>(found);
                  return list != nullptr && std::any_of(list->begin(), list->end(), [&](const std::string& s) {
                           return s.compare(0, 2, prefix) == 0;
                         });
                }};
      }
      default: {
        const bool exists = uniform(2) == 0;
        return {Of(ExistsCondition(key, exists)),
                [=](const Attributes& attributes) { return (FindAttribute(attributes, key) != nullptr) == exists; }};
      }
    }
  };
  const std::function<Term(int)> tree = [&](int depth) -> Term {
    if (depth == 0 || uniform(3) == 0) return condition();
    std::array<std::vector<Term>, 3> parts;
    for (auto& part : parts) {
      for (int i = uniform(3); i > 0; --i) part.push_back(tree(depth - 1));
    }
    Term term;
    for (const Term& t : parts[0]) term.filter.must.push_back(t.filter);
    for (const Term& t : parts[1]) term.filter.should.push_back(t.filter);
    for (const Term& t : parts[2]) term.filter.must_not.push_back(t.filter);
    term.matches = [parts](const Attributes& attributes) {
      bool all = true;
      bool any = parts[1].empty();
      bool none = true;
      for (const Term& t : parts[0]) all = all && t.matches(attributes);
      for (const Term& t : parts[1]) any = any || t.matches(attributes);
      for (const Term& t : parts[2]) none = none && !t.matches(attributes);
      return all && any && none;
    };
    return term;
  };

  Catalog catalog;
  Items items;
  Label label = 1;
  std::size_t matched = 0;
  for (int round = 0; round < 60; ++round) {
    for (int step = 0; step < 200; ++step) {
      const std::string id = StrCat("i", uniform(9'000));
      if (uniform(4) == 0) {
        items.erase(id);
        catalog.Apply({{id, std::nullopt}});
        continue;
      }
      Attributes attributes;
      for (int k = 0; k < 4; ++k) {
        if (uniform(3) != 0) attributes.emplace_back(StrCat("k", k), value());
      }
      items[id] = attributes;
      catalog.Apply({{id, label++, attributes}});
    }
    if (round % 7 == 0) catalog.ForgetDeadLabels();
    for (int i = 0; i < 10; ++i) {
      const Term term = tree(3);
      Ids expected;
      for (const auto& [id, attributes] : items) {
        if (term.matches(attributes)) expected.push_back(id);
      }
      std::sort(expected.begin(), expected.end());
      ASSERT_EQ(Selected(catalog, term.filter), expected) << "round " << round;
      Ids all;
      for (const auto& [id, attributes] : items) all.push_back(id);
      const std::vector<bool> one_by_one = catalog.Matching(all, term.filter);
      ASSERT_EQ(static_cast<std::size_t>(std::count(one_by_one.begin(), one_by_one.end(), true)), expected.size());
      matched += expected.size();
    }
  }
  EXPECT_GT(matched, 10'000U);
}

}  // namespace
}  // namespace freshet
