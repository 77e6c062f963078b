// The streaming index while rows come and go: the dead leave its graph, their slots are used again, and searches know
// what is there.
#include <atomic>
#include <random>
#include <thread>

#include "streaming_fixture.h"

namespace freshet::streaming {
namespace {

// The worker is always behind: each Insert waits for room among the few fresh rows.
TEST(StreamingChurn, TheDeadLeaveTheGraphThoughRowsComeAsFastAsTheyAreTaken) {
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

TEST(StreamingChurn, AFullIndexTakesRowsInPlaceOfTheDeadAndIsFullOnlyOfTheLiving) {
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

TEST(StreamingChurn, TheDeadLeaveTheGraphWhileItIsAddedToAndDeletedFrom) {
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

TEST(StreamingChurn, DestroyedWhileItLinksAndConsolidates) {
  const test::VectorSet set = test::ClusteredVectors(test::TestSeed(), 0, 4000, kDim, 40);
  for (const bool consolidate : {false, true}) {
    auto index = Hnsw(Small());
    ASSERT_OK(index->Insert(Range(0, 4000), set.values));
    if (consolidate) index->Tombstone(Range(0, 3000));
    ASSERT_OK(index->Maintain());
  }
}

TEST(StreamingChurn, OneItemUpsertedAThousandTimes) {
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
TEST(StreamingChurn, AnAuditFindsEverythingReachableAfterClustersWentAway) {
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

TEST(StreamingChurn, EverythingDeletedAndRefilled) {
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
TEST(StreamingChurn, SearchesKnowWhatIsThereAtEachMoment) {
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
}  // namespace freshet::streaming
