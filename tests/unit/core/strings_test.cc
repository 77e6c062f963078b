#include "freshet/core/strings.h"

#include <gtest/gtest.h>

namespace freshet {
namespace {

TEST(StringsTest, SplitsAndTrims) {
  EXPECT_EQ(Split("a,,b", ','), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(Split("", ','), (std::vector<std::string>{""}));
  EXPECT_EQ(Trim(" \ta b\r\n"), "a b");
  EXPECT_EQ(Trim(" \n"), "");
  EXPECT_EQ(ToLower("ABCxyz1"), "abcxyz1");
}

TEST(StringsTest, KnowsWellFormedUtf8) {
  for (const char* good : {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsValidUtf8(good)) << testing::PrintToString(good);
  }
  // Stray tails, overlong forms, surrogates, above U+10FFFF, truncations.
  for (const char* bad : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc2", "\xe1\x80",
                          "\xf1\x80\x80", "\xc2\x41", "\xe1\x80\x41", "\xf1\x80\x80\xc0"}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << testing::PrintToString(bad);
  }
  EXPECT_TRUE(IsValidUtf8(std::string_view("\0", 1)));
}

TEST(StringsTest, IdsAreOneTo512Bytes) {
  EXPECT_FALSE(IsValidId(""));
  EXPECT_TRUE(IsValidId("x"));
  EXPECT_TRUE(IsValidId(std::string(512, 'x')));
  EXPECT_FALSE(IsValidId(std::string(513, 'x')));
  EXPECT_FALSE(IsValidId("\xff"));
}

TEST(StringsTest, NumbersAreWholeStrings) {
  EXPECT_EQ(ParseInt("-42"), -42);
  EXPECT_EQ(ParseInt("9223372036854775807"), 9223372036854775807LL);
  for (const char* bad : {"", "4x", " 4", "4 ", "0x4", "+4", "9223372036854775808", "4.0"})
    EXPECT_FALSE(ParseInt(bad)) << bad;
  EXPECT_EQ(ParseDouble("2.5e1"), 25.0);
  for (const char* bad : {"", "2.5.1", "x", "1e999", "2 "}) EXPECT_FALSE(ParseDouble(bad)) << bad;
}

TEST(StringsTest, SuggestsWhatWasPlausiblyMeant) {
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  const std::vector<std::string> keys = {"bootstrap_servers", "group_id", "topic"};
  EXPECT_EQ(Nearest("bootstrap_server", keys), "bootstrap_servers");
  EXPECT_EQ(Nearest("tpoic", keys), "topic");
  EXPECT_EQ(Nearest("dimension", keys), std::nullopt);
  EXPECT_EQ(Nearest("x", {}), std::nullopt);
}

}  // namespace
}  // namespace freshet
