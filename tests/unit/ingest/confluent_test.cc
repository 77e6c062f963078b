// Confluent frames as confluent-kafka's serializers made them (data/make_confluent.py), with a registry on loopback.
#include <gtest/gtest.h>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/schema_registry.h"
#include "freshet_test/registry_server.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Texts = std::vector<std::string>;

std::string Bytes(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

class ConfluentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto text = ReadFile(test::SourceRoot() + "/tests/unit/ingest/data/confluent.json", std::size_t{1} << 20);
    ASSERT_OK(text);
    const auto samples = ParseJson(*text);
    ASSERT_OK(samples);
    for (const auto& frame : (*JsonFind(**samples, "frames")).GetObject()) {
      frames_[std::string(JsonText(frame.name))] = Bytes(JsonText(frame.value));
    }
    for (const auto& answer : (*JsonFind(**samples, "answers")).GetObject()) {
      server_.Set(std::string(JsonText(answer.name)), {200, ToJson(answer.value)});
    }
    RegistryOptions options;
    options.url = server_.url() + "/";
    options.timeout_ms = 10'000;
    auto registry = OpenSchemaRegistry(options);
    ASSERT_OK(registry);
    registry_ = std::move(*registry);
    format_.format = RecordFormat::kConfluent;
    format_.registry = registry_.get();
    schema_.category = "/category";
    schema_.tags = "/tags";
  }
  // Decoders keep what they fetched: one for the whole test.
  Status Decode(std::optional<std::string_view> key, std::optional<std::string_view> value, Event* event) {
    if (!decoder_) {
      auto decoder = MakeDecoder(role_, format_, schema_, limits_);
      if (!decoder.ok()) return decoder.status();
      decoder_ = std::move(*decoder);
    }
    RawRecord record;
    record.topic = "t";
    record.key = key;
    record.value = value;
    return decoder_->Decode(record, event);
  }
  ItemUpdate Item(std::optional<std::string_view> key, std::optional<std::string_view> value) {
    Event event;
    const Status status = Decode(key, value, &event);
    EXPECT_OK(status);
    const auto* item = std::get_if<ItemUpdate>(&event.body);
    return status.ok() && item != nullptr ? *item : ItemUpdate{};
  }
  std::string Poison(std::string_view value) {
    Event event;
    const Status status = Decode("k", value, &event);
    if (status.ok()) return "";
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.ToString();
    return status.message();
  }

  test::RegistryServer server_;
  std::map<std::string, std::string> frames_;
  std::unique_ptr<SchemaRegistry> registry_;
  TopicRole role_ = TopicRole::kItems;
  FormatOptions format_;
  SchemaMap schema_;
  DecodeLimits limits_;
  std::unique_ptr<EventDecoder> decoder_;
};

TEST_F(ConfluentTest, ReadsAvroOfEveryType) {
  schema_.extra_features = {{"size", "/size"}, {"weight", "/weight"}};
  schema_.extra_attributes = {{"available", "/offer/available"},
                              {"back", "/counts/back"},
                              {"changed", "/changed"},
                              {"kind", "/kind"},
                              {"mark", "/mark"},
                              {"previous", "/previous/price"},
                              {"price", "/offer/price"},
                              {"sku", "/sku"}};
  const ItemUpdate item = Item(frames_["avro_long_key"], frames_["avro"]);
  EXPECT_EQ(item.item_id, "42");
  EXPECT_EQ(item.features,
            (Features{{"category", "toys"}, {"size", 31.25}, {"tags", Texts{"soft", "brown"}}, {"weight", 0.5}}));
  EXPECT_EQ(item.attributes, (Attributes{{"available", true},
                                         {"back", std::int64_t{-1}},
                                         {"changed", std::int64_t{1522949460123456}},
                                         {"kind", "TOY"},
                                         {"mark", "ok"},
                                         {"previous", -12.25},
                                         {"price", 9.5},
                                         {"sku", std::int64_t{42}}}));
  const ItemUpdate bare = Item(frames_["avro_string_key"], frames_["avro_null"]);
  EXPECT_EQ(bare.item_id, "a/b");
  EXPECT_EQ(FindFeature(bare.features, "category"), nullptr);
  EXPECT_EQ(FindAttribute(bare.attributes, "previous"), nullptr);
}

