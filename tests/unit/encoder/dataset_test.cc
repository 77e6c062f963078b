#include "dataset.h"

#include <algorithm>
#include <fstream>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

class DatasetTest : public ::testing::Test {
 protected:
  void Put(const std::string& file, const std::string& text) { std::ofstream(dir_ / file) << text; }

  static std::string Item(const std::string& id, double price, int time) {
    return R"({"item_id": ")" + id + R"(", "features": {"price": )" + std::to_string(price) + R"(}, "timestamp": )" +
           std::to_string(time) + "}\n";
  }
  static std::string Deleted(const std::string& id, int time) {
    return R"({"item_id": ")" + id + R"(", "deleted": true, "timestamp": )" + std::to_string(time) + "}\n";
  }
  static std::string Line(const std::string& user, const std::string& item, int time) {
    return R"({"user_id": ")" + user + R"(", "item_id": ")" + item + R"(", "timestamp": )" + std::to_string(time) +
           "}\n";
  }
  static std::string Age(const std::string& user, int age, int time) {
    return R"({"user_id": ")" + user + R"(", "features": {"age": )" + std::to_string(age) + R"(}, "timestamp": )" +
           std::to_string(time) + "}\n";
  }

  DatasetOptions Options(Part judged) {
    DatasetOptions options{dir_ / "items.jsonl", dir_ / "interactions.jsonl", dir_ / "users.jsonl", 0, {}, judged};
    options.split.kind = SplitKind::kTime;
    options.split.validation_from_ms = 20;
    options.split.test_from_ms = 30;
    options.split.test_until_ms = 40;
    return options;
  }

  static double Number(const Features& features, const std::string& name) {
    const FeatureValue* value = FindFeature(features, name);
    return value == nullptr ? -1 : std::get<double>(*value);
  }

  const test::TempDir dir_;
};

TEST_F(DatasetTest, NothingBehindTheJudgedPartIsSeen) {
  Put("items.jsonl", Item("a", 1, 5) + Item("a", 2, 25) + Item("a", 3, 35) + Item("new", 7, 32) + Item("new", 8, 33) +
                         Item("later", 9, 45));
  Put("interactions.jsonl", Line("u", "a", 10) + Line("u", "a", 22) + Line("v", "new", 32) + Line("w", "later", 45));
  Put("users.jsonl", Age("u", 1, 5) + Age("u", 2, 25) + Age("u", 3, 35) + Age("v", 4, 32) + Age("v", 5, 33));

  const Result<Dataset> test = LoadDataset(Options(Part::kTest));
  ASSERT_OK(test);
  ASSERT_EQ(test->items.size(), 2U) << "`later` first appears after the test part";
  EXPECT_EQ(Number(test->items[0].features, "price"), 2) << "as it was when the test part began";
  EXPECT_EQ(Number(test->items[1].features, "price"), 7) << "a new item enters as it first was";
  ASSERT_EQ(test->positives.size(), 3U);
  EXPECT_EQ(test->positives[2].part, Part::kTest);
  ASSERT_EQ(test->users.size(), 2U);
  EXPECT_EQ(Number(test->users[0].features, "age"), 2);
  EXPECT_EQ(Number(test->users[1].features, "age"), 4);

  const Result<Dataset> validation = LoadDataset(Options(Part::kValidation));
  ASSERT_OK(validation);
  ASSERT_EQ(validation->items.size(), 1U) << "training never hears of the test part's items";
  EXPECT_EQ(Number(validation->items[0].features, "price"), 1);
  EXPECT_EQ(validation->positives.size(), 2U);
  EXPECT_EQ(validation->users.size(), 1U);
  EXPECT_EQ(Number(validation->users[0].features, "age"), 1);
}

