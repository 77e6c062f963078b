// The exact kind: the oracle of all other tests, so it has to be right by itself.
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/indexer/index.h"
#include "freshet/indexer/index_builder.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr int kDim = 2;

std::vector<Label> Found(const Index& index, std::vector<float> query, std::size_t k) {
  SearchOptions options;
  options.k = k;
  const auto hits = index.Search(query, options);
  EXPECT_OK(hits);
  std::vector<Label> labels;
  for (const Hit& hit : *hits) labels.push_back(hit.label);
  return labels;
}

TEST(FlatIndex, SearchesWithoutAPauseDoNotKeepWritersOut) {
  constexpr std::size_t kRows = 50'000;
  const auto index = MakeFlatIndex(kDim, Metric::kL2);
  std::vector<Label> labels(kRows);
  std::iota(labels.begin(), labels.end(), Label{0});
  ASSERT_OK(index->Insert(labels, std::vector<float>(kRows * kDim, 1)));
  std::atomic<bool> stop{false};
  std::atomic<int> searches{0};
  std::atomic<int> inserted{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (; !stop; ++searches) (void)Found(*index, {0, 0}, 10);
    });
  }
  threads.emplace_back([&] {
    for (; !stop && inserted < 20; ++inserted) {
      const Label label = kRows + static_cast<Label>(inserted);
      EXPECT_OK(index->Insert({&label, 1}, std::vector<float>(kDim, 2)));
    }
  });
  EXPECT_TRUE(test::WaitFor([&] { return inserted == 20; }));
  EXPECT_GT(searches, 0);
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

// As hnsw does: a label has one row, its last.
TEST(FlatIndex, ALabelThatComesAgainIsReplaced) {
  HnswOptions options;
  options.dim = kDim;
  options.metric = Metric::kL2;
  auto hnsw = MakeHnswIndex(options);
  ASSERT_OK(hnsw);
  auto flat = MakeFlatIndex(kDim, Metric::kL2);
  for (Index* index : {hnsw->get(), flat.get()}) {
    ASSERT_OK(index->Insert(std::vector<Label>{1, 2, 3}, std::vector<float>{0, 0, 5, 5, 9, 9}));
    // Of one that was there, and twice in one batch.
    ASSERT_OK(index->Insert(std::vector<Label>{1, 4, 4}, std::vector<float>{8, 8, 0, 0, 4, 4}));
    EXPECT_EQ(index->LiveLabels(), (std::vector<Label>{1, 2, 3, 4}));
    EXPECT_EQ(index->Stats().live, 4U);
    EXPECT_EQ(Found(*index, {0, 0}, 9), (std::vector<Label>{4, 2, 1, 3}));
    index->Tombstone(std::vector<Label>{1, 4, 7});
    EXPECT_EQ(Found(*index, {0, 0}, 9), (std::vector<Label>{2, 3}));
  }
}

// Sums of both infinities, which are no number.
TEST(FlatIndex, NumbersTooLargeToMultiplyAreLast) {
  constexpr std::size_t kWide = 64;  // so that each gathers in a lane of its own
  const float huge = std::numeric_limits<float>::max();
  auto flat = MakeFlatIndex(kWide, Metric::kInnerProduct);
  std::vector<float> vectors(3 * kWide, 1.0F);
  for (std::size_t i = 0; i < kWide; ++i) vectors[i] = i % 2 == 0 ? huge : -huge;
  ASSERT_OK(flat->Insert(std::vector<Label>{1, 2, 3}, vectors));
  EXPECT_EQ(Found(*flat, std::vector<float>(kWide, huge), 3), (std::vector<Label>{2, 3, 1}));
}

class FlatFile : public ::testing::Test {
 protected:
  FlatFile() {
    std::mt19937_64 random(seed_);
    std::normal_distribution<float> normal;
    index_ = MakeFlatIndex(kDim, Metric::kL2);
    for (Label label = 0; label < 50; ++label) {
      EXPECT_OK(index_->Insert({&label, 1}, std::vector<float>{normal(random), normal(random)}));
    }
    const auto cut = index_->Cut();
    EXPECT_OK(cut);
    EXPECT_OK((*cut)->Write(path_));
    const auto bytes = ReadFile(path_);
    EXPECT_OK(bytes);
    whole_ = *bytes;
  }
  // With the checksum of what it is now.
  Result<std::unique_ptr<Index>> OpenChanged(std::string bytes, bool correct = true) {
    if (correct && bytes.size() >= 8) {
      const std::uint64_t sum = Xxh3(std::string_view(bytes).substr(0, bytes.size() - 8));
      std::memcpy(bytes.data() + bytes.size() - 8, &sum, sizeof(sum));
    }
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    return OpenFlatIndex(path_, kDim, Metric::kL2);
  }
  template <typename T>
  [[nodiscard]] std::string With(std::size_t at, T value) const {
    std::string bytes = whole_;
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    return bytes;
  }

