#include "feature_builder.h"

#include <limits>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

const FeatureDef* Find(const std::vector<FeatureDef>& defs, const std::string& name) {
  for (const FeatureDef& def : defs) {
    if (def.name == name) return &def;
  }
  return nullptr;
}

TEST(FeatureBuilderTest, ChoosesKindsFromWhatItSees) {
  FeatureBuilder builder;
  for (int i = 0; i < 40; ++i) {
    ASSERT_OK(builder.Add({{"balance", static_cast<double>(i - 20)},
                           {"color", std::string(i % 2 == 0 ? "red" : "blue")},
                           {"history", 1.0},
                           {"price", static_cast<double>(i)},
                           {"tags", std::vector<std::string>{"all", i % 3 == 0 ? "third" : "other"}},
                           {"title", "Red lamp number " + std::to_string(i)}}));
  }
  const std::vector<FeatureDef> defs = builder.Build();
  EXPECT_EQ(Find(defs, "history"), nullptr) << "a built-in source's name";
  EXPECT_EQ(Find(defs, "color")->kind, FeatureKind::kCategorical);
  EXPECT_EQ(Find(defs, "tags")->kind, FeatureKind::kMultiValued);
  EXPECT_EQ(Find(defs, "title")->kind, FeatureKind::kText);
  EXPECT_EQ(Find(defs, "title")->vocabulary, (std::vector<std::string>{"lamp", "number", "red"}))
      << "words seen once share buckets";
  EXPECT_TRUE(Find(defs, "price")->log);
  EXPECT_FALSE(Find(defs, "balance")->log);
  EXPECT_NEAR(Find(defs, "balance")->mean, -0.5, 1e-9);
  EXPECT_GT(Find(defs, "price")->stddev, 0);
}

TEST(FeatureBuilderTest, RefusesNumbersThatAreNotFinite) {
  FeatureBuilder builder;
  const Status status = builder.Add({{"price", std::numeric_limits<double>::quiet_NaN()}});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("`price`"), std::string::npos);
}

TEST(FeatureBuilderTest, AConstantNumberKeepsAFiniteScale) {
  FeatureBuilder builder;
  for (int i = 0; i < 3; ++i) ASSERT_OK(builder.Add({{"x", 5.0}}));
  EXPECT_EQ(builder.Build().at(0).stddev, 1.0);
}

}  // namespace
}  // namespace freshet
