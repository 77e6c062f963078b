// A tower's way through a device, with threads in place of a GPU's streams.
#include <algorithm>
#include <new>
#include <thread>

#include "batch_embedder.h"
#include "fake_device.h"
#include "freshet_test/test_support.h"
#include "tiny_model.h"
#include "torch_tower.h"
#include "tower_encoders.h"

namespace freshet {
namespace {

using test::FakeDevice;
using test::FakeQueues;
using test::TinyTower;

constexpr TowerShape kShape{3, 1, 1, 2};

TowerOptions On(FakeDevice* device, std::int64_t part_rows) {
  TowerOptions options;
  options.name = "fake";
  options.part_rows = part_rows;
  options.fake_device = [device] { return std::make_unique<FakeQueues>(device); };
  options.device_lost = [](const std::string&, const std::string&) {};
  return options;
}

// Rows with bags of 0 to 3 indices.
TowerInput Rows(std::int64_t count) {
  TowerInput input;
  for (; input.rows < count; ++input.rows) {
    input.offsets.push_back(static_cast<std::int64_t>(input.indices.size()));
    for (std::int64_t i = 0; i < input.rows % 4; ++i) input.indices.push_back((input.rows + i) % 3);
    input.dense.push_back(static_cast<float>(input.rows));
  }
  return input;
}

TEST(TorchDeviceTest, AnswersAsTheProcessorDoesInPartsOfAnySize) {
  const std::string script = TinyTower(test::kTinyForward, 1);
  const auto reference = Tower::Load(script, kShape);
  ASSERT_OK(reference);
  for (const std::int64_t part_rows : {1, 3, 8, 100}) {
    FakeDevice device;
    const auto tower = Tower::Load(script, kShape, On(&device, part_rows));
    ASSERT_OK(tower);
    // Growing and shrinking, so that buffers are kept and replaced.
    for (const std::int64_t rows : {1, 7, 8, 9, 40, 5, 63, 2}) {
      const TowerInput input = Rows(rows);
      std::vector<float> wanted(static_cast<std::size_t>(rows * 2));
      std::vector<float> out(wanted.size(), -1);
      ASSERT_OK((*reference)->Run(input, wanted));
      ASSERT_OK((*tower)->Run(input, out));
      EXPECT_EQ(out, wanted) << rows << " rows in parts of " << part_rows;
    }
  }
}

TEST(TorchDeviceTest, SeesFewShapes) {
  // A tower that answers how many rows it was given.
  const std::string counts =
      "def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:\n"
      "    return torch.cat([torch.full_like(dense, dense.size(0)), dense], 1)\n";
  FakeDevice device;
  const auto tower = Tower::Load(TinyTower(counts, 1), kShape, On(&device, 4096));
  ASSERT_OK(tower);
  std::vector<float> sizes;
  for (std::int64_t rows = 1; rows <= 1024; ++rows) {
    std::vector<float> out(static_cast<std::size_t>(rows * 2));
    ASSERT_OK((*tower)->Run(Rows(rows), out));
    EXPECT_GE(out[0], static_cast<float>(rows));
    EXPECT_LE(out[0], std::max(static_cast<float>(rows + 7), 1.125F * static_cast<float>(rows)));
    EXPECT_EQ(out[out.size() - 1], static_cast<float>(rows - 1));  // what was padded is not in the answer
    sizes.push_back(out[0]);
  }
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  EXPECT_LE(sizes.size(), 41U);
}

TEST(TorchDeviceTest, ExtractsAndCopiesAPartWhileAnotherIsComputed) {
  FakeDevice device;
  const auto tower = Tower::Load(TinyTower(test::kTinyForward, 1), kShape, On(&device, 2));
  ASSERT_OK(tower);
  int copied_before = 0;
  {
    const std::lock_guard lock(device.mu);
    copied_before = device.copied_in;
  }
  device.Hold(true);
  const TowerInput all = Rows(6);
  std::vector<float> out(12);
  std::atomic<int> filled{0};
  Status status = Internal("not run");
  std::thread caller([&] {
    const auto fill = [&](std::size_t begin, std::size_t end, TowerInput* input) {
      ++filled;
      for (std::size_t row = begin; row < end; ++row) {
        input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
        input->indices.push_back(static_cast<std::int64_t>(row % 3));
        input->dense.push_back(static_cast<float>(row));
        ++input->rows;
      }
    };
    TowerInput scratch;
    status = (*tower)->Run(6, fill, &scratch, out);
  });
  // The first part is not computed yet, and the second is already on the device; a third has no room.
  EXPECT_TRUE(device.WaitFor([&] { return device.copied_in == copied_before + 2; }));
  EXPECT_EQ(filled, 2);
  device.Hold(false);
  caller.join();
  ASSERT_OK(status);
  EXPECT_EQ(filled, 3);
  for (std::size_t row = 0; row < 6; ++row) {
    const std::vector<float> wanted[] = {{1, 0}, {0, 1}, {1, 1}};
    EXPECT_EQ(out[2 * row], wanted[row % 3][0]);
    EXPECT_EQ(out[2 * row + 1], wanted[row % 3][1] + 0.5F * static_cast<float>(row));
  }
}

TEST(TorchDeviceTest, HalvesABatchForWhichTheDeviceHasNoMemory) {
  FakeDevice device;
  PackageContents contents = test::TinyPackage();
  auto tower = Tower::Load(contents.item_tower, kShape, On(&device, 4));
  ASSERT_OK(tower);
  const auto encoder = MakeTowerItemEncoder(contents.manifest, std::move(*tower), contents.goldens, "fake");
  Metrics metrics;
  BatchEmbedder embedder(encoder.get(), &metrics, [](std::chrono::milliseconds) { return Status::Ok(); });
  {
    const std::lock_guard lock(device.mu);
    // The third of the batch's three parts, while others are under way; then the first of a half.
    const int first = device.computed + 1;
    device.before_compute = [first](int number) {
      if (number == first + 2 || number == first + 3) throw std::bad_alloc();
    };
  }
  std::vector<ItemUpdate> items(10);
  std::vector<const ItemUpdate*> batch;
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i].item_id = i % 2 == 0 ? "a" : "b";
    items[i].features = {{"price", static_cast<double>(i)}};
    batch.push_back(&items[i]);
  }
  std::vector<float> out(20);
  std::vector<BatchEmbedder::Refusal> refused;
  ASSERT_OK(embedder.Embed(batch, out, &refused));
  EXPECT_TRUE(refused.empty());
  for (std::size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(out[2 * i], i % 2 == 0 ? 1.0F : 0.0F);
    EXPECT_EQ(out[2 * i + 1], (i % 2 == 0 ? 0.0F : 1.0F) + 0.5F * static_cast<float>(i));
  }
  EXPECT_EQ(metrics.GetCounter("freshet_encode_out_of_memory_total", "").Value(), 2);
}