// Whoever stood when the judged part began could be recommended, learned from and taken, whatever became of it.
TEST_F(DatasetTest, WhatIsDeletedLaterWasThereWhenTheJudgedPartBegan) {
  Put("items.jsonl", Item("stays", 1, 5) + Item("in_test", 2, 5) + Item("after", 3, 5) + Deleted("in_test", 35) +
                         Deleted("after", 45) + Item("after", 4, 50) + Deleted("after", 55));
  std::string lines;
  for (const char* item : {"stays", "in_test", "after"}) {
    lines += Line("u", item, 10) + Line("u", item, 22) + Line("u", item, 32);
  }
  Put("interactions.jsonl", lines);
  Put("users.jsonl", "");
  for (const Part judged : {Part::kValidation, Part::kTest}) {
    const Result<Dataset> data = LoadDataset(Options(judged));
    ASSERT_OK(data);
    ASSERT_EQ(data->items.size(), 3U);
    EXPECT_EQ(data->items[2].item_id, "after");
    EXPECT_EQ(Number(data->items[2].features, "price"), 3) << "as it was then";
    EXPECT_EQ(data->positives.size(), judged == Part::kTest ? 9U : 6U);
    EXPECT_EQ(data->unknown_items, 0);
  }
}

TEST_F(DatasetTest, WhatIsDeletedBeforeIsNoCandidateUntilItComesBack) {
  Put("items.jsonl", Item("gone", 1, 5) + Item("back", 2, 5) + Item("stays", 3, 5) + Deleted("gone", 15) +
                         Deleted("back", 15) + Item("back", 7, 32) + Item("back", 8, 33) + Deleted("never", 3));
  std::string lines;
  for (const char* item : {"gone", "back", "stays", "never"}) lines += Line("u", item, 10) + Line("u", item, 22);
  Put("interactions.jsonl", lines + Line("v", "back", 34));
  Put("users.jsonl", "");
  const Result<Dataset> validation = LoadDataset(Options(Part::kValidation));
  ASSERT_OK(validation);
  ASSERT_EQ(validation->items.size(), 1U);
  EXPECT_EQ(validation->items[0].item_id, "stays");
  EXPECT_EQ(validation->positives.size(), 2U);
  EXPECT_EQ(validation->unknown_items, 6);

  const Result<Dataset> test = LoadDataset(Options(Part::kTest));
  ASSERT_OK(test);
  ASSERT_EQ(test->items.size(), 2U);
  EXPECT_EQ(Number(test->items[0].features, "price"), 7) << "as it came back";
  EXPECT_EQ(test->item_first_ms[0], 5);
  EXPECT_EQ(test->positives.size(), 4U) << "not what was taken of it while it was gone";
  EXPECT_EQ(test->positives.back().part, Part::kTest);
}

// As in the engine; also where it is said only after the judged part.
TEST_F(DatasetTest, OfWhoWasForgottenNothingFromBeforeIsThere) {
  const auto forget = [](const std::string& user, const std::string& when) {
    return R"({"user_id": ")" + user + R"(", "deleted": true)" + when + "}\n";
  };
  Put("items.jsonl", Item("a", 1, 5));
  std::string lines;
  for (const char* user : {"stays", "gone", "undated", "back"}) {
    lines += Line(user, "a", 10) + Line(user, "a", 22) + Line(user, "a", 35);
  }
  Put("interactions.jsonl", lines);
  Put("users.jsonl", Age("stays", 1, 5) + Age("gone", 2, 5) + Age("undated", 3, 5) + Age("back", 4, 5) +
                         forget("back", R"(, "timestamp": 12)") + forget("undated", "") +
                         forget("gone", R"(, "timestamp": 50)"));
  for (const Part judged : {Part::kValidation, Part::kTest}) {
    const Result<Dataset> data = LoadDataset(Options(judged));
    ASSERT_OK(data);
    ASSERT_EQ(data->users.size(), 2U);
    EXPECT_EQ(data->users[0].user_id, "stays");
    EXPECT_EQ(Number(data->users[0].features, "age"), 1);
    EXPECT_EQ(data->users[1].user_id, "back");
    EXPECT_EQ(Number(data->users[1].features, "age"), -1) << "he has not said it again";
    EXPECT_EQ(data->positives.size(), judged == Part::kTest ? 5U : 3U);
  }
  Put("users.jsonl", forget("back", R"(, "timestamp": 12)") + Age("back", 5, 13));
  const Result<Dataset> again = LoadDataset(Options(Part::kTest));
  ASSERT_OK(again);
  EXPECT_EQ(again->positives.size(), 11U);
  EXPECT_EQ(Number(again->users.back().features, "age"), 5);
}

