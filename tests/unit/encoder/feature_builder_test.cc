#include "feature_builder.h"

#include <cmath>
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
  const std::vector<FeatureDef> defs = *builder.Build();
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
  EXPECT_EQ(builder.Build()->at(0).stddev, 1.0);
}

TEST(FeatureBuilderTest, MakesWhatIsAskedFor) {
  std::vector<FeatureRequest> requests(5);
  requests[0].name = "code";  // numbers that are names
  requests[0].vocabulary_size = 2;
  requests[0].buckets = 7;
  requests[1].name = "price";
  requests[1].kind = FeatureKind::kDense;
  requests[1].log = false;
  requests[2].name = "title";
  requests[2].kind = FeatureKind::kText;
  requests[2].vocabulary_size = 0;
  requests[2].buckets = 100;
  requests[2].max_values = 2;
  requests[3].name = "secret";
  requests[3].ignore = true;
  requests[4].name = "color";
  requests[4].vocabulary = {"blue", "red", "never seen"};
  FeatureBuilder builder(requests, "item");
  for (int i = 0; i < 40; ++i) {
    ASSERT_OK(builder.Add({{"code", static_cast<double>(i % 4 == 3 ? 9 : i % 2)},
                           {"color", std::string("red")},
                           {"other", static_cast<double>(i)},
                           {"price", static_cast<double>(i)},
                           {"secret", 1.0},
                           {"title", "Red lamp " + std::to_string(i)}}));
  }
  const Result<std::vector<FeatureDef>> built = builder.Build();
  ASSERT_OK(built);
  const std::vector<FeatureDef>& defs = *built;
  ASSERT_EQ(defs.size(), 5U);
  EXPECT_EQ(Find(defs, "code")->kind, FeatureKind::kCategorical);
  EXPECT_EQ(Find(defs, "code")->vocabulary, (std::vector<std::string>{"0", "1"})) << "the most frequent two";
  EXPECT_EQ(Find(defs, "code")->buckets, 7);
  EXPECT_FALSE(Find(defs, "price")->log);
  EXPECT_NEAR(Find(defs, "price")->mean, 19.5, 1e-9);
  EXPECT_TRUE(Find(defs, "other")->log) << "what is not named is inferred";
  EXPECT_TRUE(Find(defs, "title")->vocabulary.empty());
  EXPECT_EQ(Find(defs, "title")->buckets, 100);
  EXPECT_EQ(Find(defs, "title")->max_values, 2);
  EXPECT_EQ(Find(defs, "secret"), nullptr);
  EXPECT_EQ(Find(defs, "color")->vocabulary, requests[4].vocabulary);
  EXPECT_EQ(Find(defs, "color")->buckets, 1);
  EXPECT_EQ(builder.Constant(), std::vector<std::string>{"color"}) << "what is ignored is nobody's worry";
}

TEST(FeatureBuilderTest, ANumberThatIsNoneIsRefusedWithWhatToDo) {
  std::vector<FeatureRequest> requests(1);
  requests[0].name = "secret";
  requests[0].ignore = true;
  FeatureBuilder builder(requests, "item");
  EXPECT_OK(builder.Add({{"secret", std::nan("")}}));  // nothing reads it
  const Status status = builder.Add({{"price", std::nan("")}});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("feature `price` is not a finite number: correct it or leave it out there"),
            std::string::npos)
      << status.message();
}

// One vocabulary for what extraction cuts off, and none for what it never sees.
TEST(FeatureBuilderTest, LearnsOnlyWhatExtractionReads) {
  std::vector<FeatureRequest> requests(1);
  requests[0].name = "title";
  requests[0].kind = FeatureKind::kText;
  requests[0].max_values = 2;
  FeatureBuilder builder(requests, "item");
  for (int i = 0; i < 3; ++i) ASSERT_OK(builder.Add({{"title", std::string("one two three")}}));
  EXPECT_EQ(builder.Build()->at(0).vocabulary, (std::vector<std::string>{"one", "two"}));
}

TEST(FeatureBuilderTest, SaysWhichRequestsTheDataCannotMeet) {
  std::vector<FeatureRequest> requests(3);
  requests[0].name = "colour";
  requests[0].where = "c.yaml:3";
  requests[1].name = "title";
  requests[1].kind = FeatureKind::kDense;
  requests[1].where = "c.yaml:4";
  requests[2].name = "rare";
  requests[2].buckets = 0;
  requests[2].where = "c.yaml:5";
  FeatureBuilder builder(requests, "item");
  ASSERT_OK(builder.Add({{"color", std::string("red")}, {"rare", std::string("x")}, {"title", std::string("lamp")}}));
  const Result<std::vector<FeatureDef>> built = builder.Build();
  ASSERT_EQ(built.status().code(), Code::kConfig);
  for (const char* part :
       {"c.yaml:3: feature `colour`: no item of the training part has it: did you mean `color`?",
        "c.yaml:4: feature `title` is to be dense, but of 1 values none is a number",
        "c.yaml:5: feature `rare`: none of its 1 values is seen 2 times, and there are no buckets"}) {
    EXPECT_NE(built.status().message().find(part), std::string::npos) << built.status().message();
  }
}

TEST(FeatureBuilderTest, QuantilesCutIntoPartsOfOneSize) {
  std::vector<double> numbers;
  for (int i = 100; i > 0; --i) numbers.push_back(i);
  EXPECT_EQ(QuantileBoundaries(numbers, 4), (std::vector<double>{26, 51, 76}));
  EXPECT_EQ(QuantileBoundaries({0, 0, 0, 0, 0, 0, 1, 2}, 4), std::vector<double>{1})
      << "what is frequent is one bucket, and none is empty";
  EXPECT_EQ(QuantileBoundaries({5, 5, 5}, 10), std::vector<double>{5});
  EXPECT_EQ(QuantileBoundaries({7}, 2), std::vector<double>{7});
  EXPECT_EQ(QuantileBoundaries({1, 2}, 1000), std::vector<double>{2});
}

TEST(FeatureBuilderTest, LearnsBoundariesOrTakesThem) {
  std::vector<FeatureRequest> requests(3);
  requests[0].name = "age";
  requests[1].name = "price";
  requests[1].quantiles = 2;
  requests[2].name = "title";
  for (FeatureRequest& request : requests) request.kind = FeatureKind::kBucketised;
  requests[0].boundaries = {18, 65};
  FeatureBuilder builder(requests, "user");
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(builder.Add(
        {{"age", static_cast<double>(10 * i)}, {"price", static_cast<double>(i)}, {"title", std::string("t")}}));
  }
  const Status status = builder.Build().status();
  EXPECT_NE(status.message().find("feature `title` is to be bucketised, but of 10 values none is a number"),
            std::string::npos)
      << status.message();
  requests.pop_back();
  FeatureBuilder numbers(requests, "user");
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(numbers.Add({{"age", static_cast<double>(10 * i)}, {"price", static_cast<double>(i)}}));
  }
  const Result<std::vector<FeatureDef>> built = numbers.Build();
  ASSERT_OK(built);
  EXPECT_EQ(Find(*built, "age")->boundaries, requests[0].boundaries);
  EXPECT_EQ(Find(*built, "price")->boundaries, std::vector<double>{5});
}

}  // namespace
}  // namespace freshet
