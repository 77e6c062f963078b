#include <gtest/gtest.h>

#include "freshet/ingest/decoder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Texts = std::vector<std::string>;

class JsonDecoderTest : public ::testing::Test {
 protected:
  // Decodes with the default schema of `role` unless `schema` was changed.
  Result<Event> Decode(TopicRole role, std::optional<std::string_view> key, std::optional<std::string_view> value) {
    auto decoder = MakeJsonDecoder(role, schema_ ? *schema_ : DefaultSchema(role), limits_);
    if (!decoder.ok()) return decoder.status();
    RawRecord record;
    record.topic = "t";
    record.timestamp_ms = 1234;
    record.key = key;
    record.value = value;
    Event event;
    if (Status status = (*decoder)->Decode(record, &event); !status.ok()) return status;
    return event;
  }
  Result<ItemUpdate> Item(std::string_view value, std::optional<std::string_view> key = "i1") {
    FRESHET_ASSIGN(Event event, Decode(TopicRole::kItems, key, value));
    return std::get<ItemUpdate>(event.body);
  }
  Result<Interaction> Action(std::string_view value, std::optional<std::string_view> key = std::nullopt) {
    FRESHET_ASSIGN(Event event, Decode(TopicRole::kInteractions, key, value));
    return std::get<Interaction>(event.body);
  }
  // The reason why `value` is poison on the items topic.
  std::string Poison(std::string_view value, std::optional<std::string_view> key = "i1") {
    const auto item = Item(value, key);
    if (item.ok()) return "";
    EXPECT_EQ(item.status().code(), Code::kInvalidArgument);
    return item.status().message();
  }

  std::optional<SchemaMap> schema_;
  DecodeLimits limits_;
};

TEST_F(JsonDecoderTest, ReadsThePlainItem) {
  const auto item = Item(R"({"category": "film", "tags": ["b", "a", null], "features": {"price": 3.5, "new": true,
      "colour": "red", "sizes": ["s"], "gone": null},
      "attributes": {"title": "Toy Story", "in_stock": true, "year": 1995, "score": 0.5, "by": ["x", "y"]},
      "vector": [0.5, -1]})");
  ASSERT_OK(item);
  EXPECT_EQ(item->item_id, "i1");
  EXPECT_FALSE(item->deleted);
  const Features features = {{"category", "film"}, {"colour", "red"},     {"new", 1.0},
                             {"price", 3.5},       {"sizes", Texts{"s"}}, {"tags", Texts{"b", "a"}}};
  EXPECT_EQ(item->features, features);
  const Attributes attributes = {{"by", Texts{"x", "y"}},
                                 {"in_stock", true},
                                 {"score", 0.5},
                                 {"title", "Toy Story"},
                                 {"year", std::int64_t{1995}}};
  EXPECT_EQ(item->attributes, attributes);
  EXPECT_EQ(item->vector, (std::vector<float>{0.5f, -1.0f}));
}

TEST_F(JsonDecoderTest, NullValueDeletesAndEmptyValueIsPoison) {
  const auto event = Decode(TopicRole::kItems, "i1", std::nullopt);
  ASSERT_OK(event);
  EXPECT_TRUE(std::get<ItemUpdate>(event->body).deleted);
  EXPECT_EQ(std::get<ItemUpdate>(event->body).item_id, "i1");
  EXPECT_EQ(Decode(TopicRole::kItems, "i1", "").status().code(), Code::kInvalidArgument);
  const auto user = Decode(TopicRole::kUsers, "u1", std::nullopt);
  ASSERT_OK(user);
  EXPECT_TRUE(std::get<UserUpdate>(user->body).forgotten);
}

TEST_F(JsonDecoderTest, NullKeyIsPoisonWhereTheKeyIsTheId) {
  for (const TopicRole role : {TopicRole::kItems, TopicRole::kUsers}) {
    EXPECT_EQ(Decode(role, std::nullopt, "{}").status().code(), Code::kInvalidArgument);
    EXPECT_EQ(Decode(role, std::nullopt, std::nullopt).status().code(), Code::kInvalidArgument);
  }
}

