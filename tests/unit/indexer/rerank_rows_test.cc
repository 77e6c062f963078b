// Re-rank rows in a file: the same answers as in memory, nothing left behind, a full disk as an error.
#include "rerank_rows.h"

#include <sys/resource.h>
#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "freshet/core/strings.h"
#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "label_range.h"

namespace freshet {
namespace {

// Files that may be no longer than this: beyond it the disk is full for us.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit limit{bytes, before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    (void)std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST(RerankRows, GrowsInAFileWithoutAName) {
  const test::TempDir dir;
  RerankRows rows(64 << 20, dir.path());
  EXPECT_TRUE(rows.in_file());
  for (const std::size_t end : {std::size_t{100}, std::size_t{5} << 20, std::size_t{64} << 20}) {
    rows.Reserve(end);
    std::memset(rows.get() + end - 100, 7, 100);
    EXPECT_EQ(rows.get()[end - 1], std::byte{7});
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_FALSE(RerankRows(1 << 20, "").in_file());
}

TEST(RerankRows, AFullDiskIsAnErrorAndNoSignal) {
  const test::TempDir dir;
  RerankRows rows(64 << 20, dir.path());
  rows.Reserve(4 << 20);
  {
    const FileSizeLimit limit(6 << 20);
    try {
      rows.Reserve((4 << 20) + 1);
      FAIL() << "there was room";
    } catch (const ScratchError& e) {
      EXPECT_EQ(e.status().code(), Code::kResourceExhausted);
      EXPECT_NE(e.status().message().find(dir.path()), std::string::npos);
    }
    std::memset(rows.get(), 1, 4 << 20);
  }
  rows.Reserve((4 << 20) + 1);
  rows.get()[4 << 20] = std::byte{1};
}

TEST(RerankDirectory, AnswersAsInMemory) {
  constexpr int kDim = 24;
  const std::uint64_t seed = test::TestSeed();
  const test::TempDir dir;
  const test::VectorSet set = test::ClusteredVectors(seed, 0, 6000, kDim, 40);
  const test::VectorSet queries = test::ClusteredVectors(seed, 1, 50, kDim, 40);
  for (const Rerank rerank : {Rerank::kFp32, Rerank::kFp16, Rerank::kResidual8}) {
    HnswOptions options;
    options.dim = kDim;
    options.m = 8;
    options.ef_construction = 60;
    options.rerank = rerank;
    std::vector<std::unique_ptr<Index>> indexes;
    for (const std::string& directory : {std::string(), dir.path()}) {
      options.rerank_directory = directory;
      auto index = MakeHnswIndex(options);
      ASSERT_OK(index);
      ASSERT_OK((*index)->Insert(Range(0, 4000), {set.Row(0), 4000 * kDim}));
      ASSERT_OK((*index)->Settle());
      (*index)->Tombstone(Range(500, 1500));
      ASSERT_OK((*index)->Maintain());
      ASSERT_OK((*index)->Settle());
      ASSERT_OK((*index)->Insert(Range(4000, 6000), {set.Row(4000), 2000 * kDim}));
      ASSERT_OK((*index)->Settle());
      indexes.push_back(std::move(*index));
    }
    EXPECT_LT(indexes[1]->Stats().memory_bytes, indexes[0]->Stats().memory_bytes);
    // Written from the file, and read back into another.
    const auto cut = indexes[1]->Cut();
    ASSERT_OK(cut);
    const std::string path = StrCat(dir.path(), "/index", static_cast<int>(rerank));
    ASSERT_OK((*cut)->Write(path));
    auto opened = OpenHnswIndex(path, options);
    ASSERT_OK(opened);
    std::filesystem::remove(path);
    EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
    indexes.push_back(std::move(*opened));
    for (const bool exact : {false, true}) {
      SearchOptions search;
      search.k = 20;
      search.exact = exact;
      for (std::size_t i = 0; i < queries.size; ++i) {
        std::vector<std::vector<Hit>> answers;
        for (const auto& index : indexes) {
          const auto hits = index->Search({queries.Row(i), kDim}, search);
          ASSERT_OK(hits);
          answers.push_back(*hits);
        }
        for (const std::vector<Hit>& answer : answers) {
          ASSERT_TRUE(std::equal(answer.begin(), answer.end(), answers[0].begin(), answers[0].end(),
                                 [](const Hit& a, const Hit& b) { return a.label == b.label && a.score == b.score; }));
        }
      }
    }
  }
}

TEST(RerankDirectory, OneThatIsNotThereIsRefused) {
  HnswOptions options;
  options.dim = 8;
  options.rerank_directory = "/nowhere/at/all";
  EXPECT_EQ(MakeHnswIndex(options).status().code(), Code::kIoError);
}

// A row is 4 KB here, so that a piece of the file is 1,024 rows.
TEST(RerankDirectory, AFullDiskRefusesRowsAndARebuildAndTheOldOnesServe) {
  constexpr int kDim = 1024;
  const test::TempDir dir;
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 5200, kDim, 40);
  HnswOptions options;
  options.dim = kDim;
  options.m = 4;
  options.ef_construction = 8;
  options.rerank = Rerank::kFp32;
  options.rerank_directory = dir.path();
  auto made = MakeHnswIndex(options);
  ASSERT_OK(made);
  Index& index = **made;
  const auto rows = [&](std::size_t begin, std::size_t end) {
    return std::span<const float>(set.Row(begin), (end - begin) * kDim);
  };
  const auto is_found = [&](Label label) {
    SearchOptions search;
    search.k = 1;
    search.exact = true;
    const auto hits = index.Search(rows(label, label + 1), search);
    EXPECT_OK(hits);
    return hits->size() == 1 && hits->front().label == label;
  };
  ASSERT_OK(index.Insert(Range(0, 5000), rows(0, 5000)));
  ASSERT_OK(index.Settle());
  {
    const FileSizeLimit limit(4 << 20);
    EXPECT_EQ(index.Insert(Range(5000, 5200), rows(5000, 5200)).code(), Code::kResourceExhausted);
    EXPECT_EQ(index.LiveLabels(), Range(0, 5000)) << "all or nothing";
    // One of them that is live keeps a row, its old one, or the new one where some of the first 120 are free again by
    // now: they are equal here. (200 do not fit in any case.)
    std::vector<Label> one_is_live = Range(5000, 5200);
    one_is_live[0] = 77;
    std::vector<float> vectors(set.Row(5000), set.Row(5000) + 200 * kDim);
    std::copy_n(set.Row(77), kDim, vectors.begin());
    EXPECT_EQ(index.Insert(one_is_live, vectors).code(), Code::kResourceExhausted);
    EXPECT_TRUE(is_found(77));
    // Enough for a rebuild, whose file would have to be of 6 MB.
    index.Tombstone(Range(1500, 5000));
    ASSERT_OK(index.Maintain());
    ASSERT_OK(index.Settle());
    EXPECT_TRUE(test::WaitFor([&] {
      EXPECT_OK(index.Maintain());
      return index.Stats().rebuild_failures > 0;
    }));
    EXPECT_NE(index.Stats().rebuild_failure.find(dir.path()), std::string::npos) << index.Stats().rebuild_failure;
    EXPECT_EQ(index.Stats().rebuilds, 0U);
    EXPECT_TRUE(is_found(1234));
    ASSERT_OK(index.Insert(Range(5000, 5001), rows(5000, 5001)));  // into room that is free again
    EXPECT_TRUE(is_found(5000));
  }
  EXPECT_TRUE(test::WaitFor([&] {
    EXPECT_OK(index.Maintain());
    return index.Stats().rebuilds > 0;
  }));
  EXPECT_TRUE(is_found(1234));
  EXPECT_TRUE(is_found(5000));
  EXPECT_EQ(index.Stats().live, 1501U);
}

}  // namespace
}  // namespace freshet
