// The streaming index between its fresh segment and its graph, against the flat index.
#include <algorithm>

#include "streaming_fixture.h"

namespace freshet::streaming {
namespace {

class MultiplesOf final : public LabelFilter {
 public:
  explicit MultiplesOf(Label of) : of_(of) {}
  [[nodiscard]] bool Allows(Label label) const override { return label % of_ == 0; }

 private:
  Label of_;
};

// A row in the graph is found with the graph's recall: a few in thousands may be missed there, in the fresh segment
// none.
TEST(Streaming, WhatIsInsertedIsFoundAtOnceAndAfterItWasLinked) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 2000, kDim, 20);
  HnswOptions index_options;
  auto index = Hnsw(index_options);
  SearchOptions options;
  options.k = 1;
  const auto misses = [&](Label label) {
    const auto found = index->Search(Rows(set, label, label + 1), options);
    EXPECT_OK(found);
    return LabelsOf(*found) == std::vector<Label>{label} ? 0 : 1;
  };
  int at_once = 0;
  for (Label label = 0; label < set.size; ++label) {
    ASSERT_OK(index->Insert({&label, 1}, Rows(set, label, label + 1)));
    at_once += misses(label);
  }
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->Stats().fresh, 0U);
  int linked = 0;
  for (Label label = 0; label < set.size; ++label) linked += misses(label);
  EXPECT_LE(at_once, 4);
  EXPECT_LE(linked, 4);
}

TEST(Streaming, TheFreshSegmentIsBounded) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 600, kDim, 20);
  HnswOptions options = Small();
  options.max_fresh = 8;
  auto index = Hnsw(options);
  ASSERT_OK(index->Insert(Range(0, 600), set.values));
  EXPECT_LE(index->Stats().fresh, 8U);
  EXPECT_EQ(index->LiveLabels(), Range(0, 600));
}

TEST(Streaming, KeepsItsTombstones) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 1500, kDim, 20);
  auto index = Hnsw(Small());
  auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  std::vector<Label> live;
  for (Label label = 0; label < set.size; ++label) {
    ASSERT_OK(index->Insert({&label, 1}, Rows(set, label, label + 1)));
    if (label % 5 == 0) {
      index->Tombstone({&label, 1});
    } else {
      live.push_back(label);
      ASSERT_OK(flat->Insert({&label, 1}, Rows(set, label, label + 1)));
    }
  }
  EXPECT_EQ(index->LiveLabels(), live);
  EXPECT_EQ(index->Stats().rebuilds, 0U);
  SearchOptions options;
  options.k = 5;
  options.ef = 60;
  EXPECT_GE(Recall(*index, *flat, set, options), 0.95);
}

// Everything in the graph, which is large enough for the search not to scan: plain, with a whole cluster deleted around
// the query, filtered, and excluded.
TEST(Streaming, GraphRecallAndFullAnswers) {
  const std::uint64_t seed = test::TestSeed();
  const test::VectorSet set = test::ClusteredVectors(seed, 0, 8000, kDim, 40);
  const test::VectorSet queries = test::ClusteredVectors(seed, 1, 60, kDim, 40);
  auto index = Hnsw(Small());
  auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  ASSERT_OK(index->Insert(Range(0, 8000), set.values));
  ASSERT_OK(flat->Insert(Range(0, 8000), set.values));
  ASSERT_OK(index->Settle());
  SearchOptions options;
  options.k = 10;
  options.ef = 80;
  EXPECT_GE(Recall(*index, *flat, queries, options), 0.95);
  const MultiplesOf half(2);
  const MultiplesOf few(700);
  for (const LabelFilter* filter : {static_cast<const LabelFilter*>(&half), static_cast<const LabelFilter*>(&few)}) {
    options.filter = filter;
    EXPECT_GE(Recall(*index, *flat, queries, options), 0.95);
  }
  options.filter = nullptr;

  // The 200 nearest of each query: where it looks, all is dead.
  SearchOptions around;
  around.k = 200;
  around.exact = true;
  for (std::size_t i = 0; i < 20; ++i) {
    const auto near = index->Search({queries.Row(i), kDim}, around);
    ASSERT_OK(near);
    index->Tombstone(LabelsOf(*near));
    flat->Tombstone(LabelsOf(*near));
  }
  EXPECT_EQ(index->LiveLabels(), flat->LiveLabels());
  EXPECT_GE(Recall(*index, *flat, queries, options), 0.95);
}

TEST(Streaming, TheSameInsertsGiveTheSameAnswers) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 3000, kDim, 40);
  auto one = Hnsw(Small());
  auto other = Hnsw(Small());
  ASSERT_OK(one->Insert(Range(0, 3000), set.values));
  for (Label label = 0; label < 3000; ++label) {
    ASSERT_OK(other->Insert({&label, 1}, Rows(set, label, label + 1)));
  }
  ASSERT_OK(one->Settle());
  ASSERT_OK(other->Settle());
  SearchOptions options;
  options.k = 10;
  options.ef = 10;  // so narrow that another graph would answer otherwise
  for (std::size_t i = 0; i < 200; ++i) {
    const auto a = one->Search(Rows(set, i, i + 1), options);
    const auto b = other->Search(Rows(set, i, i + 1), options);
    ASSERT_OK(a);
    ASSERT_OK(b);
    EXPECT_EQ(LabelsOf(*a), LabelsOf(*b));
  }
}

TEST(Streaming, ManyDuplicatesOfOneVector) {
  test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 4000, kDim, 40);
  for (std::size_t i = 1; i < 2000; ++i) {
    std::copy_n(set.values.begin(), kDim, set.values.begin() + static_cast<std::ptrdiff_t>(i * kDim));
  }
  auto index = Hnsw(Small());
  ASSERT_OK(index->Insert(Range(0, 4000), set.values));
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->Stats().live, 4000U);
  for (const std::size_t k : {1U, 100U, 3000U}) {
    SearchOptions options;
    options.k = k;
    const auto found = index->Search(Rows(set, 0, 1), options);
    ASSERT_OK(found);
    ASSERT_EQ(found->size(), k);
    for (std::size_t i = 0; i < std::min<std::size_t>(k, 2000); ++i) EXPECT_LT((*found)[i].label, 2000U);
  }
  index->Tombstone(Range(0, 1999));
  SearchOptions options;
  options.k = 100;
  const auto last = index->Search(Rows(set, 0, 1), options);
  ASSERT_OK(last);
  ASSERT_EQ(last->size(), 100U);
  EXPECT_EQ(last->front().label, 1999U);
}

}  // namespace
}  // namespace freshet::streaming
