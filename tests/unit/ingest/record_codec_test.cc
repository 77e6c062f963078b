#include "freshet/ingest/record_codec.h"

#include <gtest/gtest.h>

#include <limits>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using Texts = std::vector<std::string>;

const Features kFeatures = {{"category", "film"}, {"price", 3.25}, {"tags", Texts{"a", ""}}};
const Attributes kAttributes = {{"bool", true},
                                {"bools", std::vector<bool>{true, false}},
                                {"int", std::int64_t{-7}},
                                {"ints", std::vector<std::int64_t>{-7, 9'007'199'254'740'993}},
                                {"number", 0.5},
                                {"numbers", std::vector<double>{0.5, -1.0}},
                                {"text", "x\"y"},
                                {"texts", Texts{"p", "q"}}};

std::string Bytes(const Features& features) {
  ByteWriter out;
  PutFeatures(features, &out);
  return out.Take();
}
std::string Bytes(const Attributes& attributes) {
  ByteWriter out;
  PutAttributes(attributes, &out);
  return out.Take();
}

TEST(RecordCodecTest, RoundTrips) {
  const std::string features = Bytes(kFeatures);
  ByteReader in(features);
  EXPECT_EQ(GetFeatures(&in), kFeatures);
  EXPECT_TRUE(in.finished());
  const std::string attributes = Bytes(kAttributes);
  ByteReader in2(attributes);
  EXPECT_EQ(GetAttributes(&in2), kAttributes);
  EXPECT_TRUE(in2.finished());
}

// The bytes are persisted: this test fails when the format changes.
TEST(RecordCodecTest, TheFormatIsAsWritten) {
  const std::string expected(
      "\x01\0\0\0"
      "\x01\0\0\0"
      "p"
      "\x01"
      "\0\0\0\0\0\0\xf0\x3f",
      4 + 5 + 1 + 8);
  EXPECT_EQ(Bytes(Features{{"p", 1.0}}), expected);
}

TEST(RecordCodecTest, EveryTruncationFails) {
  const std::string features = Bytes(kFeatures);
  for (std::size_t size = 0; size < features.size(); ++size) {
    ByteReader in(std::string_view(features).substr(0, size));
    EXPECT_TRUE(GetFeatures(&in).empty());
    EXPECT_FALSE(in.ok()) << size;
  }
  const std::string attributes = Bytes(kAttributes);
  for (std::size_t size = 0; size < attributes.size(); ++size) {
    ByteReader in(std::string_view(attributes).substr(0, size));
    EXPECT_TRUE(GetAttributes(&in).empty());
    EXPECT_FALSE(in.ok()) << size;
  }
}

TEST(RecordCodecTest, RefusesUnknownTypesUnsortedNamesBadBoolsAndNonFiniteNumbers) {
  const auto refused = [](const std::string& bytes) {
    ByteReader in(bytes);
    const bool empty = GetAttributes(&in).empty();
    return empty && !in.ok();
  };
  ByteWriter type;
  type.Put(std::uint32_t{1}).PutString("a").Put(std::uint8_t{9}).Put(std::uint64_t{0});
  EXPECT_TRUE(refused(type.Take()));
  EXPECT_TRUE(refused(Bytes(Attributes{{"b", true}, {"a", true}})));
  EXPECT_TRUE(refused(Bytes(Attributes{{"a", true}, {"a", true}})));
  ByteWriter boolean;
  boolean.Put(std::uint32_t{1}).PutString("a").Put(std::uint8_t{1}).Put(std::uint8_t{2});
  EXPECT_TRUE(refused(boolean.Take()));
  for (const std::uint8_t list : std::initializer_list<std::uint8_t>{6, 7, 8}) {
    ByteWriter endless;  // a count beyond what follows must not take its memory
    endless.Put(std::uint32_t{1}).PutString("a").Put(list).Put(std::uint32_t{4'000'000'000}).Put(std::uint64_t{0});
    EXPECT_TRUE(refused(endless.Take()));
  }
  EXPECT_TRUE(refused(Bytes(Attributes{{"a", std::vector<double>{1, std::numeric_limits<double>::infinity()}}})));
  EXPECT_TRUE(refused(Bytes(Attributes{{"a", std::numeric_limits<double>::infinity()}})));
  ByteWriter count;  // a count that no input could hold must not allocate for it
  count.Put(std::uint32_t{1}).PutString("a").Put(std::uint8_t{5}).Put(std::uint32_t{0xffffffff});
  EXPECT_TRUE(refused(count.Take()));
  ByteWriter entries;
  entries.Put(std::uint32_t{0xffffffff});
  EXPECT_TRUE(refused(entries.Take()));
}

TEST(RecordCodecTest, AttributesBecomeJson) {
  EXPECT_EQ(
      AttributesToJson(kAttributes),
      R"({"bool":true,"bools":[true,false],"int":-7,"ints":[-7,9007199254740993],"number":0.5,"numbers":[0.5,-1.0],)"
      R"("text":"x\"y","texts":["p","q"]})");
  EXPECT_EQ(AttributesToJson({}), "{}");
}

TEST(RecordCodecTest, FindsByName) {
  ASSERT_NE(FindFeature(kFeatures, "price"), nullptr);
  EXPECT_EQ(std::get<double>(*FindFeature(kFeatures, "price")), 3.25);
  EXPECT_EQ(FindFeature(kFeatures, "pric"), nullptr);
  EXPECT_EQ(FindFeature(kFeatures, "zzz"), nullptr);
  ASSERT_NE(FindAttribute(kAttributes, "bool"), nullptr);
  EXPECT_EQ(FindAttribute({}, "bool"), nullptr);
}

}  // namespace
}  // namespace freshet
