#include <limits>

#include "freshet/encoder/encoder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

ItemUpdate ItemWith(std::vector<float> vector) {
  ItemUpdate item;
  item.item_id = "i";
  item.vector = std::move(vector);
  return item;
}

Status EncodeOne(ItemEncoder* encoder, const ItemUpdate& item, std::vector<float>* out) {
  out->assign(static_cast<std::size_t>(encoder->dim()), 0);
  const ItemUpdate* const items[] = {&item};
  return encoder->Encode(items, *out);
}

TEST(PassthroughTest, NamesItsSpaceAfterDimensionAndMetric) {
  EXPECT_EQ(MakePassthroughEncoder(3, Metric::kCosine)->space_id(), "passthrough-3-cosine");
  EXPECT_EQ(MakePassthroughEncoder(8, Metric::kInnerProduct)->space_id(), "passthrough-8-ip");
  EXPECT_EQ(MakePassthroughEncoder(8, Metric::kL2, "mine")->space_id(), "mine");
}

TEST(PassthroughTest, NormalisesForCosineAndOnlyThen) {
  std::vector<float> out;
  ASSERT_OK(EncodeOne(MakePassthroughEncoder(2, Metric::kCosine).get(), ItemWith({3, 4}), &out));
  EXPECT_FLOAT_EQ(out[0], 0.6F);
  EXPECT_FLOAT_EQ(out[1], 0.8F);
  ASSERT_OK(EncodeOne(MakePassthroughEncoder(2, Metric::kL2).get(), ItemWith({3, 4}), &out));
  EXPECT_FLOAT_EQ(out[0], 3);
}

TEST(PassthroughTest, RefusesWhatCannotBeCompared) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto encoder = MakePassthroughEncoder(2, Metric::kL2);
  std::vector<float> out;
  for (const auto& bad :
       std::vector<std::vector<float>>{{}, {1}, {1, 2, 3}, {0, 0}, {1, kNan}, {kInfinity, 1}, {3e38F, 3e38F}}) {
    EXPECT_EQ(EncodeOne(encoder.get(), ItemWith(bad), &out).code(), Code::kInvalidArgument) << bad.size();
  }
}

}  // namespace
}  // namespace freshet
