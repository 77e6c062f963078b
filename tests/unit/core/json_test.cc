#include "freshet/core/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(JsonTest, ReadsWhatRfc8259Allows) {
  const auto document = ParseJson(R"( {"a": [1, -2.5e3, true, null, "\u00fc\ud83d\ude00"], "b": 9007199254740993} )");
  ASSERT_OK(document);
  const JsonValue* a = JsonFind(**document, "a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ((*a)[1].GetDouble(), -2500.0);
  EXPECT_EQ(JsonText((*a)[4]), "\xc3\xbc\xf0\x9f\x98\x80");
  EXPECT_EQ(JsonFind(**document, "b")->GetInt64(), 9007199254740993);
  EXPECT_EQ(JsonFind(**document, "c"), nullptr);
  EXPECT_EQ(JsonFind(*a, "a"), nullptr) << "no object";
}

TEST(JsonTest, RefusesWhatItDoesNot) {
  for (const char* bad : {"",
                          " ",
                          "{",
                          "[1,]",
                          "{\"a\":1,}",
                          "{'a':1}",
                          "{a:1}",
                          "NaN",
                          "Infinity",
                          "01",
                          "1.",
                          "+1",
                          "// x\n1",
                          "1 2",
                          "\"\x01\"",
                          "\"\xff\"",
                          "\"\xed\xa0\x80\"",
                          "\"\\ud800\"",
                          "1e999",
                          "tru"}) {
    const auto document = ParseJson(bad);
    ASSERT_FALSE(document.ok()) << bad;
    EXPECT_EQ(document.status().code(), Code::kInvalidArgument);
  }
}

TEST(JsonTest, DepthIsBounded) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']');
  };
  EXPECT_OK(ParseJson(nested(8), 8));
  EXPECT_FALSE(ParseJson(nested(9), 8).ok());
  EXPECT_FALSE(ParseJson(nested(1'000'000)).ok()) << "hostile nesting must not overflow the stack";
}

TEST(JsonTest, WritesEscapedTextAndNoNonFiniteNumbers) {
  JsonWriter json;
  json.BeginObject().Key("t").String("a\"\\\n\x01").Key("n").Double(std::numeric_limits<double>::quiet_NaN());
  json.Key("i").Int(-1).Key("u").Uint(std::numeric_limits<std::uint64_t>::max()).Key("b").Bool(true).Key("z").Null();
  json.Key("r").Raw("[1]").Key("l").BeginArray().EndArray().EndObject();
  const std::string text = json.Take();
  EXPECT_EQ(text, R"({"t":"a\"\\\n\u0001","n":null,"i":-1,"u":18446744073709551615,"b":true,"z":null,"r":[1],"l":[]})");
  const auto back = ParseJson(text);
  ASSERT_OK(back);
  EXPECT_EQ(ToJson(**back), text);
  EXPECT_EQ(JsonQuote("x\"y"), R"("x\"y")");
}

TEST(Json, NumbersAreReadExactly) {
  const auto number = [](const char* text) {
    const auto json = ParseJson(std::string("[") + text + "]");
    return json.ok() ? (**json)[0].GetDouble() : std::numeric_limits<double>::quiet_NaN();
  };
  EXPECT_EQ(number("0e44"), 0);
  EXPECT_EQ(number("-0.0E5"), 0);
  EXPECT_EQ(number("1e-999"), 0);
  EXPECT_EQ(number("1.25e2"), 125);
  EXPECT_EQ(number("0.1"), 0.1);
  EXPECT_EQ(number("123456789012345678901234567890"), 1.2345678901234568e29);
  EXPECT_FALSE(ParseJson("1e999").ok());
  const auto big = ParseJson("[18446744073709551615, -9223372036854775808, 7, -7]");
  ASSERT_TRUE(big.ok());
  EXPECT_EQ((**big)[0].GetUint64(), 18446744073709551615U);
  EXPECT_EQ((**big)[1].GetInt64(), std::numeric_limits<std::int64_t>::min());
  EXPECT_TRUE((**big)[2].IsInt() && (**big)[2].IsUint());
  EXPECT_TRUE((**big)[3].IsInt() && !(**big)[3].IsUint());
}

}  // namespace
}  // namespace freshet
