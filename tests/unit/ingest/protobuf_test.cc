// Protobuf messages without a frame: by a descriptor set, or by freshet/v1/events.proto.
#include <gtest/gtest.h>

#include <cstring>

#include "freshet/core/file.h"
#include "freshet/ingest/decoder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

// Messages by hand, so that nothing generated is on both sides.
std::string Field(int number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}
std::string Varint(int number, int value) {
  return std::string(1, static_cast<char>(number << 3)) + static_cast<char>(value);
}
std::string Double(int number, double value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return std::string(1, static_cast<char>(number << 3 | 1)) + bytes;
}
std::string Entry(const std::string& key, const std::string& value) { return Field(1, key) + Field(2, value); }

std::string DescriptorSet() { return test::SourceRoot() + "/tests/unit/ingest/data/product.desc"; }

class ProtobufTest : public ::testing::Test {
 protected:
  ProtobufTest() { format_.format = RecordFormat::kProtobuf; }
  Result<Event> Decode(TopicRole role, std::optional<std::string_view> value, std::string_view key = "k") {
    FRESHET_ASSIGN(const auto decoder, MakeDecoder(role, format_, schema_ ? *schema_ : DefaultSchema(role), {}));
    RawRecord record;
    record.topic = "t";
    record.timestamp_ms = 1234;
    record.key = key;
    record.value = value;
    Event event;
    if (Status status = decoder->Decode(record, &event); !status.ok()) return status;
    return event;
  }
  FormatOptions format_;
  std::optional<SchemaMap> schema_;
};

TEST_F(ProtobufTest, ReadsOurOwnItem) {
  const std::string floats("\x00\x00\x00\x3f\x00\x00\x80\xbf", 8);
  const auto event = Decode(
      TopicRole::kItems, Field(1, "film") + Field(2, "a") + Field(2, "b") + Field(3, Entry("price", Double(1, 3.5))) +
                             Field(3, Entry("sizes", Field(5, Field(1, "s") + Field(1, "m")))) +
                             Field(4, Entry("year", Varint(2, 95))) + Field(4, Entry("in_stock", Varint(3, 0))) +
                             Field(4, Entry("title", Field(4, "T"))) + Field(4, Entry("unset", "")) + Field(5, floats));
  ASSERT_OK(event);
  const auto& item = std::get<ItemUpdate>(event->body);
  using Texts = std::vector<std::string>;
  EXPECT_EQ(item.item_id, "k");
  EXPECT_EQ(item.features,
            (Features{{"category", "film"}, {"price", 3.5}, {"sizes", Texts{"s", "m"}}, {"tags", Texts{"a", "b"}}}));
  EXPECT_EQ(item.attributes, (Attributes{{"in_stock", false}, {"title", "T"}, {"year", std::int64_t{95}}}));
  EXPECT_EQ(item.vector, (std::vector<float>{0.5f, -1.0f}));
}

TEST_F(ProtobufTest, ReadsOurOwnInteractionAndUser) {
  auto event = Decode(TopicRole::kInteractions, Field(1, "u") + Field(2, "i") + Field(3, "buy") + Varint(5, 99));
  ASSERT_OK(event);
  auto interaction = std::get<Interaction>(event->body);
  EXPECT_EQ(interaction.user_id + interaction.item_id + interaction.event, "uibuy");
  EXPECT_EQ(interaction.value, 1.0) << "absent, not zero";
  EXPECT_EQ(interaction.timestamp_ms, 99);
  event = Decode(TopicRole::kInteractions, Field(2, "i"));
  ASSERT_OK(event);
  interaction = std::get<Interaction>(event->body);
  EXPECT_EQ(interaction.user_id + interaction.event, "kview");
  EXPECT_EQ(interaction.timestamp_ms, 1234);
  event = Decode(TopicRole::kUsers, Field(1, Entry("age", Double(1, 33))));
  ASSERT_OK(event);
  EXPECT_EQ(std::get<UserUpdate>(event->body).features, (Features{{"age", 33.0}}));
}

TEST_F(ProtobufTest, NullDeletesAndEmptyIsPoison) {
  const auto event = Decode(TopicRole::kItems, std::nullopt);
  ASSERT_OK(event);
  EXPECT_TRUE(std::get<ItemUpdate>(event->body).deleted);
  EXPECT_EQ(Decode(TopicRole::kItems, "").status().code(), Code::kInvalidArgument);
}

