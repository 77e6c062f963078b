// Index files: what is written is read back, and what is damaged is refused by name.
#include "index_file.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "freshet/core/file.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "label_range.h"

namespace freshet {
namespace {

constexpr int kDim = 24;

HnswOptions Options(Rerank rerank = Rerank::kResidual8) {
  HnswOptions options;
  options.dim = kDim;
  options.m = 8;
  options.ef_construction = 60;
  options.capacity = 50'000;
  options.rerank = rerank;
  return options;
}

std::unique_ptr<Index> Made(const HnswOptions& options) {
  auto index = MakeHnswIndex(options);
  EXPECT_OK(index);
  return std::move(*index);
}

std::span<const float> Rows(const test::VectorSet& set, std::size_t begin, std::size_t end) {
  return {set.Row(begin), (end - begin) * kDim};
}

Status WriteTo(Index* index, const std::string& path) {
  FRESHET_ASSIGN(const std::unique_ptr<IndexCut> cut, index->Cut());
  return cut->Write(path);
}

// Exact searches agree in everything. Others nearly do: how wide they are is told by a sample of slots, which a file
// numbers anew.
void ExpectSameAnswers(const Index& a, const Index& b, const test::VectorSet& queries) {
  ASSERT_EQ(a.LiveLabels(), b.LiveLabels());
  for (const bool exact : {false, true}) {
    SearchOptions options;
    options.k = 20;
    options.ef = 40;
    options.exact = exact;
    std::size_t same = 0;
    for (std::size_t i = 0; i < queries.size; ++i) {
      const auto one = a.Search(Rows(queries, i, i + 1), options);
      const auto other = b.Search(Rows(queries, i, i + 1), options);
      ASSERT_OK(one);
      ASSERT_OK(other);
      ASSERT_EQ(one->size(), other->size());
      for (std::size_t j = 0; j < one->size(); ++j) {
        same += (*one)[j].label == (*other)[j].label && (*one)[j].score == (*other)[j].score ? 1 : 0;
      }
    }
    EXPECT_GE(same, queries.size * options.k * (exact ? 20 : 18) / 20);
  }
}

class IndexFileTest : public ::testing::TestWithParam<Rerank> {
 protected:
  const test::TempDir dir_;
};

// With tombstones, copies of one vector, slots used again and free ones.
TEST_P(IndexFileTest, IsReadBackAndMappedAsItWas) {
  const std::uint64_t seed = test::TestSeed();
  test::VectorSet set = test::ClusteredVectors(seed, 0, 4000, kDim, 30);
  const test::VectorSet queries = test::ClusteredVectors(seed, 1, 30, kDim, 30);
  for (std::size_t i = 1; i < 50; ++i) {
    std::copy_n(set.Row(0), kDim, set.values.begin() + static_cast<std::ptrdiff_t>(i * kDim));
  }
  auto index = Made(Options(GetParam()));
  ASSERT_OK(index->Insert(Range(0, 3000), Rows(set, 0, 3000)));
  ASSERT_OK(index->Settle());
  index->Tombstone(Range(20, 900));
  ASSERT_OK(index->Maintain());
  ASSERT_OK(index->Settle());
  ASSERT_OK(index->Insert(Range(3000, 4000), Rows(set, 3000, 4000)));
  ASSERT_OK(index->Settle());
  index->Tombstone(Range(1000, 1100));

  const std::string path = dir_.path() + "/index";
  ASSERT_OK(WriteTo(index.get(), path));
  auto opened = OpenHnswIndex(path, Options(GetParam()));
  ASSERT_OK(opened);
  ExpectSameAnswers(*index, **opened, queries);
  auto mapped = OpenMappedIndex(path, true);
  ASSERT_OK(mapped);
  ExpectSameAnswers(*index, **mapped, queries);
  EXPECT_EQ((*mapped)->Insert(Range(9, 10), Rows(set, 0, 1)).code(), Code::kFailedPrecondition);

  // What was opened goes on: adds, tombstones, the dead out of the graph, and a file again.
  const std::vector<Label> again = Range(5000, 6000);
  ASSERT_OK((*opened)->Insert(again, Rows(set, 0, 1000)));
  (*opened)->Tombstone(Range(1100, 2500));
  ASSERT_OK((*opened)->Maintain());
  ASSERT_OK((*opened)->Settle());
  EXPECT_EQ((*opened)->Stats().consolidations, 1U);
  ASSERT_OK(WriteTo(opened->get(), path + "2"));
  auto third = OpenHnswIndex(path + "2", Options(GetParam()));
  ASSERT_OK(third);
  ExpectSameAnswers(**opened, **third, queries);
}

// What a list leads to lies near it, although the rows came in any order: so rows of one search share pages and lines.
TEST(IndexFile, RowsAreInGraphOrder) {
  const test::TempDir dir;
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 6000, kDim, 60);
  auto index = Made(Options());
  ASSERT_OK(index->Insert(Range(0, 6000), Rows(set, 0, 6000)));
  ASSERT_OK(index->Settle());
  const std::string path = dir.path() + "/index";
  ASSERT_OK(WriteTo(index.get(), path));
  const auto file = IndexFile::Open(path, true);
  ASSERT_OK(file);
  std::size_t links = 0;
  std::size_t near = 0;
  for (std::uint32_t slot = 0; slot < 6000; ++slot) {
    const std::uint32_t* list = (*file)->Links(slot);
    for (std::uint32_t i = 1; i <= list[0]; ++i) {
      ++links;
      near += (list[i] > slot ? list[i] - slot : slot - list[i]) <= 100 ? 1 : 0;
    }
  }
  // In the order they came it is 1 in 30.
  EXPECT_GT(near * 8, links);
  // Labels went with their rows.
  auto opened = OpenMappedIndex(path, true);
  ASSERT_OK(opened);
  SearchOptions options;
  options.k = 1;
  options.exact = true;
  for (std::size_t i = 0; i < 6000; i += 97) {
    const auto found = (*opened)->Search(Rows(set, i, i + 1), options);
    ASSERT_OK(found);
    EXPECT_EQ(found->front().label, i);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, IndexFileTest, ::testing::Values(Rerank::kFp32, Rerank::kFp16, Rerank::kResidual8));

TEST(IndexFile, AnEmptyOneAndOneOfDeadRowsOnly) {
  const test::TempDir dir;
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 400, kDim, 5);
  auto index = Made(Options());
  for (const char* name : {"/empty", "/dead"}) {
    ASSERT_OK(WriteTo(index.get(), dir.path() + name));
    auto opened = OpenHnswIndex(dir.path() + name, Options());
    ASSERT_OK(opened);
    EXPECT_EQ((*opened)->Stats().live, 0U);
    SearchOptions options;
    options.k = 3;
    const auto none = (*opened)->Search(Rows(set, 0, 1), options);
    ASSERT_OK(none);
    EXPECT_TRUE(none->empty());
    ASSERT_OK((*opened)->Insert(Range(1000, 1001), Rows(set, 7, 8)));
    const auto one = (*opened)->Search(Rows(set, 0, 1), options);
    ASSERT_OK(one);
    EXPECT_EQ(one->size(), 1U);
    ASSERT_OK(index->Insert(Range(0, 400), set.values));
    ASSERT_OK(index->Settle());
    index->Tombstone(Range(0, 400));
  }
}

// A cut is one moment: what came or went while it was written is not in it.
TEST(IndexFile, ACutIsOneMomentWhileTheIndexGoesOn) {
  const test::TempDir dir;
  const std::uint64_t seed = test::TestSeed();
  const test::VectorSet set = test::ClusteredVectors(seed, 0, 12'000, kDim, 30);
  const test::VectorSet queries = test::ClusteredVectors(seed, 1, 30, kDim, 30);
  auto index = Made(Options());
  ASSERT_OK(index->Insert(Range(0, 2000), Rows(set, 0, 2000)));
  Label next = 2000;
  Label oldest = 0;
  for (int round = 0; round < 6; ++round) {
    const auto advance = [&] {
      ASSERT_OK(index->Insert(Range(next, next + 1), Rows(set, next, next + 1)));
      index->Tombstone(Range(oldest, oldest + 1));
      ++next;
      ++oldest;
      ASSERT_OK(index->Maintain());
    };
    for (int i = 0; i < 700; ++i) advance();
    auto cut = index->Cut();
    ASSERT_OK(cut);
    const std::vector<Label> then = index->LiveLabels();
    const std::string path = dir.path() + "/" + std::to_string(round);
    std::thread writer([&] { EXPECT_OK((*cut)->Write(path)); });
    for (int i = 0; i < 700; ++i) advance();
    writer.join();
    cut->reset();
    auto opened = OpenHnswIndex(path, Options());
    ASSERT_OK(opened);
    EXPECT_EQ((*opened)->LiveLabels(), then);
    ASSERT_OK((*opened)->Settle());
    // What is in the file is found in it.
    auto flat = MakeFlatIndex(kDim, Metric::kCosine);
    for (const Label label : then) ASSERT_OK(flat->Insert({&label, 1}, Rows(set, label, label + 1)));
    SearchOptions options;
    options.k = 10;
    options.ef = 80;
    double found = 0;
    for (std::size_t i = 0; i < queries.size; ++i) {
      const auto answer = (*opened)->Search(Rows(queries, i, i + 1), options);
      const auto exact = flat->Search(Rows(queries, i, i + 1), options);
      ASSERT_OK(answer);
      ASSERT_OK(exact);
      for (const Hit& hit : *answer) {
        found += std::any_of(exact->begin(), exact->end(), [&](const Hit& e) { return e.label == hit.label; }) ? 1 : 0;
      }
    }
    EXPECT_GE(found, 0.95 * 10 * static_cast<double>(queries.size));
  }
  ASSERT_OK(index->Settle());
  EXPECT_GE(index->Stats().consolidations, 1U);
}

TEST(IndexFile, OfOtherOptionsIsRefused) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/index";
  auto index = Made(Options());
  ASSERT_OK(index->Insert(Range(0, 100), test::ClusteredVectors(test::TestSeed(), 0, 100, kDim, 5).values));
  ASSERT_OK(WriteTo(index.get(), path));
  HnswOptions other = Options();
  other.dim = kDim + 1;
  EXPECT_EQ(OpenHnswIndex(path, other).status().code(), Code::kFailedPrecondition);
  other = Options();
  other.metric = Metric::kL2;
  EXPECT_EQ(OpenHnswIndex(path, other).status().code(), Code::kFailedPrecondition);
  other = Options();
  other.m = 16;
  EXPECT_EQ(OpenHnswIndex(path, other).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(OpenHnswIndex(path, Options(Rerank::kFp16)).status().code(), Code::kFailedPrecondition);
  other = Options();
  other.capacity = 64;
  EXPECT_EQ(OpenHnswIndex(path, other).status().code(), Code::kResourceExhausted);
  EXPECT_EQ(OpenHnswIndex(path + "-not-there", Options()).status().code(), Code::kNotFound);
}

TEST(IndexFile, AFullDiskIsAnErrorAndLeavesNothing) {
  auto index = Made(Options());
  ASSERT_OK(index->Insert(Range(0, 100), test::ClusteredVectors(test::TestSeed(), 0, 100, kDim, 5).values));
  const test::TempDir dir;
  auto cut = index->Cut();
  ASSERT_OK(cut);
  const std::string path = dir.path() + "/index";
  std::filesystem::create_symlink("/dev/full", path + ".tmp");
  EXPECT_EQ((*cut)->Write(path).code(), Code::kResourceExhausted);
  EXPECT_FALSE(FileExists(path));
  // Told to stop: the same.
  std::filesystem::remove(path + ".tmp");
  EXPECT_EQ((*cut)->Write(path, [](std::uint64_t) { return Unavailable("enough"); }).code(), Code::kUnavailable);
  EXPECT_FALSE(FileExists(path));
  EXPECT_FALSE(FileExists(path + ".tmp"));
  ASSERT_OK((*cut)->Write(path));
}

// Every byte of the header, and random ones of everything else: refused, or, where a mapped file is not read whole, no
// crash. FRESHET_MUTANTS: how many.
TEST(IndexFile, DamageIsRefusedByName) {
  const test::TempDir dir;
  const std::uint64_t seed = test::TestSeed();
  const test::VectorSet set = test::ClusteredVectors(seed, 0, 600, kDim, 10);
  auto index = Made(Options());
  ASSERT_OK(index->Insert(Range(0, 600), set.values));
  ASSERT_OK(index->Settle());
  index->Tombstone(Range(10, 20));
  const std::string path = dir.path() + "/index";
  ASSERT_OK(WriteTo(index.get(), path));
  const auto whole = ReadFile(path);
  ASSERT_OK(whole);
  const char* wanted = std::getenv("FRESHET_MUTANTS");
  const std::size_t mutants = wanted != nullptr ? std::stoul(wanted) : 2000;
  std::mt19937_64 random(seed);
  const std::string damaged = dir.path() + "/damaged";
  for (std::size_t i = 0; i < mutants; ++i) {
    std::string bytes = *whole;
    const std::size_t kind = random() % 8;
    if (kind == 0) {
      bytes.resize(random() % bytes.size());
    } else if (kind == 1) {
      bytes.append(random() % 9000 + 1, '\0');
    } else {
      // Half of them in the header.
      const std::size_t at =
          i < 4 * sizeof(IndexFileHeader) && i % 2 == 0 ? i / 2 % sizeof(IndexFileHeader) : random() % bytes.size();
      bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1U << (random() % 8)));
    }
    std::ofstream(damaged, std::ios::binary | std::ios::trunc) << bytes;  // no fsync: there are thousands
    const auto opened = OpenHnswIndex(damaged, Options());
    if (opened.ok()) {
      // The padding between sections is all that may differ.
      ASSERT_EQ((*opened)->LiveLabels(), index->LiveLabels());
    } else {
      ASSERT_TRUE(opened.status().code() == Code::kCorruption || opened.status().code() == Code::kFailedPrecondition);
      ASSERT_NE(opened.status().ToString().find(damaged), std::string::npos);
    }
    // What is mapped is checked as well, where that is wanted.
    const auto verified = OpenMappedIndex(damaged, true);
    ASSERT_EQ(verified.status().ToString(), opened.status().ToString());
    if (i % 4 != 0) continue;
    const auto mapped = OpenMappedIndex(damaged, false);
    if (!mapped.ok()) continue;
    SearchOptions options;
    options.k = 1 + random() % 50;
    const std::size_t row = random() % set.size;
    (void)(*mapped)->Search(Rows(set, row, row + 1), options);
  }
}

}  // namespace
}  // namespace freshet