TEST_F(JsonDecoderTest, IdsAreOneTo512BytesOfUtf8) {
  EXPECT_NE(Poison("{}", ""), "");
  EXPECT_NE(Poison("{}", "\xff"), "");
  EXPECT_NE(Poison("{}", std::string(513, 'x')), "");
  EXPECT_EQ(Poison("{}", std::string(512, 'x')), "");
}

TEST_F(JsonDecoderTest, MismatchesNameThePointerAndNotTheValue) {
  const std::pair<const char*, const char*> cases[] = {{R"({"category": ["secret"]})", "/category"},
                                                       {R"({"tags": "secret"})", "/tags"},
                                                       {R"({"tags": [1]})", "/tags"},
                                                       {R"({"features": ["secret"]})", "/features"},
                                                       {R"({"features": {"a": {}}})", "/features/a"},
                                                       {R"({"features": {"a": [1]}})", "/features/a"},
                                                       {R"({"attributes": 3})", "/attributes"},
                                                       {R"({"attributes": {"a": [true, 1]}})", "/attributes/a"},
                                                       {R"({"vector": "secret"})", "/vector"},
                                                       {R"({"vector": [1, "secret"]})", "/vector"},
                                                       {R"({"vector": [1e39]})", "/vector"},
                                                       {R"({"vector": [0, 0]})", "/vector"},
                                                       {R"({"vector": [1e-30]})", "/vector"},
                                                       {R"({"vector": []})", "/vector"}};
  for (const auto& [value, pointer] : cases) {
    const std::string reason = Poison(value);
    EXPECT_NE(reason.find(pointer), std::string::npos) << value << ": " << reason;
    EXPECT_EQ(reason.find("secret"), std::string::npos) << reason;
  }
}

TEST_F(JsonDecoderTest, WhatIsNoObjectIsPoison) {
  for (const char* value : {"5", "[]", "null", "\"x\"", "{", "{} {}", "{\"a\":NaN}", "\xff", " "}) {
    EXPECT_NE(Poison(value), "") << value;
  }
}

TEST_F(JsonDecoderTest, DuplicateFeaturesArePoison) {
  EXPECT_NE(Poison(R"({"category": "a", "features": {"category": "b"}})"), "");
  EXPECT_NE(Poison(R"({"features": {"a": 1, "a": 2}})"), "");
  EXPECT_NE(Poison(R"({"attributes": {"a": 1, "a": 1}})"), "");
}

TEST_F(JsonDecoderTest, LimitsHold) {
  limits_.max_value_bytes = 100;
  EXPECT_NE(Poison("{\"category\": \"" + std::string(100, 'x') + "\"}"), "");
  limits_ = {};
  limits_.max_string_bytes = 4;
  EXPECT_NE(Poison(R"({"category": "abcde"})"), "");
  EXPECT_EQ(Poison(R"({"category": "abcd"})"), "");
  limits_ = {};
  limits_.max_tags = 1;
  EXPECT_NE(Poison(R"({"tags": ["a", "b"]})"), "");
  limits_ = {};
  limits_.max_features = 1;
  EXPECT_NE(Poison(R"({"category": "a", "features": {"b": 1}})"), "");
  limits_ = {};
  limits_.max_attributes = 1;
  EXPECT_NE(Poison(R"({"attributes": {"a": 1, "b": 1}})"), "");
  limits_ = {};
  limits_.max_depth = 3;
  EXPECT_NE(Poison(R"({"other": {"a": {"b": {}}}})"), "");
  EXPECT_EQ(Poison(R"({"other": {"a": {}}})"), "");
}

TEST_F(JsonDecoderTest, PassthroughWantsAVectorOfItsDimension) {
  limits_.vector_dim = 2;
  EXPECT_NE(Poison("{}").find("/vector"), std::string::npos);
  EXPECT_NE(Poison(R"({"vector": [1, 2, 3]})"), "");
  EXPECT_OK(Item(R"({"vector": [1, 2]})"));
  EXPECT_OK(Decode(TopicRole::kItems, "i1", std::nullopt));  // a delete brings none
}

