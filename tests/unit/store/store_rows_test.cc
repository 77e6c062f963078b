#include "store_rows.h"

#include <bit>
#include <cmath>
#include <random>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(Half, EveryHalfComesBack) {
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    if ((half & 0x7c00) == 0x7c00) continue;  // infinities and NaN: vectors have none
    EXPECT_EQ(ToHalf(FromHalf(static_cast<std::uint16_t>(half))), half);
  }
}

TEST(Half, RoundsToTheNearestAndStaysFinite) {
  std::mt19937_64 random(test::TestSeed());
  std::uniform_real_distribution<float> exponent(-28, 17);
  for (int i = 0; i < 100'000; ++i) {
    const float value = std::exp2(exponent(random)) * (random() % 2 == 0 ? 1.0F : -1.0F);
    const std::uint16_t half = ToHalf(value);
    const double distance = std::abs(static_cast<double>(FromHalf(half)) - static_cast<double>(value));
    for (const int step : {-1, 1}) {
      const auto magnitude = static_cast<std::uint16_t>((half & 0x7fff) + step);
      if (magnitude >= 0x7c00) continue;
      const auto other = static_cast<std::uint16_t>((half & 0x8000) | magnitude);
      EXPECT_LE(distance, std::abs(static_cast<double>(FromHalf(other)) - static_cast<double>(value)));
    }
    EXPECT_TRUE(std::isfinite(FromHalf(half)));
  }
}

TEST(StoreRows, AnIdentityOfFormat1HoldsFp32) {
  StoreIdentity identity;
  identity.epoch = 7;
  identity.dim = 3;
  identity.metric = "cosine";
  identity.space_id = "s";
  identity.vectors = VectorType::kFp16;
  std::string bytes = EncodeIdentity(identity);
  EXPECT_EQ(DecodeIdentity(bytes)->vectors, VectorType::kFp16);
  bytes[0] = 1;
  EXPECT_FALSE(DecodeIdentity(bytes).ok());  // a byte too many
  bytes.pop_back();
  const auto first = DecodeIdentity(bytes);
  ASSERT_OK(first);
  EXPECT_EQ(first->vectors, VectorType::kFp32);
  EXPECT_EQ(first->epoch, 7U);
}

}  // namespace
}  // namespace freshet