TEST(TorchDeviceTest, ARaiseInOnePartIsTheInputsAndTheNextCallPasses) {
  const std::string raises =
      "def forward(self, indices: Tensor, offsets: Tensor, dense: Tensor) -> Tensor:\n"
      "    assert bool((dense < 5).all()), \"five\"\n"
      "    return torch.cat([dense, dense], 1)\n";
  FakeDevice device;
  const auto tower = Tower::Load(TinyTower(raises, 1), kShape, On(&device, 2));
  ASSERT_OK(tower);
  std::vector<float> out(16);
  EXPECT_EQ((*tower)->Run(Rows(8), out).code(), Code::kInvalidArgument);
  std::vector<float> good(10);
  ASSERT_OK((*tower)->Run(Rows(5), good));
  EXPECT_EQ(good[9], 4.0F);
}

TEST(TorchDeviceTest, ADeviceThatNoLongerAnswersIsNobodysRecord) {
  FakeDevice device;
  std::string lost;
  TowerOptions options = On(&device, 4);
  options.device_lost = [&](const std::string& tower, const std::string& reason) { lost = tower + "|" + reason; };
  const auto tower = Tower::Load(TinyTower(test::kTinyForward, 1), kShape, options);
  ASSERT_OK(tower);
  std::vector<float> out(4);
  {
    const std::lock_guard lock(device.mu);
    device.before_compute = [](int) { throw std::runtime_error("an illegal memory access"); };
  }
  // As long as the device answers, a failing call is a call that fails.
  EXPECT_EQ((*tower)->Run(Rows(2), out).code(), Code::kInvalidArgument);
  EXPECT_EQ(lost, "");
  device.alive = false;
  const Status status = (*tower)->Run(Rows(2), out);
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_EQ(lost, "fake|the tower raised: an illegal memory access");
}

TEST(TorchDeviceTest, ALostDeviceEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  FakeDevice device;
  TowerOptions options = On(&device, 4);
  options.device_lost = nullptr;
  EXPECT_EXIT(
      {
        const auto tower = Tower::Load(TinyTower(test::kTinyForward, 1), kShape, options);
        {
          const std::lock_guard lock(device.mu);
          device.before_compute = [](int) { throw std::runtime_error("an illegal memory access"); };
        }
        device.alive = false;
        std::vector<float> out(4);
        (void)(*tower)->Run(Rows(2), out);
      },
      testing::ExitedWithCode(1), "the device failed and works no more.*an illegal memory access");
}

}  // namespace
}  // namespace freshet
