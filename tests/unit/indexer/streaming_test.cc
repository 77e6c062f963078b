// The streaming index between its fresh segment, its graph and its rebuilds, against the flat index.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "freshet/indexer/index.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"

namespace freshet {
namespace {

constexpr int kDim = 32;

std::unique_ptr<Index> Hnsw(HnswOptions options = {}) {
  options.dim = kDim;
  auto index = MakeHnswIndex(options);
  EXPECT_OK(index);
  return std::move(*index);
}

HnswOptions Small() {
  HnswOptions options;
  options.capacity = 20'000;
  options.m = 8;
  options.ef_construction = 60;
  return options;
}

std::vector<Label> Range(Label begin, Label end) {
  std::vector<Label> labels(end - begin);
  std::iota(labels.begin(), labels.end(), begin);
  return labels;
}

std::span<const float> Rows(const test::VectorSet& set, std::size_t begin, std::size_t end) {
  return {set.Row(begin), (end - begin) * kDim};
}

std::vector<Label> LabelsOf(const std::vector<Hit>& hits) {
  std::vector<Label> labels;
  for (const Hit& hit : hits) labels.push_back(hit.label);
  return labels;
}

// Mean recall of `index` against `flat`, which hold the same; each answer must be full.
double Recall(const Index& index, const Index& flat, const test::VectorSet& queries, const SearchOptions& options) {
  double found = 0;
  double wanted = 0;
  for (std::size_t i = 0; i < queries.size; ++i) {
    const auto answer = index.Search({queries.Row(i), kDim}, options);
    const auto exact = flat.Search({queries.Row(i), kDim}, options);
    EXPECT_OK(answer);
    EXPECT_OK(exact);
    EXPECT_EQ(answer->size(), exact->size());
    const std::vector<Label> truth = LabelsOf(*exact);
    const std::set<Label> labels(truth.begin(), truth.end());
    for (const Hit& hit : *answer) found += labels.contains(hit.label) ? 1 : 0;
    wanted += static_cast<double>(exact->size());
  }
  return found / wanted;
}

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

// The worker is always behind: each Insert waits for room among the few fresh rows.
TEST(Streaming, TheDeadLeaveTheGraphThoughRowsComeAsFastAsTheyAreTaken) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 4000, kDim, 40);
  HnswOptions options = Small();
  options.max_fresh = 64;
  options.capacity = 12'000;
  auto index = Hnsw(options);
  ASSERT_OK(index->Insert(Range(0, 4000), Rows(set, 0, 4000)));
  constexpr Label kMost = 200'000;  // far more rows than there is room for, were none freed
  for (Label label = 4000; index->Stats().consolidations < 5; label += 32) {
    ASSERT_LT(label, kMost);
    ASSERT_OK(index->Insert(Range(label, label + 32), Rows(set, label % 3968, label % 3968 + 32)));
    index->Tombstone(Range(label - 4000, label - 3968));
    ASSERT_OK(index->Maintain());
  }
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->LiveLabels().size(), 4000U);
}

TEST(Streaming, AFullIndexTakesRowsInPlaceOfTheDeadAndIsFullOnlyOfTheLiving) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 4501, kDim, 40);
  HnswOptions options = Small();
  options.capacity = 3000;
  auto index = Hnsw(options);
  ASSERT_OK(index->Insert(Range(0, 3000), Rows(set, 0, 3000)));
  EXPECT_EQ(index->Insert(Range(3000, 3001), Rows(set, 3000, 3001)).code(), Code::kResourceExhausted);
  index->Tombstone(Range(0, 1500));
  ASSERT_OK(index->Insert(Range(3000, 4500), Rows(set, 3000, 4500)));
  const Status full = index->Insert(Range(4500, 4501), Rows(set, 4500, 4501));
  EXPECT_EQ(full.code(), Code::kResourceExhausted) << full.ToString();
  EXPECT_EQ(index->LiveLabels(), Range(1500, 4500));
}

TEST(Streaming, TheDeadLeaveTheGraphWhileItIsAddedToAndDeletedFrom) {
  const std::uint64_t seed = test::TestSeed();
  const test::VectorSet set = test::ClusteredVectors(seed, 0, 9000, kDim, 40);
  auto index = Hnsw(Small());
  auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  for (Index* each : {index.get(), flat.get()}) {
    ASSERT_OK(each->Insert(Range(0, 6000), Rows(set, 0, 6000)));
    each->Tombstone(Range(0, 3500));
  }
  ASSERT_OK(index->Maintain());
  for (Label label = 6000; label < 9000; ++label) {
    const Label gone = label - 2000;  // some of them linked long ago, some just now
    for (Index* each : {index.get(), flat.get()}) {
      ASSERT_OK(each->Insert({&label, 1}, Rows(set, label, label + 1)));
      each->Tombstone({&gone, 1});
    }
    ASSERT_OK(index->Maintain());
    if (label % 100 == 0) {
      ASSERT_EQ(index->LiveLabels(), flat->LiveLabels());
    }
  }
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->LiveLabels(), flat->LiveLabels());
  EXPECT_GE(index->Stats().consolidations, 1U);
  EXPECT_LT(index->Stats().tombstones, 1000U);
  EXPECT_LT(index->Stats().slots, 8000U) << "slots of the dead were meant to be used again";
  SearchOptions options;
  options.k = 5;
  options.ef = 60;
  EXPECT_GE(Recall(*index, *flat, test::ClusteredVectors(seed, 1, 50, kDim, 40), options), 0.95);
}

TEST(Streaming, DestroyedWhileItLinksAndConsolidates) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 4000, kDim, 40);
  for (const bool consolidate : {false, true}) {
    auto index = Hnsw(Small());
    ASSERT_OK(index->Insert(Range(0, 4000), set.values));
    if (consolidate) index->Tombstone(Range(0, 3000));
    ASSERT_OK(index->Maintain());
  }
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

