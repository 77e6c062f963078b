#include "freshet/core/bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

namespace freshet {
namespace {

std::string Sample() {
  const std::array<float, 2> floats = {1.5f, -2.0f};
  ByteWriter out;
  out.Put(std::uint8_t{7}).Put(std::int64_t{-3}).PutString("text").PutFloats(floats).Put(2.5);
  return out.Take();
}

struct Fields {
  std::uint8_t a = 0;
  std::int64_t b = 0;
  std::string c;
  std::array<float, 2> d{};
  double e = 0;
};
Fields ReadAll(ByteReader* in) {
  Fields f;
  f.a = in->Get<std::uint8_t>();
  f.b = in->Get<std::int64_t>();
  f.c = in->GetString();
  in->GetFloats(f.d);
  f.e = in->Get<double>();
  return f;
}

TEST(BytesTest, RoundTrips) {
  const std::string bytes = Sample();
  ByteReader in(bytes);
  const Fields f = ReadAll(&in);
  EXPECT_EQ(f.a, 7);
  EXPECT_EQ(f.b, -3);
  EXPECT_EQ(f.c, "text");
  EXPECT_EQ(f.d, (std::array<float, 2>{1.5f, -2.0f}));
  EXPECT_EQ(f.e, 2.5);
  EXPECT_TRUE(in.finished());
}

TEST(BytesTest, EveryTruncationFailsForGood) {
  const std::string bytes = Sample();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    ByteReader in(std::string_view(bytes).substr(0, size));
    const Fields f = ReadAll(&in);
    EXPECT_FALSE(in.ok()) << size;
    EXPECT_EQ(f.e, 0.0);
    EXPECT_EQ(in.Get<std::uint8_t>(), 0);
    EXPECT_FALSE(in.finished());
  }
}

TEST(BytesTest, WhatIsLeftOverIsNotFinished) {
  const std::string bytes = Sample() + "x";
  ByteReader in(bytes);
  (void)ReadAll(&in);
  EXPECT_TRUE(in.ok());
  EXPECT_FALSE(in.finished());
  EXPECT_EQ(in.rest(), "x");
}

TEST(BytesTest, ALengthBeyondTheInputFails) {
  ByteWriter out;
  out.Put(std::numeric_limits<std::uint32_t>::max());
  const std::string bytes = out.Take() + "abc";
  ByteReader in(bytes);
  EXPECT_EQ(in.GetString(), "");
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.remaining(), 0u);
}

TEST(BytesTest, OrderedKeysSortAsNumbers) {
  const std::vector<std::uint64_t> numbers = {
      0, 1, 255, 256, 65'536, std::uint64_t{1} << 40, std::numeric_limits<std::uint64_t>::max()};
  std::vector<std::string> keys;
  for (const std::uint64_t n : numbers) {
    keys.push_back(OrderedKey(n));
    EXPECT_EQ(FromOrderedKey(keys.back()), n);
  }
  EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
}

}  // namespace
}  // namespace freshet
