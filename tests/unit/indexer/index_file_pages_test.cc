// How index files are written and mapped: in pieces of a huge page, and ahead of searches.
#include <fstream>
#include <numeric>
#include <string>

#include "freshet/core/file.h"
#include "freshet/core/huge_pages.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "index_file.h"

namespace freshet {
namespace {

// Sections that end before, at and behind the ends of pieces: each lies where the header says, padded with zeros.
TEST(IndexFilePages, SectionsOfAnySizeLieOneAfterTheOther) {
  const test::TempDir dir;
  const std::string path = dir / "file";
  constexpr std::uint64_t kPage = 4096;
  const std::vector<std::uint64_t> sizes = {0, 1, kHugePage - 3 * kPage, kPage, kHugePage, 5 * kHugePage + 7, 3};
  IndexFileWriter writer(path);
  ASSERT_OK(writer.Open());
  std::uint64_t told = 0;
  writer.Tell([&](std::uint64_t bytes) {
    told += bytes;
    return Status::Ok();
  });
  const auto byte_of = [](std::size_t section, std::uint64_t at) {
    return static_cast<std::byte>((at * 31 + at / 4096 + section) % 251);
  };
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    ASSERT_OK(writer.Section(static_cast<IndexSection>(i), sizes[i], 1,
                             [&](std::uint64_t at, std::byte* to) { *to = byte_of(i, at); }));
  }
  EXPECT_EQ(told + kPage, writer.bytes());
  ASSERT_OK(writer.Finish({}));
  const auto bytes = ReadFile(path);
  ASSERT_OK(bytes);
  std::uint64_t end = kPage;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    for (std::uint64_t at = 0; at < sizes[i]; ++at) {
      ASSERT_EQ(static_cast<std::byte>((*bytes)[end + at]), byte_of(i, at)) << "section " << i << ", " << at;
    }
    end += sizes[i];
    for (; end % kPage != 0; ++end) ASSERT_EQ((*bytes)[end], '\0');
  }
  EXPECT_EQ(bytes->size(), end);
}

// Of the file, what this process has mapped.
std::size_t MappedBytes(const std::string& path) {
  std::ifstream maps("/proc/self/smaps");
  std::size_t bytes = 0;
  bool of_file = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ') && line.find(':') > line.find('-')) of_file = line.ends_with(path);
    if (of_file && line.starts_with("Rss:")) bytes += std::stoul(line.substr(4)) * 1024;
  }
  return bytes;
}

TEST(IndexFilePages, WhatIsInMemoryIsMappedAhead) {
  constexpr int kDim = 512;
  constexpr std::size_t kRows = 3000;
  HnswOptions options;
  options.dim = kDim;
  options.m = 4;
  options.ef_construction = 8;
  options.rerank = Rerank::kFp32;
  const auto index = MakeHnswIndex(options);
  ASSERT_OK(index);
  std::vector<Label> labels(kRows);
  std::iota(labels.begin(), labels.end(), Label{0});
  ASSERT_OK((*index)->Insert(labels, test::ClusteredVectors(test::TestSeed(), 0, kRows, kDim, 10).values));
  const test::TempDir dir;
  const std::string path = dir / "index";
  const auto cut = (*index)->Cut();
  ASSERT_OK(cut);
  ASSERT_OK((*cut)->Write(path));
  const auto bytes = ReadFile(path);
  ASSERT_OK(bytes);
  const auto file = IndexFile::Open(path, false);
  ASSERT_OK(file);
  (*file)->MapAhead(std::chrono::microseconds(0));
  EXPECT_LT(MappedBytes(path), bytes->size()) << "what was validated alone";
  (*file)->MapAhead(std::chrono::hours(1));
  EXPECT_GE(MappedBytes(path), bytes->size() / 100 * 99);
}

}  // namespace
}  // namespace freshet
