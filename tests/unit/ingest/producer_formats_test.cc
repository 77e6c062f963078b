// Records as Debezium and CloudEvents producers send them: the samples in data/ are those of their documentation.
#include <gtest/gtest.h>

#include "freshet/core/file.h"
#include "freshet/ingest/decoder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Headers = std::vector<std::pair<std::string_view, std::string_view>>;

const Headers kStructured = {{"content-type", "application/cloudevents+json; charset=UTF-8"}};
const Headers kBinary = {{"ce_specversion", "1.0"},           {"ce_type", "com.example.someevent"},
                         {"ce_source", "/mycontext"},         {"ce_id", "C234-1234-1234"},
                         {"ce_time", "2018-04-05T17:31:00Z"}, {"content-type", "application/json"}};
constexpr std::int64_t kCloudEventTimeMs = 1522949460000;

std::string Sample(const std::string& name) {
  const auto text = ReadFile(test::SourceRoot() + "/tests/unit/ingest/data/" + name, std::size_t{1} << 20);
  EXPECT_OK(text);
  return text.ok() ? *text : "";
}

class ProducerFormatsTest : public ::testing::Test {
 protected:
  Result<Event> Decode(std::optional<std::string_view> key, std::optional<std::string_view> value,
                       const Headers& headers = {}) {
    FRESHET_ASSIGN(const auto decoder, MakeDecoder(role_, format_, schema_ ? *schema_ : DefaultSchema(role_), {}));
    RawRecord record;
    record.topic = "t";
    record.timestamp_ms = 1234;
    record.key = key;
    record.value = value;
    record.headers = headers;
    Event event;
    if (Status status = decoder->Decode(record, &event); !status.ok()) return status;
    return event;
  }
  ItemUpdate Item(std::optional<std::string_view> key, std::optional<std::string_view> value,
                  const Headers& headers = {}) {
    const auto event = Decode(key, value, headers);
    EXPECT_OK(event);
    const auto* item = event.ok() ? std::get_if<ItemUpdate>(&event->body) : nullptr;
    EXPECT_NE(item, nullptr) << "no item";
    return item == nullptr ? ItemUpdate{} : *item;
  }
  // Why the record is poison; "" when it is none.
  std::string Poison(std::optional<std::string_view> key, std::optional<std::string_view> value,
                     const Headers& headers = {}) {
    const auto event = Decode(key, value, headers);
    if (event.ok()) return "";
    EXPECT_EQ(event.status().code(), Code::kInvalidArgument);
    return event.status().message();
  }
  void Expect(const std::string& reason, const std::string& part) {
    EXPECT_NE(reason.find(part), std::string::npos) << "`" << reason << "` does not say `" << part << "`";
  }
  // A customer as an item.
  static SchemaMap Customers() {
    SchemaMap schema;
    schema.category = "/last_name";
    schema.extra_attributes = {{"email", "/email"}, {"name", "/first_name"}};
    return schema;
  }

  TopicRole role_ = TopicRole::kItems;
  FormatOptions format_;
  std::optional<SchemaMap> schema_;
};

class DebeziumTest : public ProducerFormatsTest {
 protected:
  DebeziumTest() {
    format_.format = RecordFormat::kDebezium;
    schema_ = Customers();
  }
  bool Skips(std::optional<std::string_view> key, std::string_view value) {
    const auto event = Decode(key, value);
    EXPECT_OK(event);
    return event.ok() && std::holds_alternative<Skipped>(event->body);
  }
};

TEST_F(DebeziumTest, CreatesWithTheSchemaWrapper) {
  const ItemUpdate item = Item(Sample("debezium_key.json"), Sample("debezium_create.json"));
  EXPECT_EQ(item.item_id, "1");
  EXPECT_FALSE(item.deleted);
  EXPECT_EQ(item.features, (Features{{"category", "Kretchmar"}}));
  EXPECT_EQ(item.attributes, (Attributes{{"email", "annek@noanswer.org"}, {"name", "Anne"}}));
}

TEST_F(DebeziumTest, UpdatesWithoutTheWrapper) {
  const ItemUpdate item = Item(R"({"id": 42})", Sample("debezium_update.json"));
  EXPECT_EQ(item.item_id, "42");
  EXPECT_EQ(item.attributes, (Attributes{{"email", "annek@noanswer.org"}, {"name", "Anne Marie"}}));
}