TEST(Streaming, OneItemUpsertedAThousandTimes) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 1000, kDim, 40);
  auto index = Hnsw(Small());
  SearchOptions options;
  options.k = 3;
  for (Label label = 0; label < 1000; ++label) {
    ASSERT_OK(index->Insert({&label, 1}, Rows(set, label, label + 1)));
    if (label > 0) {
      const Label old = label - 1;
      index->Tombstone({&old, 1});
    }
    ASSERT_OK(index->Maintain());
    if (label % 250 == 0) {
      ASSERT_OK(index->Settle());
    }
    const auto found = index->Search(Rows(set, label, label + 1), options);
    ASSERT_OK(found);
    ASSERT_EQ(LabelsOf(*found), std::vector<Label>{label});
  }
  ASSERT_OK(index->Settle());
  EXPECT_LE(index->Stats().slots, 800U) << "constant size, growing room";
}

// All of one cluster at a time, whose rows are what leads to each other; audits after.
TEST(Streaming, AnAuditFindsEverythingReachableAfterClustersWentAway) {
  const std::uint64_t seed = test::TestSeed();
  const test::VectorSet set = test::ClusteredVectors(seed, 0, 6000, kDim, 30);
  auto index = Hnsw(Small());
  ASSERT_OK(index->Insert(Range(0, 6000), set.values));
  ASSERT_OK(index->Settle());
  SearchOptions near;
  near.k = 150;
  std::size_t repaired = 0;
  for (Label round = 0; round < 20; ++round) {
    const auto cluster = index->Search(Rows(set, round * 100, round * 100 + 1), near);
    ASSERT_OK(cluster);
    index->Tombstone(LabelsOf(*cluster));
    const std::vector<Label> again = Range(10'000 + round * 150, 10'000 + round * 150 + 150);
    ASSERT_OK(index->Insert(again, Rows(set, round * 200, round * 200 + 150)));
    ASSERT_OK(index->Maintain());
    ASSERT_OK(index->Settle());
    const auto health = index->Audit({});
    ASSERT_OK(health);
    EXPECT_GE(health->nodes, 3000U);  // copies of a vector are one node
    EXPECT_GE(health->recall, 0.8);
    repaired += health->unreachable;
    ASSERT_OK(index->Settle());
    const auto after = index->Audit({});
    ASSERT_OK(after);
    EXPECT_EQ(after->unreachable, 0U);
  }
  EXPECT_GE(index->Stats().consolidations, 1U);
  EXPECT_LE(repaired, 20U);
}

TEST(Streaming, EverythingDeletedAndRefilled) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 300, kDim, 10);
  auto index = Hnsw(Small());
  SearchOptions options;
  options.k = 10;
  for (Label round = 0; round < 20; ++round) {
    const std::vector<Label> labels = Range(round * 300, round * 300 + 300);
    ASSERT_OK(index->Insert(labels, set.values));
    ASSERT_EQ(index->LiveLabels(), labels);
    const auto found = index->Search(Rows(set, 0, 1), options);
    ASSERT_OK(found);
    ASSERT_EQ(found->size(), 10U);
    EXPECT_EQ(found->front().label, labels.front());
    index->Tombstone(labels);
    ASSERT_OK(index->Maintain());
    const auto none = index->Search(Rows(set, 0, 1), options);
    ASSERT_OK(none);
    EXPECT_TRUE(none->empty());
  }
}

// A writer, searchers and the worker together. Each label's life is known: what was there before a search began and
// until it ended must be findable, what had gone before it began must not be returned.
TEST(Streaming, SearchesKnowWhatIsThereAtEachMoment) {
  constexpr Label kCount = 4000;
  constexpr Label kLife = 600;
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, kCount, kDim, 40);
  auto index = Hnsw(Small());
  std::atomic<Label> inserted{0};  // labels below it are in
  std::atomic<Label> gone{0};      // labels below it are out
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<int> searches{0};
  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&, reader] {
      std::mt19937_64 random(reader);
      SearchOptions options;
      options.k = 5;
      while (!stop) {
        const Label out = gone;
        const Label in = inserted;
        if (in == out) continue;
        const Label wanted = out + random() % (in - out);
        const bool narrow = random() % 2 == 0;  // the graph, which may miss one; otherwise a scan, which may not
        options.ef = narrow ? 30 : 0;
        const auto found = index->Search(Rows(set, wanted, wanted + 1), options);
        if (!found.ok()) {
          ++wrong;
          continue;
        }
        for (const Hit& hit : *found) wrong += hit.label < out ? 1 : 0;
        const bool there = !found->empty() && found->front().label == wanted;
        if (!narrow && !there && gone <= wanted && inserted == in) {
          // Nobody took it away meanwhile. (`gone` is raised after the tombstone: look at the one under way, too.)
          if (gone + 1 <= wanted) ++wrong;
        }
        ++searches;
      }
    });
  }
  for (Label label = 0; label < kCount; ++label) {
    ASSERT_OK(index->Insert({&label, 1}, Rows(set, label, label + 1)));
    inserted = label + 1;
    if (label >= kLife) {
      const Label old = label - kLife;
      index->Tombstone({&old, 1});
      gone = old + 1;
    }
    ASSERT_OK(index->Maintain());
  }
  ASSERT_OK(index->Settle());
  EXPECT_TRUE(test::WaitFor([&] { return searches > 200; }));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(index->Stats().consolidations, 1U);
  EXPECT_EQ(index->LiveLabels(), Range(kCount - kLife, kCount));
}

}  // namespace
}  // namespace freshet
