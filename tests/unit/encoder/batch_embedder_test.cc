#include "batch_embedder.h"

#include <algorithm>
#include <numeric>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

// Embeds item number i as {i}. Calls with more than `room` items find no memory, nor do the next `starved` ones of any
// size; items in `bad` are refused.
class ScriptedEncoder final : public ItemEncoder {
 public:
  int dim() const override { return 1; }
  Metric metric() const override { return Metric::kInnerProduct; }
  const std::string& space_id() const override { return space_id_; }
  Status Encode(std::span<const ItemUpdate* const> items, std::span<float> out) override {
    ++calls;
    rows += items.size();
    if (items.size() > room || starved-- > 0) return ResourceExhausted("no memory");
    starved = std::max(starved, 0);
    for (std::size_t i = 0; i < items.size(); ++i) {
      const int number = std::stoi(items[i]->item_id);
      if (std::find(bad.begin(), bad.end(), number) != bad.end()) return InvalidArgument("refused");
      out[i] = static_cast<float>(number);
    }
    return Status::Ok();
  }
  Status Check() override {
    ++checks;
    return check;
  }

  std::size_t room = 1000;
  int starved = 0;
  std::vector<int> bad;
  Status check;
  std::size_t calls = 0;
  std::size_t rows = 0;
  int checks = 0;

 private:
  std::string space_id_ = "scripted";
};

class BatchEmbedderTest : public ::testing::Test {
 protected:
  Status Embed(std::size_t count) {
    items_.resize(count);
    std::vector<const ItemUpdate*> pointers;
    for (std::size_t i = 0; i < count; ++i) {
      items_[i].item_id = std::to_string(i);
      pointers.push_back(&items_[i]);
    }
    out_.assign(count, -1);
    refused_.clear();
    BatchEmbedder embedder(&encoder_, &metrics_, [this](milliseconds wait) {
      waits_.push_back(wait.count());
      return wait_answer_;
    });
    return embedder.Embed(pointers, out_, &refused_);
  }

  [[nodiscard]] std::vector<int> Refused() const {
    std::vector<int> numbers;
    for (const BatchEmbedder::Refusal& one : refused_) numbers.push_back(static_cast<int>(one.item));
    return numbers;
  }

  void ExpectTheRestEmbedded() const {
    const std::vector<int> refused = Refused();
    for (std::size_t i = 0; i < out_.size(); ++i) {
      if (std::find(refused.begin(), refused.end(), static_cast<int>(i)) != refused.end()) continue;
      EXPECT_EQ(out_[i], static_cast<float>(i));
    }
  }

  double Metric(const char* name, const char* help) { return metrics_.GetCounter(name, help).Value(); }

  ScriptedEncoder encoder_;
  Metrics metrics_;
  std::vector<ItemUpdate> items_;
  std::vector<float> out_;
  std::vector<BatchEmbedder::Refusal> refused_;
  std::vector<std::int64_t> waits_;
  Status wait_answer_;
};

TEST_F(BatchEmbedderTest, HalvesABatchThatFindsNoMemory) {
  encoder_.room = 10;
  ASSERT_OK(Embed(64));
  ExpectTheRestEmbedded();
  EXPECT_TRUE(refused_.empty()) << "too little memory is not the items' fault";
  EXPECT_EQ(encoder_.calls, 15U);
  EXPECT_TRUE(waits_.empty()) << "fewer items are tried at once";
  EXPECT_EQ(encoder_.checks, 0);
}

TEST_F(BatchEmbedderTest, WaitsForMemoryWithOneItemLeft) {
  encoder_.starved = 4;  // the batch of two, then the first item three times
  ASSERT_OK(Embed(2));
  ExpectTheRestEmbedded();
  EXPECT_TRUE(refused_.empty());
  EXPECT_EQ(waits_, (std::vector<std::int64_t>{100, 200, 400}));
}

TEST_F(BatchEmbedderTest, WithoutMemoryItStopsInTheEndAndBlamesNoItem) {
  encoder_.room = 0;
  EXPECT_EQ(Embed(8).code(), Code::kResourceExhausted);
  EXPECT_TRUE(refused_.empty());
  EXPECT_EQ(waits_, (std::vector<std::int64_t>{100, 200, 400, 800, 1600, 3200}));
  EXPECT_EQ(encoder_.calls, 3U + BatchEmbedder::kMaxAttempts);
  EXPECT_EQ(Metric("freshet_encode_out_of_memory_total",
                   "Model calls that found no memory and were made again, with fewer items."),
            3 + BatchEmbedder::kMaxAttempts);
}

TEST_F(BatchEmbedderTest, AStageThatEndsDoesNotWait) {
  encoder_.room = 0;
  wait_answer_ = Cancelled("stopping");
  EXPECT_EQ(Embed(8).code(), Code::kCancelled);
  EXPECT_EQ(waits_.size(), 1U);
}

TEST_F(BatchEmbedderTest, FindsRefusedItemsAlsoWhereMemoryIsShort) {
  encoder_.room = 20;
  encoder_.bad = {3, 40, 41};
  ASSERT_OK(Embed(64));
  EXPECT_EQ(Refused(), encoder_.bad);
  ExpectTheRestEmbedded();
  EXPECT_EQ(refused_[0].reason, "refused");
  EXPECT_EQ(encoder_.checks, 1) << "once a batch";
  EXPECT_EQ(Metric("freshet_encode_refused_total", "Items that the model refused; they are dead letters."), 3);
}

// A broken model is found by one question, at the first refusal, and not by a dead letter for every record.
TEST_F(BatchEmbedderTest, ABrokenModelIsNotTheItemsFault) {
  for (const std::size_t count : {1U, 2U, 256U}) {
    encoder_ = {};
    encoder_.bad.resize(count);
    std::iota(encoder_.bad.begin(), encoder_.bad.end(), 0);
    encoder_.check = Corruption("no golden is answered");
    EXPECT_EQ(Embed(count).code(), Code::kCorruption);
    EXPECT_TRUE(refused_.empty());
    EXPECT_EQ(encoder_.calls, 1U);
    EXPECT_EQ(encoder_.checks, 1);
  }
}

TEST_F(BatchEmbedderTest, TheQuestionWaitsForMemoryToo) {
  encoder_.bad = {0};
  encoder_.check = ResourceExhausted("no memory");
  EXPECT_EQ(Embed(1).code(), Code::kResourceExhausted);
  EXPECT_TRUE(refused_.empty());
  EXPECT_EQ(encoder_.checks, BatchEmbedder::kMaxAttempts);
}

TEST_F(BatchEmbedderTest, CallsAreBoundedHoweverManyAreRefused) {
  for (const std::size_t count : {1U, 2U, 16U, 256U, 4096U}) {
    for (const int every : {1, 2, 7}) {
      encoder_ = {};
      for (int i = 0; i < static_cast<int>(count); i += every) encoder_.bad.push_back(i);
      ASSERT_OK(Embed(count));
      EXPECT_EQ(Refused(), encoder_.bad);
      ExpectTheRestEmbedded();
      EXPECT_LE(encoder_.calls, count + count / 4 + 17) << "of " << count << ", every " << every;
    }
  }
}

}  // namespace
}  // namespace freshet
