// No memory, for callers and for the worker: an error, nothing lost, and all as it should be when there is some again.
#include <algorithm>
#include <set>

#include "failing_allocations.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index_builder.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "label_range.h"

namespace freshet {
namespace {

using test::FailAllocations;

constexpr int kDim = 24;

class IndexMemory : public ::testing::Test {
 protected:
  [[nodiscard]] std::span<const float> Rows(std::size_t begin, std::size_t end) const {
    return {set_.Row(begin), (end - begin) * kDim};
  }
  [[nodiscard]] static HnswOptions Options() {
    HnswOptions options;
    options.dim = kDim;
    options.m = 6;
    options.ef_construction = 40;
    options.capacity = 50'000;
    return options;
  }
  [[nodiscard]] static std::unique_ptr<Index> Hnsw(const HnswOptions& options = Options()) {
    auto index = MakeHnswIndex(options);
    EXPECT_OK(index);
    return std::move(*index);
  }
  // As an exact search says; and the label whose vector it is first, if it is live.
  [[nodiscard]] static std::vector<Label> Nearest(const Index& index, std::span<const float> query) {
    SearchOptions options;
    options.k = 3;
    options.exact = true;
    const auto hits = index.Search(query, options);
    EXPECT_OK(hits);
    std::vector<Label> labels;
    for (const Hit& hit : *hits) labels.push_back(hit.label);
    return labels;
  }
  // The graph is whole: a file of it passes every check, all can be reached, and searches find what is there.
  void ExpectWhole(Index* index, const std::vector<Label>& live) {
    EXPECT_TRUE(test::WaitFor([&] { return index->Stats().fresh == 0 && index->Settle().ok(); }));
    EXPECT_EQ(index->LiveLabels(), live);
    const std::string path = dir_ / "index";
    {
      const auto cut = index->Cut();
      ASSERT_OK(cut);
      ASSERT_OK((*cut)->Write(path));
    }
    const auto mapped = OpenMappedIndex(path, true);
    ASSERT_OK(mapped);
    EXPECT_EQ((*mapped)->LiveLabels(), live);
    ASSERT_OK(index->Audit({}));
    ASSERT_OK(index->Settle());
    SearchOptions options;
    options.k = 1;
    options.ef = 40;
    std::size_t found = 0;
    for (const Label label : live) {
      const auto hits = index->Search(Rows(label % set_.size, label % set_.size + 1), options);
      ASSERT_OK(hits);
      found += !hits->empty() && hits->front().label == label ? 1 : 0;
    }
    EXPECT_GE(100 * found, 97 * live.size());
  }