TEST_F(JsonDecoderTest, ReadsInteractionsWithDefaults) {
  auto full = Action(R"({"user_id": "u", "item_id": 42, "event": "buy", "value": 2, "timestamp": 99})", "other");
  ASSERT_OK(full);
  EXPECT_EQ(full->user_id, "u");
  EXPECT_EQ(full->item_id, "42");
  EXPECT_EQ(full->event, "buy");
  EXPECT_EQ(full->value, 2.0);
  EXPECT_EQ(full->timestamp_ms, 99);
  auto bare = Action(R"({"item_id": "i"})", "from-key");
  ASSERT_OK(bare);
  EXPECT_EQ(bare->user_id, "from-key");
  EXPECT_EQ(bare->event, "view");
  EXPECT_EQ(bare->value, 1.0);
  EXPECT_EQ(bare->timestamp_ms, 1234);
}

TEST_F(JsonDecoderTest, BrokenInteractionsArePoison) {
  for (const char* value :
       {R"({"item_id": "i"})", R"({"user_id": "u"})", R"({"user_id": "u", "item_id": 1.5})",
        R"({"user_id": "u", "item_id": ""})", R"({"user_id": "u", "item_id": "i", "value": "2"})",
        R"({"user_id": "u", "item_id": "i", "timestamp": "today"})",
        R"({"user_id": "u", "item_id": "i", "timestamp": -1})", R"({"user_id": "u", "item_id": "i", "event": 3})"}) {
    EXPECT_EQ(Action(value).status().code(), Code::kInvalidArgument) << value;
  }
  EXPECT_EQ(Decode(TopicRole::kInteractions, "u", std::nullopt).status().code(), Code::kInvalidArgument);
}

TEST_F(JsonDecoderTest, FollowsAProducersOwnSchema) {
  SchemaMap schema;
  schema.item_id = "/product/sku";
  schema.category = "/product/a~1b";
  schema.extra_features["price"] = "/offers/0/price";
  schema.extra_attributes["name"] = "/product/name";
  schema_ = schema;
  auto item = Item(R"({"product": {"sku": "s1", "a/b": "c", "name": "n"}, "offers": [{"price": 2}], "features": 5})");
  ASSERT_OK(item);
  EXPECT_EQ(item->item_id, "s1");
  EXPECT_EQ(item->features, (Features{{"category", "c"}, {"price", 2.0}}));
  EXPECT_EQ(item->attributes, (Attributes{{"name", "n"}}));
  EXPECT_NE(Poison(R"({"product": {}})").find("/product/sku"), std::string::npos);
}

TEST_F(JsonDecoderTest, MalformedPointersAreConfigurationErrors) {
  for (const char* pointer : {"features", "/a~2", "#/a"}) {
    SchemaMap schema = DefaultSchema(TopicRole::kItems);
    schema.features = pointer;
    EXPECT_EQ(MakeJsonDecoder(TopicRole::kItems, schema, {}).status().code(), Code::kConfig) << pointer;
  }
  EXPECT_EQ(MakeJsonDecoder(TopicRole::kInteractions, SchemaMap{}, {}).status().code(), Code::kConfig);
}

// Hostile bytes: every prefix and every one-byte change of a valid value is an event or poison, nothing else.
TEST_F(JsonDecoderTest, SurvivesEveryTruncationAndByteFlip) {
  const std::string good =
      R"({"category":"f\u00fc","tags":["a"],"features":{"p":3.2e1},"attributes":{"t":"T","b":true},"vector":[1,2]})";
  ASSERT_OK(Item(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(Poison(std::string_view(good).substr(0, size)), "") << size;
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      const auto item = Item(bad);
      EXPECT_TRUE(item.ok() || item.status().code() == Code::kInvalidArgument) << bad;
    }
  }
}

}  // namespace
}  // namespace freshet
