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

TEST(Catalog, DeletingTheUnknownChangesNothing) {
  Catalog catalog;
  catalog.Apply({{"a", std::nullopt}});
  EXPECT_EQ(catalog.live(), 0U);
}

}  // namespace
}  // namespace freshet
