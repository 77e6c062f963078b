#include "freshet/core/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

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

// The arena reads most texts another way than ParseJson: what comes out may not tell which.
void ExpectReadAlike(JsonArena* arena, std::string_view text, int max_depth = 8) {
  const auto careful = ParseJson(text, max_depth);
  const auto fast = arena->Parse(text, max_depth);
  ASSERT_EQ(careful.status().ToString(), fast.status().ToString()) << text;
  if (!careful.ok()) return;
  EXPECT_EQ(ToJson(**careful), ToJson(**fast)) << text;
  const JsonValue& a = **careful;
  const JsonValue& b = **fast;
  EXPECT_EQ(a.IsInt64(), b.IsInt64()) << text;
  EXPECT_EQ(a.IsUint64(), b.IsUint64()) << text;
  EXPECT_EQ(a.IsDouble(), b.IsDouble()) << text;
}

TEST(JsonTest, AnArenaReadsWhatParseJsonReads) {
  JsonArena arena;
  for (const char* text : {"0",
                           "-0",
                           "-0 ",
                           "-0.0",
                           "-0e0",
                           "0e44",
                           "0E448",
                           "-0.0e999",
                           "1",
                           "-1",
                           "9223372036854775807",
                           "9223372036854775808",
                           "-9223372036854775808",
                           "-9223372036854775809",
                           "18446744073709551615",
                           "18446744073709551616",
                           "123456789012345678901234567890",
                           "1e308",
                           "1e309",
                           "-1e309",
                           "1e-308",
                           "4.9e-324",
                           "1e-400",
                           "-1e-400",
                           "0.1",
                           "123456789.123456789e-5",
                           "1.7976931348623157e308",
                           "01",
                           "+1",
                           ".5",
                           "1.",
                           "1e",
                           "-",
                           "--1",
                           "NaN",
                           "Infinity",
                           "null",
                           "true",
                           "false",
                           "nul",
                           "truex",
                           "\"\"",
                           "\"a",
                           "\"\\ud83d\\ude00\"",
                           "\"\\ud83d\"",
                           "\"\\ude00\"",
                           "\"\\ud83dx\"",
                           "\"\\u0000\"",
                           "\"\\x\"",
                           "\"\t\"",
                           "\"\x1f\"",
                           "\"\x7f\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xc0\x80\"",
                           "\"\xf4\x90\x80\x80\"",
                           "\xef\xbb\xbf{}",
                           "{}",
                           "[]",
                           "{\"a\":1,\"a\":2}",
                           "{\"a\":-0}",
                           "[-0,0]",
                           "{\"day\":\"2026-01-05\",\"n\":-05}",
                           "[1,]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{,}",
                           "[1 2]",
                           "[1]x",
                           "[1] ",
                           " \n\r\t[1]",
                           "[[[[[[[[1]]]]]]]]",
                           "[[[[[[[[[1]]]]]]]]]",
                           "{\"a\":[{\"b\":[{\"c\":[{\"d\":[1]}]}]}]}",
                           "{\"a\":[{\"b\":[{\"c\":[{\"d\":[[1]]}]}]}]}",
                           "// c",
                           "[1] // c",
                           "'a'",
                           "{a:1}"}) {
    ExpectReadAlike(&arena, text);
  }
  ExpectReadAlike(&arena, std::string_view("1\0", 2));
  ExpectReadAlike(&arena, std::string_view("{\"a\0b\":1}", 9));
  // Beyond what the fast one takes, and right at it.
  for (const std::size_t size : {65'533U, 65'534U, 65'535U, 70'000U}) {
    ExpectReadAlike(&arena, "\"" + std::string(size, 'x') + "\"");
  }
}

// Anything that may come of a document whose bytes are lost, doubled or swapped.
TEST(JsonTest, AnArenaReadsBrokenTextsAsParseJsonDoes) {
  const std::uint64_t seed = test::TestSeed();
  std::mt19937_64 random(seed);
  const std::string whole =
      R"({"category":"film","tags":["a","\u00fc\ud83d\ude00",null],"features":{"price":12.25,"year":1950,"minus":-0.0,"n":-17},)"
      R"("attributes":{"in":true,"out":false,"big":18446744073709551615,"e":1e-7,"t":"2026-01-05T00:00:00Z","x":[[],{}]}})";
  JsonArena arena;
  ExpectReadAlike(&arena, whole);
  const std::string_view special = "\"\\{}[]:,-0.eE \xc3\xed\x01";
  for (int i = 0; i < 20'000; ++i) {
    std::string text = whole;
    for (std::uint64_t changes = 1 + random() % 3; changes > 0; --changes) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text.erase(at, 1);
          break;
        case 1:
          text[at] = special[random() % special.size()];
          break;
        case 2:
          text.insert(at, 1, special[random() % special.size()]);
          break;
        default:
          std::swap(text[at], text[random() % text.size()]);
      }
    }
    ExpectReadAlike(&arena, text);
    if (HasFailure()) {
      ADD_FAILURE() << "seed " << seed << ", change " << i;
      return;
    }
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
