#include "freshet/indexer/index.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr int kDim = 24;

std::vector<float> RandomVector(std::mt19937_64* random) {
  std::normal_distribution<float> normal;
  std::vector<float> vector(kDim);
  for (float& x : vector) x = normal(*random);
  EXPECT_OK(PrepareVector(Metric::kCosine, kDim, vector));
  return vector;
}

std::unique_ptr<Index> SmallHnsw() {
  HnswOptions options;
  options.dim = kDim;
  options.capacity = 20'000;
  options.rerank = Rerank::kFp32;  // as exact as the flat index
  auto index = MakeHnswIndex(options);
  EXPECT_OK(index);
  return std::move(*index);
}

class EvenLabels final : public LabelFilter {
 public:
  [[nodiscard]] bool Allows(Label label) const override { return label % 2 == 0; }
};

std::set<Label> Labels(const std::vector<Hit>& hits) {
  std::set<Label> labels;
  for (const Hit& hit : hits) labels.insert(hit.label);
  return labels;
}

TEST(HnswIndex, RefusesBadOptions) {
  HnswOptions options;
  EXPECT_EQ(MakeHnswIndex(options).status().code(), Code::kConfig);  // dim 0
  options.dim = 8;
  options.min_live_fraction = 0.05;
  EXPECT_EQ(MakeHnswIndex(options).status().code(), Code::kConfig);
}

