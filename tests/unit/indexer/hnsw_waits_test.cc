// Whatever waits for the index's worker has an end, and says what it waited for.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "hnsw_index.h"
#include "label_range.h"

namespace freshet {
namespace {

constexpr int kDim = 16;
constexpr std::chrono::milliseconds kWait{50};

// Holds up the search that asks it, until it is let go.
class Holding final : public LabelFilter {
 public:
  [[nodiscard]] bool Allows(Label /*label*/) const override {
    std::unique_lock lock(mu_);
    held_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return let_go_; });
    return true;
  }
  void AwaitHeld() const {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [&] { return held_; });
  }
  void LetGo() {
    const std::lock_guard lock(mu_);
    let_go_ = true;
    changed_.notify_all();
  }

 private:
  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
  // Guarded by mu_:
  mutable bool held_ = false;
  bool let_go_ = false;
};

class HnswWaits : public ::testing::Test {
 protected:
  void Make(std::size_t capacity) {
    HnswOptions options;
    options.dim = kDim;
    options.m = 8;
    options.ef_construction = 40;
    options.capacity = capacity;
    options.max_fresh = 64;
    index_ = std::make_unique<HnswIndex>(options, Throttle::OfShare(1), kWait);
  }
  [[nodiscard]] Status Insert(Label begin, Label end) {
    return index_->Insert(Range(begin, end), {set_.Row(begin % 4000), (end - begin) * kDim});
  }
  // As often as it takes on a busy machine.
  void Fill(Label rows) {
    for (Label label = 0; label < rows; ++label) {
      ASSERT_TRUE(test::WaitFor([&] { return Insert(label, label + 1).ok(); }));
    }
    ASSERT_OK(index_->Settle());
  }

  const test::TempDir dir_;
  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, 4001, kDim, 40);
  std::unique_ptr<HnswIndex> index_;
};

TEST_F(HnswWaits, ASearchThatDoesNotEndFailsInsertsAndCutsUntilItDoes) {
  Make(20'000);
  Fill(2000);
  Holding filter;
  std::thread search([&] {
    SearchOptions options;
    options.filter = &filter;
    EXPECT_OK(index_->Search({set_.Row(0), kDim}, options));
  });
  filter.AwaitHeld();
  // Their slots are to be freed, for which the worker waits until the search is over.
  index_->Tombstone(Range(0, 1000));
  ASSERT_OK(index_->Maintain());
  Label next = 2000;
  Status inserted;
  EXPECT_TRUE(test::WaitFor([&] {
    inserted = Insert(next, next + 1);
    next += inserted.ok() ? 1 : 0;
    return !inserted.ok();
  }));
  EXPECT_EQ(inserted.code(), Code::kResourceExhausted) << inserted.ToString();
  EXPECT_NE(inserted.message().find("a search"), std::string::npos) << inserted.ToString();
  Status written;
  EXPECT_TRUE(test::WaitFor([&] {
    const auto cut = index_->Cut();
    EXPECT_OK(cut);
    written = (*cut)->Write(dir_ / "index");
    return !written.ok();
  }));
  EXPECT_EQ(written.code(), Code::kDeadlineExceeded) << written.ToString();
  EXPECT_GE(index_->Stats().wait_timeouts, 2U);

  filter.LetGo();
  search.join();
  ASSERT_OK(index_->Settle());
  ASSERT_OK(Insert(next, next + 1));
  EXPECT_EQ(index_->LiveLabels(), Range(1000, next + 1));
  ASSERT_OK(index_->Settle());
  const auto cut = index_->Cut();
  ASSERT_OK(cut);
  EXPECT_OK((*cut)->Write(dir_ / "index"));
}

TEST_F(HnswWaits, AFullIndexSaysWhatKeepsTheRoomOfTheDead) {
  Make(1000);
  Fill(1000);
  EXPECT_EQ(Insert(1000, 1001).message(), "the index is full: 1000 of 1000 rows live (index.capacity)");
  {
    const auto cut = index_->Cut();
    ASSERT_OK(cut);
    index_->Tombstone(Range(0, 400));
    const Status status = Insert(1000, 1001);
    EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
    EXPECT_NE(status.message().find("600 of 1000 rows live"), std::string::npos) << status.ToString();
    EXPECT_NE(status.message().find("a cut"), std::string::npos) << status.ToString();
    EXPECT_EQ(index_->Stats().wait_timeouts, 1U);
  }
  EXPECT_TRUE(test::WaitFor([&] { return Insert(1000, 1001).ok(); }));
  EXPECT_EQ(index_->LiveLabels(), Range(400, 1001));
}

}  // namespace
}  // namespace freshet