TEST_F(DebeziumTest, ReadsSnapshots) {
  EXPECT_EQ(Item(R"({"id": 7})", R"({"before": null, "after": {"first_name": "A"}, "source": {}, "op": "r"})").item_id,
            "7");
}

TEST_F(DebeziumTest, ADeleteAndItsTombstoneNameTheSameItem) {
  for (const std::string& key : {Sample("debezium_key.json"), std::string(R"({"id": 1})")}) {
    const ItemUpdate deleted = Item(key, Sample("debezium_delete.json"));
    EXPECT_TRUE(deleted.deleted);
    EXPECT_EQ(deleted.item_id, "1");
    for (const std::optional<std::string_view> tombstone :
         {std::optional<std::string_view>(), std::optional<std::string_view>(R"({"schema": null, "payload": null})")}) {
      const ItemUpdate again = Item(key, tombstone);
      EXPECT_TRUE(again.deleted);
      EXPECT_EQ(again.item_id, "1");
    }
  }
}

TEST_F(DebeziumTest, PassesOverTransactionBoundariesAndMessages) {
  EXPECT_TRUE(Skips(R"({"id": "571:53195829"})", Sample("debezium_transaction_begin.json")));
  EXPECT_TRUE(Skips(R"({"id": "571:53195832"})", Sample("debezium_transaction_end.json")));
  EXPECT_TRUE(Skips(R"({"prefix": "p"})", R"({"op": "m", "ts_ms": 1, "source": {}, "message": {"prefix": "p"}})"));
}

TEST_F(DebeziumTest, ATruncateIsPoisonBecauseItNamesNoRows) {
  Expect(Poison(std::nullopt, Sample("debezium_truncate.json")), "truncate");
}

TEST_F(DebeziumTest, WhatIsNoChangeEventIsPoison) {
  const std::string key = R"({"id": 1})";
  Expect(Poison(key, R"({"category": "film"})"), "/op is missing");
  Expect(Poison(key, R"({"status": "OPEN", "id": "x"})"), "/op is missing");
  Expect(Poison(key, R"({"op": "c", "after": null})"), "/after");
  Expect(Poison(key, R"({"op": "u"})"), "/after");
  Expect(Poison(key, R"({"op": "x", "after": {}})"), "/op");
  Expect(Poison(key, R"({"op": 1, "after": {}})"), "/op");
  Expect(Poison(key, R"({"schema": {}, "payload": 3})"), "change event");
  Expect(Poison(key, ""), "empty");
  Expect(Poison(std::nullopt, Sample("debezium_delete.json")), "key is null");
  Expect(Poison("", Sample("debezium_delete.json")), "key");
}

TEST_F(DebeziumTest, KeysAreScalarsOrObjectsThatHoldTheId) {
  const std::string value = Sample("debezium_update.json");
  for (const char* key : {R"("a/b")", R"({"sku": "a/b"})", R"({"schema": {}, "payload": "a/b"})"}) {
    EXPECT_EQ(Item(key, value).item_id, "a/b") << key;
  }
  EXPECT_EQ(Item("18446744073709551615", value).item_id, "18446744073709551615");
  for (const char* key :
       {"{}", R"({"a": 1, "b": 2})", R"({"a": null})", R"({"a": {}})", "1.5", "null", "text", "[1]"}) {
    Expect(Poison(key, value), "key");
  }
}

TEST_F(DebeziumTest, TheSchemaSaysWhichMemberOfACompositeKeyIsTheId) {
  schema_->item_id = "/id";
  EXPECT_EQ(Item(R"({"shop": 3, "id": 9})", Sample("debezium_update.json")).item_id, "1") << "the row's own";
  const ItemUpdate deleted = Item(R"({"shop": 3, "id": 9})", Sample("debezium_delete.json"));
  EXPECT_TRUE(deleted.deleted);
  EXPECT_EQ(deleted.item_id, "9");
  EXPECT_EQ(Item(R"({"shop": 3, "id": 9})", std::nullopt).item_id, "9");
  Expect(Poison(R"({"shop": 3})", std::nullopt), "/id");
}