// A catalogue dated by its export, or a compacted topic: what is taken of such items is not of unknown ones.
TEST_F(DatasetTest, SaysWhereItemsAreDatedBehindTheJudgedPart) {
  Put("items.jsonl",
      Item("a", 1, 5) + Item("exported", 2, 30) + Item("gone", 3, 5) + Deleted("gone", 15) + Item("gone", 3, 50));
  Put("interactions.jsonl", Line("u", "a", 10) + Line("u", "exported", 11) + Line("u", "a", 22) +
                                Line("u", "exported", 23) + Line("u", "gone", 12) + Line("u", "missing", 13) +
                                Line("u", "exported", 31));
  Put("users.jsonl", "");
  const Result<Dataset> data = LoadDataset(Options(Part::kValidation));
  ASSERT_OK(data);
  EXPECT_EQ(data->items.size(), 1U);
  EXPECT_EQ(data->later_items, 2) << "what lies behind the judged part is not looked at";
  EXPECT_EQ(data->unknown_items, 2) << "one deleted, one not there";
  ASSERT_EQ(data->warnings.size(), 2U);
  EXPECT_NE(data->warnings[0].find("2 interactions are left out"), std::string::npos) << data->warnings[0];
  EXPECT_NE(data->warnings[0].find("the first is `missing`"), std::string::npos) << data->warnings[0];
  EXPECT_NE(data->warnings[1].find("at or behind the end of the validation part (30)"), std::string::npos)
      << data->warnings[1];
  EXPECT_NE(data->warnings[1].find("leave out `timestamp`"), std::string::npos) << data->warnings[1];
  const Result<Dataset> test = LoadDataset(Options(Part::kTest));
  ASSERT_OK(test);
  EXPECT_EQ(test->later_items, 0) << "they are known by the end of the test part";

  Put("items.jsonl", Item("a", 1, 45) + Item("exported", 2, 45) + Deleted("gone", 3));
  const Status none = LoadDataset(Options(Part::kTest)).status();
  EXPECT_EQ(none.code(), Code::kInvalidArgument);
  EXPECT_NE(none.message().find("is dated at or behind the end of the test part (40)"), std::string::npos)
      << none.message();
  EXPECT_NE(none.message().find("leave out `timestamp`"), std::string::npos) << none.message();
}

TEST_F(DatasetTest, ALineThatDoesNotDecodeIsNamedWithWhatToDo) {
  Put("items.jsonl", Item("a", 1, 5) + R"({"item_id": "b", "features": {"price": 1e999}, "timestamp": 5})" + "\n");
  Put("interactions.jsonl", Line("u", "a", 10));
  Put("users.jsonl", Age("u", 3, 5) + "{\"user_id\": 3.5}\n");
  const auto refusal = [&] { return LoadDataset(Options(Part::kValidation)).status().message(); };
  EXPECT_NE(refusal().find("items.jsonl:2: "), std::string::npos) << refusal();
  EXPECT_NE(refusal().find(": correct the line, or leave it out"), std::string::npos) << refusal();
  Put("items.jsonl", Item("a", 1, 5));
  EXPECT_NE(refusal().find("users.jsonl:2: "), std::string::npos) << refusal();
  EXPECT_NE(refusal().find(": correct the line, or leave it out"), std::string::npos) << refusal();
}

TEST_F(DatasetTest, RandomSplitsHaveNoTimes) {
  Put("items.jsonl", Item("a", 1, 5) + Item("a", 2, 25));
  std::string lines;
  for (int i = 0; i < 20; ++i) lines += Line("u", "a", 10 + i);
  Put("interactions.jsonl", lines);
  Put("users.jsonl", "");
  DatasetOptions options = Options(Part::kTest);
  options.split = {};
  options.split.kind = SplitKind::kRandom;
  options.split.test_fraction = 0.5;
  const Result<Dataset> data = LoadDataset(options);
  ASSERT_OK(data);
  EXPECT_EQ(Number(data->items[0].features, "price"), 2);
  EXPECT_EQ(std::count_if(data->positives.begin(), data->positives.end(),
                          [](const Positive& one) { return one.part == Part::kTest; }),
            10);
}