TEST(HnswIndex, RefusesBadQueries) {
  auto index = SmallHnsw();
  std::vector<float> query(kDim, 0.5F);
  query[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(index->Search(query, {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(index->Search(std::vector<float>(kDim - 1, 1.0F), {}).status().code(), Code::kInvalidArgument);
}

// Random adds, replacements and deletes against the flat index: same live labels, exact search the same, and always
// min(k, live matching) results, filtered or not, through growth and rebuilds.
TEST(HnswIndex, EqualsFlatUnderChurn) {
  std::mt19937_64 random(test::TestSeed());
  auto hnsw = SmallHnsw();
  auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  std::vector<Label> live;
  Label next = 1;
  for (int step = 0; step < 120; ++step) {
    std::vector<Label> labels;
    std::vector<float> vectors;
    for (int i = 0; i < 40; ++i) {
      labels.push_back(next++);
      const auto vector = RandomVector(&random);
      vectors.insert(vectors.end(), vector.begin(), vector.end());
    }
    ASSERT_OK(hnsw->Insert(labels, vectors));
    ASSERT_OK(flat->Insert(labels, vectors));
    live.insert(live.end(), labels.begin(), labels.end());
    std::shuffle(live.begin(), live.end(), random);
    // Now and then nearly everything goes, at most steps about as much as came.
    const std::size_t keep = step % 40 == 39 ? 3 : 600;
    std::vector<Label> dead;
    while (live.size() > keep) {
      dead.push_back(live.back());
      live.pop_back();
    }
    hnsw->Tombstone(dead);
    flat->Tombstone(dead);
    ASSERT_OK(hnsw->Maintain());
    ASSERT_EQ(hnsw->LiveLabels(), flat->LiveLabels());
    ASSERT_EQ(hnsw->Stats().live, live.size());

    const EvenLabels even;
    const auto query = RandomVector(&random);
    const auto even_live =
        static_cast<std::size_t>(std::count_if(live.begin(), live.end(), [](Label l) { return l % 2 == 0; }));
    for (const std::size_t k : {1U, 10U, 100U, 1000U}) {
      SearchOptions options;
      options.k = k;
      const auto found = hnsw->Search(query, options);
      ASSERT_OK(found);
      EXPECT_EQ(found->size(), std::min(k, live.size()));
      EXPECT_EQ(Labels(*found).size(), found->size()) << "a label twice";
      EXPECT_TRUE(
          std::is_sorted(found->begin(), found->end(), [](const Hit& a, const Hit& b) { return a.score > b.score; }));
      options.filter = &even;
      const auto filtered = hnsw->Search(query, options);
      ASSERT_OK(filtered);
      EXPECT_EQ(filtered->size(), std::min(k, even_live));
      for (const Hit& hit : *filtered) EXPECT_EQ(hit.label % 2, 0U);
      options.exact = true;
      const auto exact = hnsw->Search(query, options);
      const auto oracle = flat->Search(query, options);
      ASSERT_OK(exact);
      ASSERT_OK(oracle);
      EXPECT_EQ(Labels(*exact), Labels(*oracle));
    }
  }
  ASSERT_OK(hnsw->Settle());
  EXPECT_GT(hnsw->Stats().consolidations, 0U) << "the churn was meant to need them";
}

TEST(HnswIndex, ApproximateRecallStaysHighUnderChurn) {
  std::mt19937_64 random(test::TestSeed());
  auto hnsw = SmallHnsw();
  std::vector<Label> live;
  Label next = 1;
  for (int round = 0; round < 12; ++round) {
    while (live.size() < 5000) {
      const auto vector = RandomVector(&random);
      ASSERT_OK(hnsw->Insert({&next, 1}, vector));
      live.push_back(next++);
    }
    std::shuffle(live.begin(), live.end(), random);
    const std::vector<Label> dead(live.begin(), live.begin() + 1000);
    live.erase(live.begin(), live.begin() + 1000);
    hnsw->Tombstone(dead);
    ASSERT_OK(hnsw->Maintain());
  }
  double found_share = 0;
  constexpr int kQueries = 50;
  for (int i = 0; i < kQueries; ++i) {
    const auto query = RandomVector(&random);
    SearchOptions options;
    options.k = 50;
    options.ef = 200;
    const auto approximate = hnsw->Search(query, options);
    options.exact = true;
    const auto exact = hnsw->Search(query, options);
    ASSERT_OK(approximate);
    ASSERT_OK(exact);
    const std::set<Label> truth = Labels(*exact);
    for (const Hit& hit : *approximate) found_share += truth.contains(hit.label) ? 1.0 : 0.0;
  }
  EXPECT_GE(found_share / (kQueries * 50), 0.95);
}

// Less effort than results: all of them are there, and most are the right ones; less effort finds fewer of those.
TEST(HnswIndex, EffortBelowKStillFindsK) {
  std::mt19937_64 random(test::TestSeed());
  auto hnsw = SmallHnsw();
  constexpr std::size_t kRows = 12'000;  // so many that a scan is not cheaper
  for (Label label = 0; label < kRows; ++label) ASSERT_OK(hnsw->Insert({&label, 1}, RandomVector(&random)));
  ASSERT_OK(hnsw->Settle());
  const EvenLabels even;
  for (const LabelFilter* filter : {static_cast<const LabelFilter*>(nullptr), static_cast<const LabelFilter*>(&even)}) {
    std::vector<std::size_t> right;
    for (const std::size_t ef : {10U, 50U, 200U}) {
      std::size_t found = 0;
      std::mt19937_64 queries(7);
      for (int i = 0; i < 30; ++i) {
        const auto query = RandomVector(&queries);
        SearchOptions options;
        options.k = 200;
        options.ef = ef;
        options.filter = filter;
        const auto approximate = hnsw->Search(query, options);
        options.exact = true;
        const auto exact = hnsw->Search(query, options);
        ASSERT_OK(approximate);
        ASSERT_OK(exact);
        ASSERT_EQ(Labels(*approximate).size(), options.k);
        const std::set<Label> truth = Labels(*exact);
        for (const Hit& hit : *approximate) found += truth.contains(hit.label) ? 1 : 0;
      }
      right.push_back(found);
    }
    EXPECT_LE(right[0], right[1]);
    EXPECT_LE(right[1], right[2]);
    EXPECT_GT(right[1], 30 * 200 * 6 / 10);
    EXPECT_GT(right[2], 30 * 200 * 8 / 10);
    if (filter == nullptr) {
      EXPECT_LT(right[0], right[2]);
    }
  }
}

TEST(FlatIndex, ReturnsWhatTheFilterAllows) {
  auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  std::mt19937_64 random(test::TestSeed());
  for (Label label = 0; label < 100; ++label) ASSERT_OK(flat->Insert({&label, 1}, RandomVector(&random)));
  const EvenLabels even;
  SearchOptions options;
  options.k = 100;
  options.filter = &even;
  const auto found = flat->Search(RandomVector(&random), options);
  ASSERT_OK(found);
  EXPECT_EQ(found->size(), 50U);
  for (const Hit& hit : *found) EXPECT_EQ(hit.label % 2, 0U);
}

// One writer, several searchers: what was inserted before a search began and is never deleted is always there.
TEST(HnswIndex, SearchesWhileBeingChanged) {
  std::mt19937_64 random(test::TestSeed());
  auto hnsw = SmallHnsw();
  const auto pinned = RandomVector(&random);
  const Label pinned_label = 1'000'000;
  ASSERT_OK(hnsw->Insert({&pinned_label, 1}, pinned));
  std::atomic<bool> stop{false};
  std::atomic<int> searches{0};
  std::atomic<int> misses{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      SearchOptions options;
      options.k = 5;
      options.ef = 100;
      while (!stop) {
        const auto found = hnsw->Search(pinned, options);
        if (!found.ok() || found->empty() || found->front().label != pinned_label) ++misses;
        ++searches;
      }
    });
  }
  std::vector<Label> live;
  for (Label next = 1; next < 4000; ++next) {
    ASSERT_OK(hnsw->Insert({&next, 1}, RandomVector(&random)));
    live.push_back(next);
    if (live.size() > 700) {
      hnsw->Tombstone({live.data(), 1});
      live.erase(live.begin());
      ASSERT_OK(hnsw->Maintain());
    }
  }
  EXPECT_TRUE(test::WaitFor([&] { return searches > 100; }));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(misses, 0);
}

TEST(Index, ScoresAreHigherIsBetterForEveryMetric) {
  for (const Metric metric : {Metric::kCosine, Metric::kInnerProduct, Metric::kL2}) {
    HnswOptions options;
    options.dim = 2;
    options.metric = metric;
    auto hnsw = MakeHnswIndex(options);
    ASSERT_OK(hnsw);
    auto flat = MakeFlatIndex(2, metric);
    const std::vector<Label> labels = {1, 2, 3};
    const std::vector<float> vectors = {1, 0, 0, 1, -1, 0};
    for (Index* index : {hnsw->get(), flat.get()}) {
      ASSERT_OK(index->Insert(labels, vectors));
      SearchOptions search;
      search.k = 3;
      const auto found = index->Search(std::vector<float>{0.8F, 0.6F}, search);
      ASSERT_OK(found);
      ASSERT_EQ(found->size(), 3U);
      EXPECT_EQ((*found)[0].label, 1U);
      EXPECT_EQ((*found)[1].label, 2U);
      EXPECT_EQ((*found)[2].label, 3U);
      search.score_threshold = (*found)[1].score;
      const auto close = index->Search(std::vector<float>{0.8F, 0.6F}, search);
      ASSERT_OK(close);
      EXPECT_EQ(close->size(), 2U);
    }
  }
}

}  // namespace
}  // namespace freshet