TEST_F(ProtobufTest, ReadsAMessageOfADescriptorSet) {
  format_.protobuf_descriptor_set = DescriptorSet();
  format_.protobuf_message = "shop.Product";
  SchemaMap schema;
  schema.item_id = "/sku";
  schema.category = "/kind";
  schema.extra_attributes = {{"available", "/offer/available"}, {"raw", "/raw"}};
  schema_ = schema;
  const auto event =
      Decode(TopicRole::kItems, Field(1, "42") + Varint(2, 1) + Field(4, Double(1, 9.5)) + Field(7, "\xff"));
  ASSERT_OK(event);
  const auto& item = std::get<ItemUpdate>(event->body);
  EXPECT_EQ(item.item_id, "42");
  EXPECT_EQ(item.features, (Features{{"category", "TOY"}}));
  EXPECT_EQ(item.attributes, (Attributes{{"available", false}})) << "false without presence; bytes that are no text";
}

TEST_F(ProtobufTest, AKeyMayBeAMessageToo) {
  format_.protobuf_descriptor_set = DescriptorSet();
  format_.protobuf_message = "shop.Product";
  format_.key_format = KeyFormat::kProtobuf;
  format_.protobuf_key_message = "shop.ProductKey";
  SchemaMap schema;
  schema.item_id = "/sku";
  schema_ = schema;
  const auto id_of = [&](std::string_view key) -> std::string {
    const auto event = Decode(TopicRole::kItems, std::nullopt, key);
    if (!event.ok()) return std::string(CodeName(event.status().code()));
    return std::get<ItemUpdate>(event->body).item_id;
  };
  EXPECT_EQ(id_of(Field(1, "42")), "42");
  EXPECT_EQ(id_of(Field(1, "42") + Varint(2, 7)), "42") << "the pointer says which of two it is";
  const std::string refused(CodeName(Code::kInvalidArgument));
  EXPECT_EQ(id_of("42"), refused);
  EXPECT_EQ(id_of(""), refused) << "no id";
  EXPECT_EQ(id_of(Field(1, "\xff")), refused);
  // Values of another kind beside it; and users, whose ids stand in their keys.
  format_.format = RecordFormat::kJson;
  schema_->item_id.clear();
  EXPECT_EQ(id_of(Field(1, "42")), refused) << "two fields, and nobody says which";
  format_.protobuf_key_message = "shop.Other";
  EXPECT_EQ(id_of(Field(1, "42")), "42") << "one field";
  const auto json = Decode(TopicRole::kItems, "{}", Field(1, "43"));
  ASSERT_OK(json);
  EXPECT_EQ(std::get<ItemUpdate>(json->body).item_id, "43");
}

TEST_F(ProtobufTest, AKeyMessageMustBeThere) {
  format_.key_format = KeyFormat::kProtobuf;
  EXPECT_EQ(Decode(TopicRole::kItems, "x").status().code(), Code::kConfig) << "ours have no keys";
  format_.protobuf_descriptor_set = DescriptorSet();
  format_.protobuf_message = "shop.Product";
  EXPECT_EQ(Decode(TopicRole::kItems, "x").status().code(), Code::kConfig);
  format_.protobuf_key_message = "shop.Nothing";
  const Status status = Decode(TopicRole::kItems, "x").status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("key_message"), std::string::npos);
}

TEST_F(ProtobufTest, TextsMustBeUtf8AndBytesMustBeTheMessage) {
  for (const std::string& value : {Field(1, "\xff"), std::string("\x0a\x05x"), std::string("\xff\xff\xff"),
                                   Field(4, Entry("t", Field(4, "\xc0\x80")))}) {
    EXPECT_EQ(Decode(TopicRole::kItems, value).status().code(), Code::kInvalidArgument);
  }
}

TEST_F(ProtobufTest, WhatCannotBeOpenedIsAConfigurationError) {
  const test::TempDir dir;
  format_.protobuf_message = "shop.Product";
  EXPECT_EQ(Decode(TopicRole::kItems, "x").status().code(), Code::kConfig) << "a message without a set";
  format_.protobuf_descriptor_set = dir / "missing";
  EXPECT_EQ(Decode(TopicRole::kItems, "x").status().code(), Code::kConfig);
  ASSERT_OK(WriteFileAtomically(dir / "bad", "not a set"));
  format_.protobuf_descriptor_set = dir / "bad";
  EXPECT_EQ(Decode(TopicRole::kItems, "x").status().code(), Code::kConfig);
  format_.protobuf_descriptor_set = DescriptorSet();
  format_.protobuf_message = "shop.Nothing";
  const Status status = Decode(TopicRole::kItems, "x").status();
  EXPECT_EQ(status.code(), Code::kConfig);
  EXPECT_NE(status.message().find("shop.Nothing"), std::string::npos);
}

}  // namespace
}  // namespace freshet
