#include "freshet/store/catalog.h"

#include <map>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

std::vector<std::string> Resolve(const Catalog& catalog, std::vector<Label> labels) {
  std::vector<Hit> hits;
  for (const Label label : labels) hits.push_back({label, 1.0F});
  std::vector<std::string> ids;
  for (const Catalog::Resolved& one : catalog.Resolve(hits)) ids.push_back(one.id);
  return ids;
}

using Ids = std::vector<std::string>;

TEST(Catalog, WhileAnItemIsReplacedBothLabelsAreIt) {
  Catalog catalog;
  catalog.Apply({{"a", 1}});
  catalog.Apply({{"a", 2}});
  EXPECT_EQ(Resolve(catalog, {1, 2}), (Ids{"a", "a"}));
  EXPECT_EQ(catalog.LabelOf("a"), 2U);
  EXPECT_EQ(catalog.live(), 1U);
  catalog.Apply({{"b", 3}});
  const auto resolved = catalog.Resolve({{1, 1.0F}, {2, 1.0F}, {3, 1.0F}, {4, 1.0F}});
  EXPECT_EQ(resolved[0].slot, resolved[1].slot);
  EXPECT_NE(resolved[0].slot, resolved[2].slot);
  EXPECT_FALSE(resolved[0].newest);
  EXPECT_TRUE(resolved[1].newest);
  EXPECT_TRUE(resolved[2].newest);
  EXPECT_EQ(resolved[3].id, "");
}

// More changes in a batch than are looked up ahead, and than a table has room for: each is applied once, in order.
TEST(Catalog, ABatchOfAnyLengthIsAppliedInOrder) {
  for (const std::size_t length :
       {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{17}, std::size_t{500}}) {
    Catalog catalog;
    std::vector<Catalog::Change> changes;
    for (std::size_t i = 0; i < length; ++i) {
      const std::string id = "item-" + std::to_string(i % 100);
      const bool deleted = i % 7 == 6;
      changes.push_back({id, deleted ? std::nullopt : std::optional<Label>(i)});
    }
    catalog.Apply(changes);
    std::map<std::string, Label> expected;
    for (const Catalog::Change& change : changes) {
      if (change.label) {
        expected[change.item_id] = *change.label;
      } else {
        expected.erase(change.item_id);
      }
    }
    EXPECT_EQ(catalog.live(), expected.size());
    for (const auto& [id, label] : expected) {
      EXPECT_EQ(catalog.LabelOf(id), label) << length;
      EXPECT_EQ(Resolve(catalog, {label}), Ids{id}) << length;
    }
  }
}

TEST(Catalog, ADeletedItemIsNothingAtOnceAndAReAddDoesNotBringTheOldVersionBack) {
  Catalog catalog;
  catalog.Apply({{"a", 1}, {"b", 2}});
  catalog.Apply({{"a", std::nullopt}});
  EXPECT_EQ(Resolve(catalog, {1, 2}), (Ids{"", "b"}));
  EXPECT_EQ(catalog.LabelOf("a"), std::nullopt);
  catalog.Apply({{"a", 3}});
  EXPECT_EQ(Resolve(catalog, {1, 3}), (Ids{"", "a"}));
  EXPECT_EQ(catalog.live(), 2U);
}

TEST(Catalog, LabelsAreForgottenOnlyAtTheSecondCallAfterTheirDeath) {
  Catalog catalog;
  catalog.Apply({{"a", 1}});
  catalog.Apply({{"a", 2}});
  catalog.ForgetDeadLabels();
  EXPECT_EQ(Resolve(catalog, {1}), (Ids{"a"}));
  catalog.ForgetDeadLabels();
  EXPECT_EQ(Resolve(catalog, {1, 2}), (Ids{"", "a"}));
}

TEST(Catalog, SlotsOfDeletedItemsAreUsedAgainWithoutMixingItems) {
  Catalog catalog;
  Label next = 1;
  for (int round = 0; round < 50; ++round) {
    const std::string id = "item-" + std::to_string(round);
    catalog.Apply({{id, next}});
    catalog.Apply({{id, next + 1}});
    EXPECT_EQ(Resolve(catalog, {next, next + 1}), (Ids{id, id}));
    catalog.Apply({{id, std::nullopt}});
    EXPECT_EQ(Resolve(catalog, {next, next + 1}), (Ids{"", ""}));
    next += 2;
    if (round % 3 == 0) catalog.ForgetDeadLabels();
  }
  EXPECT_EQ(catalog.live(), 0U);
  EXPECT_TRUE(catalog.LiveIds().empty());
}

// A search may ask the labels instead of the selection, and asks the selection for what came after them.
TEST(Catalog, WhatChangesAfterItsLabelsWereTakenIsKnownToTheSelection) {
  Catalog catalog;
  catalog.Apply({{"a", 1}, {"b", 2}, {"c", 3}});
  catalog.Apply({{"b", 4}});
  const auto selection = catalog.Select(Filter{}, {"c"}, [] { return false; });
  ASSERT_OK(selection);
  const Catalog::Labels of = catalog.LabelsOf(*selection);
  EXPECT_EQ(of.labels, (std::vector<Label>{1, 4}));
  EXPECT_EQ(of.newest, 4U);
  catalog.Apply({{"a", 5}});
  EXPECT_GT(5U, of.newest);
  EXPECT_TRUE(selection->Allows(5));
  catalog.Apply({{"b", std::nullopt}});
  EXPECT_EQ(catalog.LabelsOf(*selection).labels, std::vector<Label>{5});
  EXPECT_EQ(catalog.LabelsOf(*selection).newest, 5U);
}

TEST(Catalog, DeletingTheUnknownChangesNothing) {
  Catalog catalog;
  catalog.Apply({{"a", std::nullopt}});
  EXPECT_EQ(catalog.live(), 0U);
}

}  // namespace
}  // namespace freshet
