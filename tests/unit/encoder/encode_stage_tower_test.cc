// The stage with towers that misbehave, as LibTorch runs them.
#include <algorithm>

#include "freshet/core/strings.h"
#include "freshet/encoder/encode_stage.h"
#include "freshet_test/test_support.h"
#include "goldens.h"
#include "stage_events.h"
#include "tiny_model.h"
#include "tower_encoders.h"

namespace freshet {
namespace {

using test::Batch;
using test::Item;

constexpr std::chrono::milliseconds kShortLimit{300};
const char* const kName = "models/shaky/item_tower.pt";

// An item's vector is (x, 1), computed after `body`.
std::string TowerOf(const std::string& body) {
  const std::string bytes =
      test::TinyTower("def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:\n" + body +
                          "    return torch.cat([dense, torch.ones_like(dense)], 1)\n",
                      1);
  EXPECT_FALSE(bytes.starts_with("SerializeTower")) << bytes;
  return bytes;
}

// Reads the feature `x` as it is; its golden is an item with x = 1.
Result<std::unique_ptr<ItemEncoder>> EncoderOf(const std::string& bytes, std::chrono::milliseconds limit) {
  ModelManifest manifest = test::TinyPackage().manifest;
  manifest.item.features[1].name = "x";
  FRESHET_TRY(manifest.item.Finish());
  FRESHET_ASSIGN(std::unique_ptr<Tower> tower, Tower::Load(bytes, ShapeOf(manifest.item, 2), {kName, limit}));
  Goldens goldens;
  ItemUpdate item;
  item.item_id = "golden";
  item.features = {{"x", 1.0}};
  item.vector = {1, 1};
  goldens.items = {item};
  return MakeTowerItemEncoder(manifest, std::move(tower), goldens, kName);
}

struct Outcome {
  Status status;
  std::vector<EncodedBatch> batches;
  std::vector<DeadLetter> letters;
};

Outcome RunStage(const std::string& bytes, std::vector<EventBatch> batches,
                 std::chrono::milliseconds limit = kTowerCallLimit) {
  Result<std::unique_ptr<ItemEncoder>> encoder = EncoderOf(bytes, limit);
  if (!encoder.ok()) return {encoder.status(), {}, {}};
  test::FakeDeadLetters letters;
  const SystemClock clock;
  Metrics metrics;
  BoundedQueue<EventBatch> in(100, 1 << 20);
  BoundedQueue<EncodedBatch> out(100, 1 << 20);
  EncodeStage stage(encoder->get(), &letters, &in, &out, &clock, &metrics);
  stage.Start();
  for (EventBatch& batch : batches) (void)in.Push(std::move(batch), 1);
  in.Close();
  stage.Join();
  Outcome outcome{stage.status(), {}, std::move(letters.sent)};
  while (auto batch = out.PopFor(std::chrono::milliseconds(0))) outcome.batches.push_back(std::move(*batch));
  return outcome;
}

// `count` items with x = 1, 2, ...
EventBatch Items(int count) {
  std::vector<Event> events;
  for (int i = 0; i < count; ++i) events.push_back(Item("i" + std::to_string(i), i + 1, i));
  return Batch(std::move(events));
}

std::vector<std::int64_t> Offsets(const std::vector<DeadLetter>& letters) {
  std::vector<std::int64_t> offsets;
  for (const DeadLetter& letter : letters) offsets.push_back(letter.position.offset);
  return offsets;
}

TEST(EncodeStageTowerTest, RaisesAndNumbersThatAreNotFiniteAreBisectedToTheirRecords) {
  const std::string tower = TowerOf(
      "    assert bool((dense < 9).all()), \"x is too large\"\n"
      "    dense = torch.where(dense < -5.0, dense / torch.zeros_like(dense), dense)\n");
  std::vector<Event> events;
  for (int i = 0; i < 200; ++i) {
    const double x = i == 13 || i == 199 ? 10 : i == 14 || i == 150 ? -7 : (i % 80) / 10.0;
    events.push_back(Item("i" + std::to_string(i), x, i));
  }
  const Outcome outcome = RunStage(tower, {Batch(std::move(events))});
  ASSERT_OK(outcome.status);
  EXPECT_EQ(Offsets(outcome.letters), (std::vector<std::int64_t>{13, 14, 150, 199}));
  EXPECT_NE(outcome.letters[0].reason.find("x is too large"), std::string::npos) << outcome.letters[0].reason;
  EXPECT_NE(outcome.letters[1].reason.find("not finite"), std::string::npos) << outcome.letters[1].reason;
  ASSERT_EQ(outcome.batches.size(), 1U);
  ASSERT_EQ(outcome.batches[0].items.size(), 196U);
  for (const ItemChange& change : outcome.batches[0].items) {
    EXPECT_EQ(change.update.vector,
              (std::vector<float>{static_cast<float>(static_cast<double>(change.position.offset % 80) / 10.0), 1}));
  }
}

TEST(EncodeStageTowerTest, WhatOperatorsRefuseIsTheRecordsToo) {
  for (const char* body : {"    values = [0.0, 0.0]\n    dense = dense + values[int(dense.max()) - 1]\n",
                           "    dense = dense + 0 * (1 // (3 - int(dense.max())))\n",
                           "    dense = dense + torch.zeros([2])[int(dense.max()) - 1]\n"}) {
    const Outcome outcome = RunStage(TowerOf(body), {Batch({Item("a", 1, 0), Item("b", 3, 1), Item("c", 1, 2)})});
    ASSERT_OK(outcome.status);
    EXPECT_EQ(Offsets(outcome.letters), (std::vector<std::int64_t>{1})) << body;
  }
}

TEST(EncodeStageTowerTest, WhatFindsNoMemoryIsHalvedAndNoDeadLetter) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer ends the process when memory does not suffice";
#endif
  // More than any machine addresses, for more than ten items at once.
  const std::string tower = TowerOf(
      "    if dense.shape[0] > 10:\n"
      "        dense = dense + torch.empty([1 << 50])[0]\n");
  const Outcome outcome = RunStage(tower, {Items(64)});
  ASSERT_OK(outcome.status);
  EXPECT_TRUE(outcome.letters.empty());
  ASSERT_EQ(outcome.batches.size(), 1U);
  EXPECT_EQ(outcome.batches[0].items.size(), 64U);
}

TEST(EncodeStageTowerTest, WhatLibTorchCannotRunIsTheModelsFault) {
  const std::string tower = TowerOf(
      "    if bool((dense > 2).any()):\n"
      "        dense = torch.tril(dense.to_sparse())\n");
  const Outcome outcome = RunStage(tower, {Items(2), Items(5)});
  EXPECT_EQ(outcome.status.code(), Code::kInternal) << outcome.status.ToString();
  EXPECT_NE(outcome.status.message().find(kName), std::string::npos) << outcome.status.ToString();
  EXPECT_TRUE(outcome.letters.empty());
  EXPECT_EQ(outcome.batches.size(), 1U) << "what came before passed";
}

// Answers a few calls, then raises whatever it is asked: nothing that is asked of it is to blame.
TEST(EncodeStageTowerTest, AModelThatRefusesEverythingEndsTheStageWithoutDeadLetters) {
  const std::string tower = TowerOf(
      "    self.table.add_(1.0)\n"
      "    assert bool((self.table < 7).all()), \"worn out\"\n");
  for (const int count : {1, 100}) {
    std::vector<EventBatch> batches;
    for (int i = 0; i < 10; ++i) batches.push_back(Items(count));
    const Outcome outcome = RunStage(tower, std::move(batches));
    EXPECT_EQ(outcome.status.code(), Code::kCorruption) << outcome.status.ToString();
    EXPECT_EQ(outcome.status.category(), Category::kPermanent);
    EXPECT_NE(outcome.status.message().find(StrCat(kName, ": the model is broken")), std::string::npos)
        << outcome.status.ToString();
    EXPECT_TRUE(outcome.letters.empty());
    EXPECT_GT(outcome.batches.size(), 0U);
  }
}

// x = 1 loops for good; the golden is not asked here.
TEST(EncodeStageTowerTest, AModelThatNeverEndsEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string tower = TowerOf(
      "    while bool(dense.max() == 1):\n"
      "        dense = dense * dense\n");
  EXPECT_EXIT((void)RunStage(tower, {Items(1)}, kShortLimit), ::testing::ExitedWithCode(1),
              "does not come back.*model=models/shaky/item_tower.pt waited_seconds=0.3");
}

}  // namespace
}  // namespace freshet