  const std::uint64_t seed_ = test::TestSeed();
  const test::TempDir dir_;
  const std::string path_ = dir_ / "flat";
  std::unique_ptr<Index> index_;
  std::string whole_;
  // Where things are: magic (a length, 15 bytes), dimension, metric ("l2"), count, labels, vectors.
  static constexpr std::size_t kCount = 4 + 15 + 4 + 4 + 2;
  static constexpr std::size_t kLabels = kCount + 8;
  static constexpr std::size_t kVectors = kLabels + 50 * 8;
};

TEST_F(FlatFile, IsReadBack) {
  const auto opened = OpenChanged(whole_);
  ASSERT_OK(opened);
  EXPECT_EQ((*opened)->LiveLabels(), index_->LiveLabels());
  EXPECT_EQ(Found(**opened, {0.1F, 0.2F}, 50), Found(*index_, {0.1F, 0.2F}, 50));
  EXPECT_EQ(OpenFlatIndex(path_, kDim, Metric::kCosine).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(OpenFlatIndex(path_, kDim + 1, Metric::kL2).status().code(), Code::kFailedPrecondition);
}

TEST_F(FlatFile, WritingThatIsEndedLeavesNoFile) {
  const std::string path = dir_ / "other";
  const auto cut = index_->Cut();
  ASSERT_OK(cut);
  std::uint64_t told = 0;
  const Status status = (*cut)->Write(path, [&](std::uint64_t bytes) {
    told += bytes;
    return Cancelled("enough");
  });
  EXPECT_EQ(status.code(), Code::kCancelled) << status.ToString();
  EXPECT_EQ(told, whole_.size());
  EXPECT_FALSE(FileExists(path));
  EXPECT_FALSE(FileExists(path + ".tmp"));
}

TEST_F(FlatFile, WhatIsWrongBehindARightChecksumIsRefused) {
  ASSERT_EQ(whole_.size(), kVectors + 50 * kDim * 4 + 8);
  const auto expect_refused = [&](const std::string& bytes) {
    const auto opened = OpenChanged(bytes);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.status().code(), Code::kCorruption) << opened.status().ToString();
    EXPECT_NE(opened.status().message().find(path_), std::string::npos);
  };
  for (const std::uint64_t count : {std::uint64_t{49}, std::uint64_t{51}, std::uint64_t{0}, ~std::uint64_t{0}}) {
    expect_refused(With(kCount, count));
  }
  // A count whose product with 16 bytes a row is right, but for what does not fit into 64 bits.
  expect_refused(With(kCount, std::uint64_t{50} + (std::uint64_t{1} << 60)));
  expect_refused(With(kLabels, Label{49}));  // twice
  expect_refused(With(kVectors + 12, std::numeric_limits<float>::quiet_NaN()));
  expect_refused(With(kVectors + 12, std::numeric_limits<float>::infinity()));
}

// FRESHET_MUTANTS: how many.
TEST_F(FlatFile, MutantsAreRefusedOrAnIndex) {
  std::mt19937_64 random(seed_);
  const char* wanted = std::getenv("FRESHET_MUTANTS");
  const std::size_t mutants = wanted != nullptr ? std::stoul(wanted) : 2000;
  for (std::size_t i = 0; i < mutants; ++i) {
    std::string bytes = whole_;
    const bool correct = i % 4 != 0;
    if (random() % 8 == 0) bytes.resize(random() % (2 * bytes.size()));
    for (std::size_t edits = random() % 3; edits > 0 && !bytes.empty(); --edits) {
      char& byte = bytes[random() % (random() % 2 == 0 ? bytes.size() : std::min(bytes.size(), kVectors))];
      byte = static_cast<char>(byte ^ static_cast<char>(1U << (random() % 8)));
    }
    const auto opened = OpenChanged(bytes, correct);
    if (opened.ok()) {
      ASSERT_TRUE(correct || bytes == whole_);
      ASSERT_EQ(Found(**opened, {0.5F, 0.5F}, 60).size(), (*opened)->Stats().live);
      ASSERT_EQ((*opened)->LiveLabels().size(), (*opened)->Stats().live);
    } else {
      ASSERT_TRUE(opened.status().code() == Code::kCorruption || opened.status().code() == Code::kFailedPrecondition)
          << opened.status().ToString();
    }
    (void)InspectIndexFile(path_);
  }
}

}  // namespace
}  // namespace freshet