TEST_F(DebeziumTest, ARowOfInteractionsIsAnInteractionAtTheTimeOfItsChange) {
  role_ = TopicRole::kInteractions;
  schema_.reset();
  const std::string row = R"({"op": "c", "before": null, "after": {"id": 5, "user_id": 7, "item_id": 42},
                              "source": {"ts_ms": 1559033904863}, "ts_ms": 1559033904999})";
  const auto event = Decode(R"({"id": 5})", row);
  ASSERT_OK(event);
  const auto& interaction = std::get<Interaction>(event->body);
  EXPECT_EQ(interaction.user_id, "7");
  EXPECT_EQ(interaction.item_id, "42");
  EXPECT_EQ(interaction.timestamp_ms, 1559033904863);
  // The key is the row's: it may not pass for a user's.
  Expect(Poison(R"({"id": 5})", R"({"op": "c", "after": {"item_id": 42}})"), "/user_id");
  // Old rows are cleaned up; that changes no history.
  EXPECT_TRUE(Skips(R"({"id": 5})", R"({"op": "d", "before": {"id": 5}, "after": null})"));
}

TEST_F(DebeziumTest, AUsersRowThatGoesForgetsTheUser) {
  role_ = TopicRole::kUsers;
  const auto event = Decode(R"({"id": 1})", Sample("debezium_delete.json"));
  ASSERT_OK(event);
  EXPECT_TRUE(std::get<UserUpdate>(event->body).forgotten);
  EXPECT_EQ(std::get<UserUpdate>(event->body).user_id, "1");
}

// Every truncation and every flipped bit of a change event is an event or poison, nothing else.
TEST_F(DebeziumTest, SurvivesDamagedBytes) {
  const std::string key = R"({"schema": {"type": "struct"}, "payload": {"id": 42}})";
  const std::string good = R"({"before":{"id":1},"after":{"id":1,"last_name":"K"},"source":{"ts_ms":15},"op":"u"})";
  for (std::size_t at = 0; at < good.size(); ++at) {
    EXPECT_NE(Poison(key, std::string_view(good).substr(0, at)), "");
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      Poison(key, bad);
    }
  }
  for (std::size_t at = 0; at < key.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = key;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      Poison(bad, good);
    }
  }
}

class CloudEventsTest : public ProducerFormatsTest {
 protected:
  CloudEventsTest() {
    SchemaMap schema;
    schema.category = "/appinfoA";
    schema.extra_attributes = {{"b", "/appinfoB"}, {"c", "/appinfoC"}};
    schema_ = schema;
  }
  void ExpectTheSample(const ItemUpdate& item) {
    EXPECT_EQ(item.item_id, "mykey");
    EXPECT_EQ(item.features, (Features{{"category", "abc"}}));
    EXPECT_EQ(item.attributes, (Attributes{{"b", std::int64_t{123}}, {"c", true}}));
  }
};

TEST_F(CloudEventsTest, ReadsStructuredAndBinaryWhateverIsConfigured) {
  for (const RecordFormat format : {RecordFormat::kJson, RecordFormat::kCloudEvents}) {
    format_.format = format;
    ExpectTheSample(Item("mykey", Sample("cloudevents_json.json"), kStructured));
    ExpectTheSample(Item("mykey", Sample("cloudevents_binary_data.json"), kBinary));
  }
}

TEST_F(CloudEventsTest, AConfiguredTopicNeedsNoContentType) {
  format_.format = RecordFormat::kCloudEvents;
  ExpectTheSample(Item("mykey", Sample("cloudevents_json.json")));
  Expect(Poison("mykey", R"({"appinfoA": "abc"})"), "/specversion");
}

TEST_F(CloudEventsTest, HeadersOfAnEventAreRecognisedInAnyCase) {
  ExpectTheSample(Item("mykey", Sample("cloudevents_json.json"), {{"Content-Type", "APPLICATION/CloudEvents+JSON"}}));
}

TEST_F(CloudEventsTest, AJsonTopicWithOtherHeadersIsPlainJson) {
  ExpectTheSample(Item("mykey", Sample("cloudevents_binary_data.json"),
                       {{"ce_id", "1"}, {"traceparent", "00-x"}, {"content-type", "text/plain"}}));
}

TEST_F(CloudEventsTest, BinaryWithoutDataDeletesAndStructuredWithoutDataDoesNot) {
  const ItemUpdate deleted = Item("mykey", std::nullopt, kBinary);
  EXPECT_TRUE(deleted.deleted);
  EXPECT_EQ(deleted.item_id, "mykey");
  const std::string start = R"({"specversion": "1.0", "type": "t", "source": "/s", "id": "1")";
  Expect(Poison("mykey", start + "}", kStructured), "no data");
  Expect(Poison("mykey", start + R"(, "data": null})", kStructured), "no data");
}