TEST_F(ConfluentTest, ReadsJsonSchema) {
  schema_.extra_features = {{"price", "/price"}};
  const ItemUpdate item = Item("i1", frames_["json"]);
  EXPECT_EQ(item.item_id, "i1");
  EXPECT_EQ(item.features, (Features{{"category", "toys"}, {"price", 9.5}}));
}

TEST_F(ConfluentTest, ReadsProtobufByItsMessageIndex) {
  schema_.category = "/kind";
  schema_.extra_attributes = {{"available", "/offer/available"},
                              {"changed", "/changed"},
                              {"sold", "/counts/sold"},
                              {"x", "/x"},
                              {"price", "/price"}};
  const ItemUpdate item = Item("i1", frames_["protobuf"]);
  EXPECT_EQ(item.features, (Features{{"category", "TOY"}, {"tags", Texts{"soft", "brown"}}}));
  EXPECT_EQ(item.attributes,
            (Attributes{{"available", false}, {"changed", std::int64_t{1522949460123}}, {"sold", std::int64_t{7}}}));
  EXPECT_EQ(Item("i1", frames_["protobuf_first"]).attributes, (Attributes{{"x", "1"}})) << "the one-byte short cut";
  EXPECT_EQ(*FindAttribute(Item("i1", frames_["protobuf_nested"]).attributes, "price"), AttributeValue(9.5));
}

TEST_F(ConfluentTest, ReadsDebeziumInAvro) {
  format_.format = RecordFormat::kDebezium;
  schema_ = SchemaMap{};
  schema_.extra_attributes = {{"title", "/title"}};
  const ItemUpdate item = Item(frames_["avro_key"], frames_["debezium_create"]);
  EXPECT_EQ(item.item_id, "42");
  EXPECT_EQ(item.attributes, (Attributes{{"title", "Bear"}}));
  for (const std::optional<std::string_view> value :
       {std::optional<std::string_view>(frames_["debezium_delete"]), std::optional<std::string_view>()}) {
    const ItemUpdate deleted = Item(frames_["avro_key"], value);
    EXPECT_TRUE(deleted.deleted);
    EXPECT_EQ(deleted.item_id, "42");
  }
}

TEST_F(ConfluentTest, AFrameOnAJsonTopicIsRecognised) {
  format_.format = RecordFormat::kJson;
  EXPECT_EQ(Item("i1", frames_["avro"]).features[0].second, FeatureValue("toys"));
  EXPECT_EQ(Item("i1", R"({"category": "film"})").features[0].second, FeatureValue("film"));
}

TEST_F(ConfluentTest, ASchemaIsFetchedOnce) {
  for (int i = 0; i < 100; ++i) Item("i1", frames_["avro"]);
  EXPECT_EQ(server_.requests(), 1);
}

TEST_F(ConfluentTest, AnUnknownIdIsPoisonAndNotAskedForAgainAtOnce) {
  for (int i = 0; i < 100; ++i) EXPECT_NE(Poison(Bytes("00000003e7") + "{}").find("999"), std::string::npos);
  EXPECT_EQ(server_.requests(), 1);
}

TEST_F(ConfluentTest, ARegistryThatIsAwayIsTransientAndComesBack) {
  Event event;
  server_.SetDown(true);
  EXPECT_EQ(Decode("i1", frames_["json"], &event).category(), Category::kTransient);
  server_.SetDown(false);
  const std::string good = R"({"schemaType": "JSON", "schema": "{}"})";
  for (const auto& bad : {test::RegistryServer::Answer{503, ""}, test::RegistryServer::Answer{429, ""},
                          test::RegistryServer::Answer{200, "<html>"}, test::RegistryServer::Answer{200, "{}"}}) {
    server_.Set("/schemas/ids/6", bad);
    EXPECT_EQ(Decode("i1", frames_["json"], &event).category(), Category::kTransient) << bad.body;
  }
  server_.Set("/schemas/ids/6", {200, good});
  EXPECT_OK(Decode("i1", frames_["json"], &event));
}