  const test::TempDir dir_;
  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, 6000, kDim, 40);
};

// What is there is asked for ever more of the memory that a search wants, until it has all of it. A thread of its own
// each time would have nothing; here what it keeps from search to search has grown already.
TEST_F(IndexMemory, ASearchWithoutMemoryIsAnError) {
  std::vector<std::unique_ptr<Index>> indexes;
  indexes.push_back(Hnsw());
  indexes.push_back(MakeFlatIndex(kDim, Metric::kCosine));
  for (const auto& index : indexes) {
    ASSERT_OK(index->Insert(Range(0, 3000), Rows(0, 3000)));
    ASSERT_OK(index->Settle());
    for (const bool many : {false, true}) {
      SearchOptions options;
      options.k = 5;
      std::size_t failures = 0;
      for (std::size_t after = 0;; ++after) {
        Status status;
        {
          const FailAllocations failing(FailAllocations::Of::kThisThread, after);
          status =
              many ? index->SearchMany(Rows(0, 20), options).status() : index->Search(Rows(0, 1), options).status();
        }
        if (status.ok()) break;
        ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
        ++failures;
      }
      EXPECT_GT(failures, 0U);
    }
    EXPECT_EQ(Nearest(*index, Rows(7, 8)).front(), 7U);
  }
}

TEST_F(IndexMemory, AWarmSearchAllocatesItsAnswerAlone) {
  const auto index = Hnsw();
  ASSERT_OK(index->Insert(Range(0, 4000), Rows(0, 4000)));
  ASSERT_OK(index->Settle());
  SearchOptions options;
  options.k = 10;
  for (int i = 0; i < 100; ++i) ASSERT_OK(index->Search(Rows(0, 1), options));
  const std::uint64_t before = test::AllocationsOfThisThread();
  bool ok = true;
  for (int i = 0; i < 100; ++i) ok = index->Search(Rows(0, 1), options).ok() && ok;
  EXPECT_LE(test::AllocationsOfThisThread() - before, 100U);
  EXPECT_TRUE(ok);
}

// All of a batch or nothing, and what was there stays, also the row of a label that comes again.
TEST_F(IndexMemory, AnInsertWithoutMemoryLosesNothing) {
  std::vector<std::unique_ptr<Index>> indexes;
  indexes.push_back(Hnsw());
  indexes.push_back(MakeFlatIndex(kDim, Metric::kCosine));
  for (const auto& index : indexes) {
    std::vector<Label> live;
    std::size_t failures = 0;
    for (Label next = 0; next < 5000; next += 20) {
      // The first of a batch has a vector already: it gets that of `next`.
      std::vector<Label> labels = Range(next, next + 20);
      const bool again = next > 0;
      if (again) labels[0] = next - 1;
      Status status = ResourceExhausted("");
      for (std::size_t after = 0; !status.ok(); ++after) {
        {
          const FailAllocations failing(FailAllocations::Of::kThisThread, after);
          status = index->Insert(labels, Rows(next, next + 20));
        }
        if (status.ok()) break;
        ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
        ++failures;
        ASSERT_EQ(index->LiveLabels(), live);
        ASSERT_EQ(index->Stats().live, live.size());
      }
      live.insert(live.end(), labels.begin() + (again ? 1 : 0), labels.end());
      ASSERT_EQ(index->LiveLabels(), live);
      ASSERT_EQ(Nearest(*index, Rows(next, next + 1)).front(), labels[0]);
      ASSERT_EQ(Nearest(*index, Rows(next + 19, next + 20)).front(), labels[19]);
    }
    EXPECT_GT(failures, 5U);
  }
}

// An error, nothing half-written, and nothing of the index is held any more.
TEST_F(IndexMemory, ACutWithoutMemoryIsAnErrorAndLeavesNoPart) {
  std::vector<std::unique_ptr<Index>> indexes;
  indexes.push_back(Hnsw());
  indexes.push_back(MakeFlatIndex(kDim, Metric::kCosine));
  for (const auto& index : indexes) {
    const std::string path = dir_ / StrCat("an-index-of-", indexes.front() == index ? "hnsw" : "flat");
    ASSERT_OK(index->Insert(Range(0, 1500), Rows(0, 1500)));
    ASSERT_OK(index->Settle());
    std::unique_ptr<IndexCut> cut;
    std::size_t failures = 0;
    for (std::size_t after = 0; cut == nullptr; ++after) {
      const FailAllocations failing(FailAllocations::Of::kThisThread, after);
      auto made = index->Cut();
      if (made.ok()) {
        cut = std::move(*made);
      } else {
        failures += made.status().code() == Code::kResourceExhausted ? 1 : 0;
      }
      ASSERT_EQ(failures, after + (cut == nullptr ? 1 : 0)) << made.status().ToString();
    }
    EXPECT_GT(failures, 1U);
    failures = 0;
    for (std::size_t after = 0;; ++after) {
      Status status;
      {
        const FailAllocations failing(FailAllocations::Of::kThisThread, after);
        status = cut->Write(path);
      }
      ASSERT_FALSE(FileExists(path + ".tmp"));
      if (status.ok()) break;
      ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
      ++failures;
      // After it was renamed it is whole, though its name may not last.
      if (FileExists(path)) ASSERT_OK(OpenIndexFile(path, OpenAs::kMapped, true));
    }
    EXPECT_GT(failures, 10U);
    cut = nullptr;
    const auto opened = OpenIndexFile(path, OpenAs::kMapped, true);
    ASSERT_OK(opened);
    EXPECT_EQ((*opened)->LiveLabels(), Range(0, 1500));
    // No slot stays pinned by a cut that was none.
    index->Tombstone(Range(0, 700));
    ASSERT_OK(index->Maintain());
    ASSERT_OK(index->Settle());
    EXPECT_EQ(index->Stats().tombstones, 0U);
  }
}

class IndexMemoryOfTheWorker : public IndexMemory, public ::testing::WithParamInterface<std::size_t> {};

// It waits, rows gather and are refused in the end, and it goes on by itself.
TEST_P(IndexMemoryOfTheWorker, LinkingGoesOnWhenThereIsSomeAgain) {
  HnswOptions options = Options();
  options.max_fresh = 512;
  options.link_threads = GetParam();
  const auto index = Hnsw(options);
  ASSERT_OK(index->Insert(Range(0, 1500), Rows(0, 1500)));
  ASSERT_OK(index->Settle());
  Label next = 1500;
  {
    const FailAllocations failing(FailAllocations::Of::kOtherThreads, 0);
    Status status;
    for (; status.ok() && next < 6000; ++next) status = index->Insert(Range(next, next + 1), Rows(next, next + 1));
    EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
    --next;
    EXPECT_EQ(index->Settle().code(), Code::kResourceExhausted);
    EXPECT_OK(index->Maintain());
    EXPECT_GT(index->Stats().failures, 0U);
    EXPECT_FALSE(index->Stats().failure.empty());
    // It serves, and what it cannot link is found as well.
    EXPECT_EQ(Nearest(*index, Rows(next - 1, next)).front(), next - 1);
    index->Tombstone(Range(100, 200));
  }
  EXPECT_TRUE(test::WaitFor([&] { return index->Stats().fresh == 0; }));
  ASSERT_OK(index->Insert(Range(next, next + 400), Rows(next, next + 400)));
  std::vector<Label> live = Range(0, 100);
  for (Label label = 200; label < next + 400; ++label) live.push_back(label);
  ExpectWhole(index.get(), live);
}

// One allocation fails, each time another one, while it links, takes out the dead and frees their slots.
TEST_P(IndexMemoryOfTheWorker, WhateverAllocationFailsTheGraphStaysWhole) {
  HnswOptions options = Options();
  options.link_threads = GetParam();
  const auto index = Hnsw(options);
  ASSERT_OK(index->Insert(Range(0, 1500), Rows(0, 1500)));
  ASSERT_OK(index->Settle());
  Label oldest = 0;
  Label next = 1500;
  std::size_t failed = 0;
  for (std::size_t after = 0; after < 120; ++after) {
    {
      const FailAllocations failing(FailAllocations::Of::kOtherThreads, after, FailAllocations::Times::kOnce);
      const std::size_t at = next % 5900;
      ASSERT_OK(index->Insert(Range(next, next + 70), Rows(at, at + 70)));
      index->Tombstone(Range(oldest, oldest + 70));
      ASSERT_OK(index->Maintain());
      ASSERT_TRUE(test::WaitFor([&] { return index->Settle().ok(); }));
      failed += failing.failed() ? 1 : 0;
    }
    next += 70;
    oldest += 70;
    ASSERT_EQ(index->LiveLabels(), Range(oldest, next));
  }
  EXPECT_GT(failed, 10U);
  EXPECT_GT(index->Stats().consolidations, 5U);
  EXPECT_LT(index->Stats().slots, 4000U) << "slots were lost";
  // Of labels' vectors in ExpectWhole(): row % 5900 here, % 6000 there. Nothing but files, counts and reach is
  // compared.
  const auto health = index->Audit({});
  ASSERT_OK(health);
  ASSERT_OK(index->Settle());
  const auto after = index->Audit({});
  ASSERT_OK(after);
  EXPECT_EQ(after->unreachable, 0U);
  EXPECT_GE(after->recall, 0.9);
  const auto cut = index->Cut();
  ASSERT_OK(cut);
  ASSERT_OK((*cut)->Write(dir_ / "index"));
  const auto mapped = OpenMappedIndex(dir_ / "index", true);
  ASSERT_OK(mapped);
  EXPECT_EQ((*mapped)->LiveLabels(), Range(oldest, next));
}

INSTANTIATE_TEST_SUITE_P(Threads, IndexMemoryOfTheWorker, ::testing::Values(1, 3));

// Before there is anything of it, and in the middle.
TEST_F(IndexMemory, ARebuildThatFailsLeavesTheOldOne) {
  HnswOptions options = Options();
  options.link_threads = 2;
  const auto index = Hnsw(options);
  ASSERT_OK(index->Insert(Range(0, 5000), Rows(0, 5000)));
  ASSERT_OK(index->Settle());
  index->Tombstone(Range(1500, 5000));
  ASSERT_OK(index->Maintain());
  ASSERT_OK(index->Settle());
  for (const std::size_t after : {0U, 30U}) {
    const std::size_t before = index->Stats().rebuild_failures;
    const FailAllocations failing(FailAllocations::Of::kOtherThreads, after, FailAllocations::Times::kOnce);
    EXPECT_TRUE(test::WaitFor([&] {
      EXPECT_OK(index->Maintain());
      return index->Stats().rebuild_failures > before || index->Stats().rebuilds > 0;
    }));
    if (after == 0) {
      EXPECT_EQ(index->Stats().rebuild_failures, 1U);
      EXPECT_FALSE(index->Stats().rebuild_failure.empty());
    }
  }
  EXPECT_TRUE(test::WaitFor([&] {
    EXPECT_OK(index->Maintain());
    return index->Stats().rebuilds > 0;
  }));
  const IndexStats stats = index->Stats();
  EXPECT_EQ(stats.rebuilds_begun, stats.rebuilds + stats.rebuild_failures);
  EXPECT_EQ(stats.failures, 0U) << stats.failure;
  ExpectWhole(index.get(), Range(0, 1500));
}

}  // namespace
}  // namespace freshet
