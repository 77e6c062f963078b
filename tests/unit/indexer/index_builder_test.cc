#include "freshet/indexer/index_builder.h"

#include <fstream>
#include <limits>

#include "freshet/core/bytes.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"

namespace freshet {
namespace {

constexpr int kDim = 16;
constexpr std::size_t kRows = 3000;

IndexBuilderOptions Options(IndexKind kind) {
  IndexBuilderOptions options;
  options.kind = kind;
  options.hnsw.metric = Metric::kL2;
  options.hnsw.m = 8;
  options.hnsw.ef_construction = 60;
  return options;
}

std::vector<Label> Nearest(const Index& index, const float* query) {
  SearchOptions search;
  search.k = 10;
  const auto hits = index.Search({query, static_cast<std::size_t>(kDim)}, search);
  EXPECT_OK(hits);
  std::vector<Label> labels;
  for (const Hit& hit : *hits) labels.push_back(hit.label);
  return labels;
}

TEST(IndexBuilder, FromVectorsToAFileAndBackInEveryKind) {
  const test::VectorSet set = test::ClusteredVectors(3, 0, kRows, kDim, 20);
  const test::TempDir directory;
  for (const IndexKind kind : {IndexKind::kHnsw, IndexKind::kFlat}) {
    IndexBuilder builder(Options(kind));
    // In two parts: labels go on.
    ASSERT_OK(builder.Add(std::span(set.values).first(1100 * kDim), kDim));
    ASSERT_OK(builder.Add(std::span(set.values).subspan(1100 * kDim), kDim));
    EXPECT_EQ(builder.rows(), kRows);
    const auto built = builder.Finish();
    ASSERT_OK(built);
    EXPECT_EQ((*built)->Stats().fresh, 0U);
    const std::string path = directory / IndexKindName(kind);
    const auto cut = (*built)->Cut();
    ASSERT_OK(cut);
    ASSERT_OK((*cut)->Write(path));

    const auto info = InspectIndexFile(path);
    ASSERT_OK(info);
    EXPECT_EQ(info->kind, kind);
    EXPECT_EQ(info->dim, kDim);
    EXPECT_EQ(info->metric, Metric::kL2);
    EXPECT_EQ(info->rows, kRows);
    for (const OpenAs as : {OpenAs::kMapped, OpenAs::kMemory}) {
      const auto opened = OpenIndexFile(path, as, true);
      ASSERT_OK(opened);
      EXPECT_EQ((*opened)->Stats().live, kRows);
      for (const std::size_t row : {0U, 1099U, 1100U, 2999U}) {
        EXPECT_EQ(Nearest(**opened, set.Row(row)), Nearest(**built, set.Row(row)));
        EXPECT_EQ(Nearest(**opened, set.Row(row)).front(), row);
      }
    }
  }
}

TEST(IndexBuilder, FilesOneAfterTheOtherWithProgress) {
  const test::VectorSet set = test::ClusteredVectors(4, 0, kRows, kDim, 20);
  const test::TempDir directory;
  ByteWriter out;
  out.Put(static_cast<std::uint32_t>(kRows)).Put(static_cast<std::uint32_t>(kDim)).PutFloats(set.values);
  std::ofstream(directory / "a.fbin", std::ios::binary) << out.bytes();
  std::uint64_t told = 0;
  std::uint64_t of = 0;
  IndexBuilderOptions options = Options(IndexKind::kFlat);
  options.progress = [&](std::uint64_t rows, std::uint64_t all) {
    EXPECT_GT(rows, told);
    told = rows;
    of = all;
    return Status::Ok();
  };
  IndexBuilder builder(options);
  ASSERT_OK(builder.AddFile(directory / "a.fbin"));
  EXPECT_EQ(told, kRows);
  EXPECT_EQ(of, kRows);
  ASSERT_OK(builder.AddFile(directory / "a.fbin", 10));
  EXPECT_EQ(told, kRows + 10);
  EXPECT_EQ(of, kRows + 10);

  options.progress = [](std::uint64_t, std::uint64_t) { return Cancelled("enough"); };
  EXPECT_EQ(IndexBuilder(options).AddFile(directory / "a.fbin").code(), Code::kCancelled);
}

TEST(IndexBuilder, RefusesWhatCannotBeSearchedAndNamesTheRow) {
  std::vector<float> rows(3 * kDim, 1);
  rows[2 * kDim + 5] = std::numeric_limits<float>::quiet_NaN();
  IndexBuilder builder(Options(IndexKind::kHnsw));
  ASSERT_OK(builder.Add(std::span(rows).first(kDim), kDim));
  const Status status = builder.Add(rows, kDim);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("row 3"), std::string::npos) << status.message();
  EXPECT_EQ(builder.Add(rows, kDim / 2).code(), Code::kInvalidArgument);
  EXPECT_EQ(builder.rows(), 1U);
  EXPECT_EQ(IndexBuilder(Options(IndexKind::kFlat)).Finish().status().code(), Code::kInvalidArgument);
}

TEST(IndexBuilder, ADimensionThatWasRefusedBindsNobody) {
  const std::vector<float> rows(5000 * 2, 1);
  for (const IndexKind kind : {IndexKind::kHnsw, IndexKind::kFlat}) {
    IndexBuilder builder(Options(kind));
    EXPECT_EQ(builder.Add(rows, 5000).code(), Code::kConfig);
    EXPECT_OK(builder.Add(std::span(rows).first(3 * kDim), kDim));
    EXPECT_EQ(builder.Add(rows, 2 * kDim).code(), Code::kInvalidArgument) << "that of the rows that are there does";
    EXPECT_EQ(builder.rows(), 3U);
  }
}

TEST(IndexBuilder, FinishedIsFinished) {
  const std::vector<float> rows(kDim, 1);
  IndexBuilder builder(Options(IndexKind::kHnsw));
  ASSERT_OK(builder.Add(rows, kDim));
  ASSERT_OK(builder.Finish());
  EXPECT_EQ(builder.Finish().status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(builder.Add(rows, kDim).code(), Code::kFailedPrecondition);
}

TEST(IndexBuilder, ThereIsRoomForWhatIsThere) {
  EXPECT_EQ(CapacityFor(0), HnswOptions().capacity);
  EXPECT_EQ(CapacityFor(40'000'000), 50'000'000U);
  EXPECT_EQ(CapacityFor(999'999'999), 1'000'000'000U);
  const test::VectorSet set = test::ClusteredVectors(5, 0, 300, kDim, 4);
  const test::TempDir directory;
  ByteWriter out;
  out.Put(std::uint32_t{300}).Put(static_cast<std::uint32_t>(kDim)).PutFloats(set.values);
  const std::vector<std::string> files = {directory / "a.fbin", directory / "b.fbin"};
  for (const std::string& file : files) std::ofstream(file, std::ios::binary) << out.bytes();
  for (const std::uint64_t limit : {1'000U, 450U}) {
    const auto counted = CountRows(files, limit);
    ASSERT_OK(counted);
    EXPECT_EQ(*counted, std::min<std::uint64_t>(limit, 600));
  }
  EXPECT_EQ(CountRows(std::vector<std::string>{files[0], directory / "none.fbin"}).status().code(), Code::kNotFound);

  IndexBuilder builder(Options(IndexKind::kHnsw));
  ASSERT_OK(builder.AddFile(files[0]));
  const auto built = builder.Finish();
  ASSERT_OK(built);
  const auto cut = (*built)->Cut();
  ASSERT_OK(cut);
  ASSERT_OK((*cut)->Write(directory / "index"));
  EXPECT_EQ(OpenIndexFile(directory / "index", OpenAs::kMemory, false, 299).status().code(), Code::kResourceExhausted);
  const auto opened = OpenIndexFile(directory / "index", OpenAs::kMemory, false, 400);
  ASSERT_OK(opened);
  EXPECT_EQ((*opened)->Stats().capacity, 400U);
}

TEST(IndexBuilder, WhatIsNoIndexFileIsRefused) {
  const test::TempDir directory;
  EXPECT_EQ(InspectIndexFile(directory / "none").status().code(), Code::kNotFound);
  for (const std::string& bytes : {std::string(), std::string("text"), std::string(10'000, 'x')}) {
    std::ofstream(directory / "x", std::ios::binary) << bytes;
    EXPECT_EQ(OpenIndexFile(directory / "x", OpenAs::kMapped).status().category(), Category::kPermanent);
  }
}

}  // namespace
}  // namespace freshet
