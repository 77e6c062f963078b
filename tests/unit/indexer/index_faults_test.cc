// What was there keeps serving when there is no memory, no room or no disk for more, and the error is told.
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "label_range.h"

namespace freshet {
namespace {

constexpr int kDim = 32;

class IndexFaults : public ::testing::Test {
 protected:
  [[nodiscard]] std::span<const float> Rows(std::size_t begin, std::size_t end) const {
    return {set_.Row(begin), (end - begin) * kDim};
  }
  void Make(std::size_t capacity) {
    HnswOptions options;
    options.dim = kDim;
    options.m = 8;
    options.ef_construction = 40;
    options.capacity = capacity;
    auto index = MakeHnswIndex(options);
    ASSERT_OK(index);
    index_ = std::move(*index);
  }
  void ExpectServes(Label label) const {
    for (const bool exact : {true, false}) {
      SearchOptions options;
      options.k = 3;
      options.exact = exact;
      const auto hits = index_->Search(Rows(label, label + 1), options);
      ASSERT_OK(hits);
      ASSERT_EQ(hits->size(), 3U);
      EXPECT_EQ(hits->front().label, label);
    }
  }

  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, 6000, kDim, 40);
  std::unique_ptr<Index> index_;
};

TEST_F(IndexFaults, AFullIndexTakesAllOfABatchOrNothing) {
  Make(1000);
  ASSERT_OK(index_->Insert(Range(0, 900), Rows(0, 900)));
  EXPECT_EQ(index_->Insert(Range(900, 1001), Rows(900, 1001)).code(), Code::kResourceExhausted);
  EXPECT_EQ(index_->LiveLabels(), Range(0, 900));
  ExpectServes(123);
  // What the refused batch took is room again once the dead are taken out.
  index_->Tombstone(Range(500, 900));
  ASSERT_OK(index_->Maintain());
  ASSERT_OK(index_->Settle());
  ASSERT_OK(index_->Insert(Range(900, 1200), Rows(900, 1200)));
  EXPECT_EQ(index_->Stats().live, 800U);
  ExpectServes(123);
  ExpectServes(1100);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Addresses that the process may have: what is there now, and some.
class AddressLimit {
 public:
  explicit AddressLimit(std::size_t more) {
    std::ifstream statm("/proc/self/statm");
    std::size_t pages = 0;
    statm >> pages;
    EXPECT_EQ(::getrlimit(RLIMIT_AS, &before_), 0);
    const rlimit limit{pages * 4096 + more, before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~AddressLimit() { EXPECT_EQ(::setrlimit(RLIMIT_AS, &before_), 0); }
  AddressLimit(const AddressLimit&) = delete;
  AddressLimit& operator=(const AddressLimit&) = delete;

 private:
  rlimit before_{};
};

TEST_F(IndexFaults, ARebuildWithoutMemoryLeavesTheOldOneServing) {
  Make(20'000'000);
  ASSERT_OK(index_->Insert(Range(0, 5000), Rows(0, 5000)));
  ASSERT_OK(index_->Settle());
  index_->Tombstone(Range(1000, 5000));
  ASSERT_OK(index_->Maintain());
  ASSERT_OK(index_->Settle());
  {
    const AddressLimit limit(std::size_t{400} << 20);  // the codes alone would take 640
    // Told, and no error of Maintain, which would end the engine. Not again at once either.
    EXPECT_TRUE(test::WaitFor([&] {
      EXPECT_OK(index_->Maintain());
      return index_->Stats().rebuild_failures > 0;
    }));
    const IndexStats stats = index_->Stats();
    EXPECT_NE(stats.rebuild_failure.find("no memory"), std::string::npos) << stats.rebuild_failure;
    EXPECT_EQ(stats.rebuild_reason, "most slots are free");
    EXPECT_EQ(stats.rebuilds_begun, stats.rebuild_failures);
    EXPECT_FALSE(stats.rebuilding);
    EXPECT_EQ(stats.rebuilds, 0U);
    EXPECT_EQ(index_->LiveLabels(), Range(0, 1000));
    ExpectServes(999);
    ASSERT_OK(index_->Insert(Range(5000, 5100), Rows(5000, 5100)));
    index_->Tombstone(Range(0, 100));
    ExpectServes(5050);
  }
  EXPECT_TRUE(test::WaitFor([&] {
    EXPECT_OK(index_->Maintain());
    return index_->Stats().rebuilds > 0;
  }));
  EXPECT_EQ(index_->Stats().live, 1000U);
  ExpectServes(999);
  ExpectServes(5050);
}
#endif

TEST_F(IndexFaults, AFullDiskWhileACutIsWrittenLeavesTheIndexAndTheFileOfBefore) {
  const test::TempDir dir;
  Make(20'000);
  ASSERT_OK(index_->Insert(Range(0, 3000), Rows(0, 3000)));
  ASSERT_OK(index_->Settle());
  const std::string path = dir / "index";
  {
    const auto cut = index_->Cut();
    ASSERT_OK(cut);
    ASSERT_OK((*cut)->Write(path));
  }
  index_->Tombstone(Range(0, 1000));
  {
    const auto cut = index_->Cut();
    ASSERT_OK(cut);
    // Full from the first byte on; and so later, where it is the caller who knows.
    std::filesystem::create_symlink("/dev/full", path + ".tmp");
    EXPECT_EQ((*cut)->Write(path).code(), Code::kResourceExhausted);
    std::filesystem::remove(path + ".tmp");
    std::uint64_t written = 0;
    const Status late = (*cut)->Write(path, [&](std::uint64_t bytes) {
      written += bytes;
      return written < 100'000 ? Status::Ok() : ResourceExhausted("full");
    });
    EXPECT_EQ(late.code(), Code::kResourceExhausted);
    EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
    // It goes on meanwhile, and after.
    ASSERT_OK(index_->Insert(Range(3000, 3100), Rows(3000, 3100)));
    ExpectServes(3050);
  }
  ASSERT_OK(index_->Maintain());
  ASSERT_OK(index_->Settle());
  EXPECT_EQ(index_->Stats().consolidations, 1U) << "the cut that failed was meant to let go of what it held";
  ExpectServes(2000);
  const auto before = OpenMappedIndex(path, true);
  ASSERT_OK(before);
  EXPECT_EQ((*before)->LiveLabels(), Range(0, 3000));
}

}  // namespace
}  // namespace freshet