TEST_F(CloudEventsTest, DataThatIsNoJsonObjectIsPoison) {
  Expect(Poison("mykey", Sample("cloudevents_xml.json"), kStructured), "/datacontenttype");
  Expect(Poison("mykey", Sample("cloudevents_text.json"), kStructured), "no JSON object");
  Headers avro = kBinary;
  avro.back().second = "application/avro";
  Expect(Poison("mykey", Sample("cloudevents_binary_data.json"), avro), "content type");
  Expect(Poison("mykey", Sample("cloudevents_json.json"), {{"content-type", "application/cloudevents+avro"}}),
         "content type");
  Expect(Poison("mykey", Sample("cloudevents_json.json"), {{"content-type", "application/cloudevents-batch+json"}}),
         "content type");
}

TEST_F(CloudEventsTest, ReadsBase64OfJson) {
  const std::string start = R"({"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "data_base64": )";
  // {"appinfoA":"abc","appinfoB":123,"appinfoC":true}
  ExpectTheSample(
      Item("mykey", start + R"("eyJhcHBpbmZvQSI6ImFiYyIsImFwcGluZm9CIjoxMjMsImFwcGluZm9DIjp0cnVlfQ=="})", kStructured));
  for (const char* bad : {R"("eyJ"})", R"("e===")", R"("!!!!"})", "3}", R"("AAAA"})"}) {
    EXPECT_NE(Poison("mykey", start + bad, kStructured), "") << bad;
  }
}

TEST_F(CloudEventsTest, AnotherVersionOrABrokenAttributeIsPoison) {
  Headers old = kBinary;
  old[0].second = "0.3";
  Expect(Poison("mykey", "{}", old), "specversion");
  Headers late = kBinary;
  late[4].second = "yesterday";
  Expect(Poison("mykey", "{}", late), "time");
  Expect(Poison("mykey", R"({"specversion": "1.0", "type": "t", "source": 1, "id": "1", "data": {}})", kStructured),
         "/source");
  Expect(Poison("mykey", R"({"specversion": "1.0", "type": "t", "source": "s", "id": "1", "time": 5, "data": {}})",
                kStructured),
         "/time");
}

TEST_F(CloudEventsTest, AnInteractionHappensAtTheEventsTime) {
  role_ = TopicRole::kInteractions;
  schema_.reset();
  auto event = Decode("u", R"({"item_id": "i"})", kBinary);
  ASSERT_OK(event);
  EXPECT_EQ(std::get<Interaction>(event->body).timestamp_ms, kCloudEventTimeMs);
  EXPECT_EQ(std::get<Interaction>(event->body).user_id, "u");
  event = Decode("u", R"({"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "time": "2018-04-05T17:31:00Z",
                          "data": {"item_id": "i"}})",
                 kStructured);
  ASSERT_OK(event);
  EXPECT_EQ(std::get<Interaction>(event->body).timestamp_ms, kCloudEventTimeMs);
  event = Decode("u", R"({"item_id": "i", "timestamp": 99})", kBinary);
  ASSERT_OK(event);
  EXPECT_EQ(std::get<Interaction>(event->body).timestamp_ms, 99) << "the data's own time is the nearer one";
}

// Whatever reads them: they are kept with the record for as long as it may become a dead letter.
TEST_F(ProducerFormatsTest, MoreHeadersThanTheLimitArePoison) {
  const DecodeLimits limits;
  Headers headers(limits.max_headers, {"n", "v"});
  EXPECT_EQ(Poison("i1", "{}", headers), "");
  headers.emplace_back("n", "v");
  Expect(Poison("i1", "{}", headers), "129 headers; the limit is 128");
  Expect(Poison("i1", std::nullopt, headers), "129 headers");
  const std::string value(limits.max_header_bytes - 4, 'v');
  EXPECT_EQ(Poison("i1", "{}", {{"name", value}}), "");
  Expect(Poison("i1", "{}", {{"names", value}}), "65537 bytes; the limit is 65536");
  Expect(Poison("i1", "{}", {{"name", value}, {"", "x"}}), "headers have 65537 bytes");
}

}  // namespace
}  // namespace freshet
