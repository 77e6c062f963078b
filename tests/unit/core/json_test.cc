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
  EXPECT_OK(ParseJson(nested(kJsonDepthBound), 1'000'000));
  EXPECT_FALSE(ParseJson(nested(kJsonDepthBound + 1), 1'000'000).ok()) << "whatever a caller allows";
}

// A zero byte ends what RapidJSON reads; it may not end what is checked.
TEST(JsonTest, AZeroByteIsNoEnd) {
  for (const std::string& text : {std::string("1\0", 2), std::string("{}\0 garbage", 11), std::string("[1,\0", 4),
                                  std::string("\"a\0b\"", 5), std::string("\0", 1)}) {
    EXPECT_FALSE(ParseJson(text).ok()) << JsonQuote(text);
  }
  EXPECT_EQ(JsonText(**ParseJson(R"("a\u0000b")")), std::string_view("a\0b", 3));
}

// Texts are scanned sixteen bytes at a time: what ends or breaks them, at each place of two such steps.
TEST(JsonTest, EveryPlaceInATextIsLookedAt) {
  JsonArena arena;
  for (std::size_t size = 0; size < 40; ++size) {
    for (std::size_t at = 0; at <= size; ++at) {
      std::string text(size, 'x');
      const auto quoted = [&](std::string_view special) {
        std::string inner = text;
        return "[\"" + inner.insert(at, special) + "\", 1]";
      };
      const auto read = [&](std::string_view special) { return arena.Parse(quoted(special)); };
      const auto expect = [&](std::string_view written, std::string_view meant) {
        const auto document = read(written);
        ASSERT_OK(document);
        std::string wanted = text;
        EXPECT_EQ(JsonText((**document)[0]), wanted.insert(at, meant)) << size << " " << at;
        EXPECT_EQ((**document)[1].GetInt(), 1);
      };
      expect("", "");
      expect(R"(\")", "\"");
      expect(R"(\\)", "\\");
      expect(R"(\u20ac)", "\xe2\x82\xac");
      expect("\xe2\x82\xac", "\xe2\x82\xac");
      expect("\x7f", "\x7f");
      for (const char* bad : {"\x1f", "\n", "\xff", "\xe2\x82", "\"", "\\x"})
        EXPECT_FALSE(read(bad).ok()) << size << " " << at;
    }
  }
}

TEST(JsonTest, AnArenaIsUsedAgain) {
  JsonArena arena;
  for (int i = 0; i < 100; ++i) {
    const std::string text =
        "{\"n\": " + std::to_string(i) + ", \"s\": \"" + std::string(static_cast<std::size_t>(i) * 1'000, 'x') + "\"}";
    const auto document = arena.Parse(text);
    ASSERT_OK(document);
    EXPECT_EQ(JsonFind(**document, "n")->GetInt(), i);
    EXPECT_EQ(JsonText(*JsonFind(**document, "s")).size(), static_cast<std::size_t>(i) * 1'000);
    EXPECT_FALSE(arena.Parse("{").ok());
  }
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

TEST(JsonTest, EveryControlCharacterIsEscapedAtEveryPlace) {
  for (std::size_t at = 0; at < 40; ++at) {
    for (char c = 0; c < 0x20; ++c) {
      std::string text(40, 'x');
      text[at] = c;
      JsonWriter json;
      json.BeginObject().Key(text).String(text).EndObject();
      const std::string written = json.Take();
      for (const char byte : written) ASSERT_GE(static_cast<unsigned char>(byte), 0x20) << at << " " << int{c};
      const auto back = ParseJson(written);
      ASSERT_OK(back);
      EXPECT_EQ(JsonText(*JsonFind(**back, text)), text);
      EXPECT_EQ(ToJson(**back), written);
    }
  }
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
