// Declared types and times: checked once, a mismatch names the pointer.
#include <gtest/gtest.h>

#include "freshet/core/strings.h"
#include "freshet/ingest/decoder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

Result<Event> Decode(TopicRole role, const SchemaMap& schema, std::string_view value) {
  FRESHET_ASSIGN(const auto decoder, MakeDecoder(role, {}, schema, {}));
  RawRecord record;
  record.topic = "t";
  record.timestamp_ms = 1234;
  record.key = "k";
  record.value = value;
  Event event;
  if (Status status = decoder->Decode(record, &event); !status.ok()) return status;
  return event;
}

// The event time in ms; -1 for poison, which must name the pointer.
std::int64_t TimeOf(TimestampFormat format, const std::string& json) {
  SchemaMap schema = DefaultSchema(TopicRole::kInteractions);
  schema.timestamp = "/at/time";
  schema.timestamp_format = format;
  const auto event = Decode(TopicRole::kInteractions, schema, R"({"item_id": "i", "at": {"time": )" + json + "}}");
  if (event.ok()) return std::get<Interaction>(event->body).timestamp_ms;
  EXPECT_EQ(event.status().code(), Code::kInvalidArgument);
  EXPECT_NE(event.status().message().find("/at/time"), std::string::npos) << event.status().message();
  return -1;
}

TEST(TimestampTest, ReadsEachUnit) {
  EXPECT_EQ(TimeOf(TimestampFormat::kMilliseconds, "1522949460123"), 1522949460123);
  EXPECT_EQ(TimeOf(TimestampFormat::kSeconds, "1522949460"), 1522949460000);
  EXPECT_EQ(TimeOf(TimestampFormat::kSeconds, "1522949460.25"), 1522949460250);
  EXPECT_EQ(TimeOf(TimestampFormat::kMicroseconds, "1522949460123999"), 1522949460123);
  EXPECT_EQ(TimeOf(TimestampFormat::kRfc3339, "\"2018-04-05T17:31:00Z\""), 1522949460000);
  EXPECT_EQ(TimeOf(TimestampFormat::kMilliseconds, "0"), 0);
}

TEST(TimestampTest, ATimeInAnotherUnitThanDeclaredIsPoison) {
  EXPECT_EQ(TimeOf(TimestampFormat::kSeconds, "1522949460123"), -1);
  EXPECT_EQ(TimeOf(TimestampFormat::kMilliseconds, "1522949460123999"), -1);
  EXPECT_EQ(TimeOf(TimestampFormat::kMicroseconds, "1.5"), -1);
  EXPECT_EQ(TimeOf(TimestampFormat::kMilliseconds, "\"2018-04-05T17:31:00Z\""), -1);
  EXPECT_EQ(TimeOf(TimestampFormat::kRfc3339, "1522949460"), -1);
  for (const TimestampFormat format :
       {TimestampFormat::kSeconds, TimestampFormat::kMilliseconds, TimestampFormat::kMicroseconds}) {
    EXPECT_EQ(TimeOf(format, "-1"), -1);
    EXPECT_EQ(TimeOf(format, "1e300"), -1);
    EXPECT_EQ(TimeOf(format, "9223372036854775807"), -1);
    EXPECT_EQ(TimeOf(format, "true"), -1);
  }
}

TEST(TimestampTest, ReadsWhatRfc3339Allows) {
  const std::pair<const char*, std::int64_t> cases[] = {{"2018-04-05T17:31:00.5Z", 1522949460500},
                                                        {"2018-04-05t17:31:00z", 1522949460000},
                                                        {"2018-04-05 17:31:00Z", 1522949460000},
                                                        {"2018-04-05T19:31:00+02:00", 1522949460000},
                                                        {"2018-04-05T12:01:00-05:30", 1522949460000},
                                                        {"2018-04-05T17:31:00.123456789Z", 1522949460123},
                                                        {"1970-01-01T00:00:00Z", 0},
                                                        {"2020-02-29T00:00:00Z", 1582934400000},
                                                        {"2016-12-31T23:59:60Z", 1483228800000},
                                                        {"9999-12-31T23:59:59.999Z", 253402300799999},
                                                        {"1970-01-01T00:30:00+00:30", 0}};
  for (const auto& [text, time_ms] : cases) {
    EXPECT_EQ(TimeOf(TimestampFormat::kRfc3339, "\"" + std::string(text) + "\""), time_ms) << text;
  }
}

TEST(TimestampTest, RefusesWhatRfc3339DoesNotAllow) {
  for (const char* text : {"",
                           "2018",
                           "2018-04-05",
                           "2018-04-05T17:31",
                           "2018-04-05T17:31:00",
                           "2018-13-05T17:31:00Z",
                           "2019-02-29T00:00:00Z",
                           "2018-04-31T00:00:00Z",
                           "2018-04-05T24:00:00Z",
                           "2018-04-05T17:60:00Z",
                           "2018-04-05T17:31:61Z",
                           "2018-04-05T17:31:00.Z",
                           "2018-04-05T17:31:00+2:00",
                           "2018-04-05T17:31:00+24:00",
                           "2018-04-05T17:31:00Zx",
                           "18-04-05T17:31:00Z",
                           "2018-04-05T17:31:00+0200",
                           "1969-12-31T23:59:59Z",
                           "0000-00-00T00:00:00Z",
                           " 2018-04-05T17:31:00Z"}) {
    EXPECT_EQ(TimeOf(TimestampFormat::kRfc3339, "\"" + std::string(text) + "\""), -1) << text;
  }
}