// The same shop once in the plain form and once as its own export writes it.
TEST_F(DatasetTest, FilesInTheSchemaOfTheirProducerAreTheSameData) {
  Put("items.jsonl", R"({"item_id": "7", "features": {"price": 1.5, "brand": "x"}, "timestamp": 5000})"
                     "\n"
                     R"({"item_id": "8", "features": {"price": 2, "brand": "y"}, "timestamp": 6000})"
                     "\n" +
                         Deleted("8", 12'000));
  Put("interactions.jsonl", R"({"user_id": "u", "item_id": "7", "event": "order", "value": 3, "timestamp": 10000})"
                            "\n"
                            R"({"user_id": "u", "item_id": "8", "event": "click", "timestamp": 11000})"
                            "\n");
  Put("users.jsonl", R"({"user_id": "u", "features": {"age": 30}, "timestamp": 4000})"
                     "\n");
  Put("own_items.jsonl",
      R"({"sku": 7, "offer": {"price": 1.5}, "maker": {"name": "x"}, "changed": "1970-01-01T00:00:05Z"})"
      "\n"
      R"({"sku": 8, "offer": {"price": 2}, "maker": {"name": "y"}, "changed": "1970-01-01T00:00:06Z"})"
      "\n"
      R"({"sku": 8, "deleted": true, "changed": "1970-01-01T00:00:12Z"})"
      "\n");
  Put("own_interactions.jsonl", R"({"who": "u", "what": {"sku": 7}, "did": "order", "times": 3, "at": 10})"
                                "\n"
                                R"({"who": "u", "what": {"sku": 8}, "did": "click", "at": 11})"
                                "\n");
  Put("own_users.jsonl", R"({"id": "u", "profile": {"age": 30}, "seen_at": 4})"
                         "\n");
  DatasetOptions plain = Options(Part::kValidation);
  plain.split.validation_from_ms = 11'000;
  plain.split.test_from_ms = 20'000;
  plain.split.test_until_ms = 0;
  DatasetOptions own = plain;
  own.items_file = dir_ / "own_items.jsonl";
  own.interactions_file = dir_ / "own_interactions.jsonl";
  own.users_file = dir_ / "own_users.jsonl";
  own.schemas.items = PlainLineSchema(TopicRole::kItems);
  own.schemas.items->item_id = "/sku";
  own.schemas.items->features = "";
  own.schemas.items->extra_features = {{"price", "/offer/price"}, {"brand", "/maker/name"}};
  own.schemas.items->timestamp = "/changed";
  own.schemas.items->timestamp_format = TimestampFormat::kRfc3339;
  own.schemas.interactions = PlainLineSchema(TopicRole::kInteractions);
  own.schemas.interactions->user_id = "/who";
  own.schemas.interactions->item_id = "/what/sku";
  own.schemas.interactions->event = "/did";
  own.schemas.interactions->value = "/times";
  own.schemas.interactions->timestamp = "/at";
  own.schemas.interactions->timestamp_format = TimestampFormat::kSeconds;
  own.schemas.users = PlainLineSchema(TopicRole::kUsers);
  own.schemas.users->user_id = "/id";
  own.schemas.users->features = "/profile";
  own.schemas.users->timestamp = "/seen_at";
  own.schemas.users->timestamp_format = TimestampFormat::kSeconds;
  const Result<Dataset> a = LoadDataset(plain);
  const Result<Dataset> b = LoadDataset(own);
  ASSERT_OK(a);
  ASSERT_OK(b);
  ASSERT_EQ(a->items.size(), 2U);
  ASSERT_EQ(b->items.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(a->items[i].item_id, b->items[i].item_id);
    EXPECT_EQ(a->items[i].features, b->items[i].features);
    EXPECT_EQ(a->item_first_ms[i], b->item_first_ms[i]);
  }
  ASSERT_EQ(b->users.size(), 1U);
  EXPECT_EQ(a->users[0].features, b->users[0].features);
  EXPECT_EQ(a->event_names, b->event_names);
  ASSERT_EQ(a->positives.size(), 2U);
  ASSERT_EQ(b->positives.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(a->positives[i].timestamp_ms, b->positives[i].timestamp_ms);
    EXPECT_EQ(a->positives[i].value, b->positives[i].value);
    EXPECT_EQ(a->positives[i].part, b->positives[i].part);
  }

  own.schemas.items->item_id = "";
  EXPECT_NE(LoadDataset(own).status().message().find("schema.item_id: lines of a file have no key"), std::string::npos);
  own.schemas.items->item_id = "/nowhere";
  EXPECT_NE(LoadDataset(own).status().message().find("own_items.jsonl:1: /nowhere is missing"), std::string::npos);
}

}  // namespace
}  // namespace freshet
