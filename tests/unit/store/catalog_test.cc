#include "freshet/store/catalog.h"

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

std::vector<std::string> Resolve(const Catalog& catalog, std::vector<Label> labels) {
  std::vector<Hit> hits;
  for (const Label label : labels) hits.push_back({label, 1.0F});
  std::vector<std::string> ids;
  catalog.Resolve(hits, &ids);
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