TEST(AttributeTypesTest, HoldWhereverAnAttributeComesFrom) {
  SchemaMap schema = DefaultSchema(TopicRole::kItems);
  schema.extra_attributes["price"] = "/offer/price";
  schema.attribute_types = {{"in_stock", AttributeType::kBool},
                            {"year", AttributeType::kInt},
                            {"price", AttributeType::kDouble},
                            {"title", AttributeType::kText},
                            {"by", AttributeType::kTexts}};
  const auto event = Decode(TopicRole::kItems, schema, R"({"offer": {"price": 3}, "attributes":
      {"in_stock": true, "year": 1995, "title": "T", "by": ["x"], "other": 1.5, "gone": null}})");
  ASSERT_OK(event);
  // A whole number is a double where doubles are declared: one type an attribute, whatever the writer left out.
  EXPECT_EQ(std::get<ItemUpdate>(event->body).attributes, (Attributes{{"by", std::vector<std::string>{"x"}},
                                                                      {"in_stock", true},
                                                                      {"other", 1.5},
                                                                      {"price", 3.0},
                                                                      {"title", "T"},
                                                                      {"year", std::int64_t{1995}}}));
  const std::pair<const char*, const char*> mismatches[] = {
      {R"({"attributes": {"in_stock": 1}})", "/attributes/in_stock is not a boolean"},
      {R"({"attributes": {"year": 1995.5}})", "/attributes/year is not a whole number"},
      {R"({"attributes": {"year": "1995"}})", "/attributes/year is not a whole number"},
      {R"({"attributes": {"year": 18446744073709551615}})", "/attributes/year is not a whole number"},
      {R"({"attributes": {"title": 5}})", "/attributes/title is not a text"},
      {R"({"attributes": {"by": "x"}})", "/attributes/by is not a list of texts"},
      {R"({"offer": {"price": "3"}})", "/offer/price is not a finite number"}};
  for (const auto& [value, reason] : mismatches) {
    const auto poison = Decode(TopicRole::kItems, schema, value);
    ASSERT_FALSE(poison.ok()) << value;
    EXPECT_EQ(poison.status().code(), Code::kInvalidArgument);
    EXPECT_NE(poison.status().message().find(reason), std::string::npos) << poison.status().message();
  }
}

TEST(AttributeTypesTest, ListsAreOfWhatTheirEntriesAre) {
  const SchemaMap schema = DefaultSchema(TopicRole::kItems);
  const auto event = Decode(TopicRole::kItems, schema, R"({"attributes": {"bools": [true, null, false], "empty": [],
      "ints": [3, 9007199254740993], "numbers": [3, 2.5], "texts": ["2024-05-01T12:00:00Z", null]}})");
  ASSERT_OK(event);
  EXPECT_EQ(std::get<ItemUpdate>(event->body).attributes,
            (Attributes{{"bools", std::vector<bool>{true, false}},
                        {"empty", std::vector<std::string>{}},
                        {"ints", std::vector<std::int64_t>{3, 9'007'199'254'740'993}},
                        {"numbers", std::vector<double>{3, 2.5}},
                        {"texts", std::vector<std::string>{"2024-05-01T12:00:00Z"}}}));
  const std::pair<const char*, const char*> mixed[] = {
      {R"([1, "a"])", "is not a list of"}, {R"(["a", 1])", "is not a list of"}, {"[true, 1]", "a list of booleans"},
      {"[1, true]", "a list of booleans"}, {"[[1]]", "a list of texts"},        {"[{}]", "a list of texts"}};
  for (const auto& [list, reason] : mixed) {
    const auto poison = Decode(TopicRole::kItems, schema, StrCat(R"({"attributes": {"x": )", list, "}}"));
    ASSERT_FALSE(poison.ok()) << list;
    EXPECT_NE(poison.status().message().find(reason), std::string::npos) << poison.status().message();
  }
}

TEST(AttributeTypesTest, ListsAreHeldAgainstTheirDeclaredType) {
  SchemaMap schema = DefaultSchema(TopicRole::kItems);
  schema.attribute_types = {
      {"flags", AttributeType::kBools}, {"sizes", AttributeType::kInts}, {"prices", AttributeType::kDoubles}};
  const auto event =
      Decode(TopicRole::kItems, schema, R"({"attributes": {"flags": [], "sizes": [42], "prices": [3, 4]}})");
  ASSERT_OK(event);
  EXPECT_EQ(std::get<ItemUpdate>(event->body).attributes, (Attributes{{"flags", std::vector<bool>{}},
                                                                      {"prices", std::vector<double>{3, 4}},
                                                                      {"sizes", std::vector<std::int64_t>{42}}}));
  for (const char* wrong : {R"({"flags": [1]})", R"({"sizes": [1.5]})", R"({"sizes": 1})", R"({"prices": ["3"]})"}) {
    EXPECT_FALSE(Decode(TopicRole::kItems, schema, StrCat(R"({"attributes": )", wrong, "}")).ok()) << wrong;
  }
}

}  // namespace
}  // namespace freshet