// A gateway without a route answers 404 for every schema: only the registry's own word makes a record poison.
TEST_F(ConfluentTest, OnlyTheRegistrysOwnWordMakesAnIdUnknown) {
  Event event;
  for (const std::string& body :
       {std::string("<html>404 Not Found</html>"), std::string(), std::string("default backend - 404"),
        std::string(R"({"message": "no Route matched with those values"})"),
        std::string(R"({"error_code": 404, "message": "HTTP 404 Not Found"})"),
        std::string(R"({"error_code": "40403"})"),
        std::string(R"({"error_code": 40401, "message": "Subject not found"})"), std::string("[40403]"),
        std::string(std::size_t{5} << 20, 'x')}) {
    server_.Set("/schemas/ids/6", {404, body});
    const Status status = Decode("i1", frames_["json"], &event);
    EXPECT_EQ(status.code(), Code::kUnavailable) << body.substr(0, 80);
    EXPECT_NE(status.message().find("schema_registry.url"), std::string::npos) << status.message();
  }
  server_.Set("/schemas/ids/6", {404, R"({"error_code": 40403, "message": "Schema 6 not found"})"});
  EXPECT_NE(Poison(frames_["json"]).find("schema id 6"), std::string::npos);
}

TEST_F(ConfluentTest, AReferenceIsUnknownByItsSubjectOrItsVersion) {
  const std::string schema =
      R"({"schema": "\"string\"", "references": [{"name": "x.B", "subject": "b", "version": 3}]})";
  const auto answers = [&](std::uint32_t id, const std::string& body) {
    server_.Set("/schemas/ids/" + std::to_string(id), {200, schema});
    server_.Set("/subjects/b/versions/3", {404, body});
    return registry_->Fetch(id).status().code();
  };
  EXPECT_EQ(answers(60, R"({"error_code": 40401, "message": "Subject 'b' not found."})"), Code::kNotFound);
  EXPECT_EQ(answers(61, R"({"error_code": 40402, "message": "Version 3 not found."})"), Code::kNotFound);
  EXPECT_EQ(answers(62, R"({"error_code": 40403, "message": "Schema not found"})"), Code::kUnavailable);
  EXPECT_EQ(answers(63, "<html>"), Code::kUnavailable);
}

TEST_F(ConfluentTest, ARegistryThatRefusesUsEndsTheStream) {
  server_.Set("/schemas/ids/6", {401, ""});
  Event event;
  EXPECT_EQ(Decode("i1", frames_["json"], &event).code(), Code::kFailedPrecondition);
}

TEST_F(ConfluentTest, SendsBasicAuthenticationAndKeepsItOutOfErrors) {
  RegistryOptions options;
  options.url = server_.url();
  options.username = "me";
  options.password = "s3cret";
  auto registry = OpenSchemaRegistry(options);
  ASSERT_OK(registry);
  EXPECT_OK((*registry)->Fetch(6));
  EXPECT_NE(server_.last_request().find("Authorization: Basic bWU6czNjcmV0"), std::string::npos);
  const auto unknown = (*registry)->Fetch(999);
  EXPECT_EQ(unknown.status().code(), Code::kNotFound);
  EXPECT_EQ(unknown.status().message().find("s3cret"), std::string::npos);
}

TEST_F(ConfluentTest, FollowsReferences) {
  server_.Set(
      "/schemas/ids/50",
      {200,
       R"({"schema": "{\"type\": \"record\", \"name\": \"A\", \"fields\": [{\"name\": \"b\", \"type\": \"x.B\"}]}", "references": [{"name": "x.B", "subject": "b/value", "version": 3}]})"});
  server_.Set(
      "/subjects/b%2Fvalue/versions/3",
      {200,
       R"({"schema": "{\"type\": \"record\", \"name\": \"B\", \"namespace\": \"x\", \"fields\": [{\"name\": \"category\", \"type\": \"string\"}]}"})"});
  schema_.category = "/b/category";
  EXPECT_EQ(Item("i1", Bytes("0000000032") + "\x08toys").features, (Features{{"category", "toys"}}));
}

TEST_F(ConfluentTest, ASchemaThatCannotBeReadIsPoisonOnly) {
  server_.Set("/schemas/ids/51", {200, R"({"schema": "{\"type\": \"record\"}"})"});
  server_.Set("/schemas/ids/52", {200, R"({"schemaType": "PROTOBUF", "schema": "message {"})"});
  server_.Set("/schemas/ids/53", {200, R"({"schemaType": "THRIFT", "schema": ""})"});
  for (const char* frame : {"0000000033", "000000003400", "0000000035"}) EXPECT_NE(Poison(Bytes(frame)), "") << frame;
}

TEST_F(ConfluentTest, WithoutARegistryAFrameIsPoisonThatSaysWhatIsMissing) {
  format_.registry = nullptr;
  EXPECT_EQ(MakeDecoder(role_, format_, schema_, limits_).status().code(), Code::kConfig);
  format_.format = RecordFormat::kJson;
  EXPECT_NE(Poison(frames_["json"]).find("schema_registry.url"), std::string::npos);
}

TEST_F(ConfluentTest, WhatIsNoFrameIsPoison) {
  for (const char* frame : {"", "00", "00000000", "7b7d", "0000000001", "000000000700", "0000000007ffffffffff",
                            "00000000070201", "00000000070280", "0000000007010f"}) {
    if (std::string(frame) == "000000000700") {
      EXPECT_EQ(Poison(Bytes(frame)), "") << "an empty message of the first type is one";
    } else {
      EXPECT_NE(Poison(Bytes(frame)), "") << frame;
    }
  }
}

// Every truncation and every flipped bit is an event or poison, nothing else; so is a count of 2^62 items of no bytes.
TEST_F(ConfluentTest, SurvivesDamagedBytes) {
  for (const char* name : {"avro", "protobuf", "json"}) {
    const std::string good = frames_[name];
    for (std::size_t at = 5; at < good.size(); ++at) {
      Poison(std::string_view(good).substr(0, at));
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
        Poison(bad);
      }
    }
  }
  server_.Set("/schemas/ids/54", {200, R"({"schema": "{\"type\": \"array\", \"items\": \"null\"}"})"});
  EXPECT_NE(Poison(Bytes("0000000036feffffffffffffffff01")), "");
  server_.Set(
      "/schemas/ids/55",
      {200,
       R"({"schema": "{\"type\": \"record\", \"name\": \"R\", \"fields\": [{\"name\": \"r\", \"type\": [\"null\", \"R\"]}]}"})"});
  EXPECT_NE(Poison(Bytes("0000000037") + std::string(1000, '\x02') + '\0'), "");
}

TEST(RegistryOptionsTest, RefusesWhatCannotWork) {
  RegistryOptions options;
  EXPECT_EQ(options.Validate().code(), Code::kConfig);
  options.url = "ftp://x";
  EXPECT_EQ(options.Validate().code(), Code::kConfig);
  options.url = "https://me:secret@host";
  EXPECT_EQ(options.Validate().code(), Code::kConfig);
  EXPECT_EQ(options.Validate().message().find("secret"), std::string::npos);
  options.url = "https://host/path";
  EXPECT_OK(options.Validate());
  options.timeout_ms = 0;
  EXPECT_EQ(options.Validate().code(), Code::kConfig);
}

}  // namespace
}  // namespace freshet
