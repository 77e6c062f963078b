// The streaming index at its edges: everything gone and come again, one label over and over, copies by the thousand,
// batches and builds by several threads, rows while a file is written.
#include <algorithm>
#include <set>

#include "freshet/indexer/label_filters.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "hnsw_index.h"
#include "index_file.h"
#include "label_range.h"

namespace freshet {
namespace {

constexpr int kDim = 24;

HnswOptions Small() {
  HnswOptions options;
  options.dim = kDim;
  options.capacity = 20'000;
  options.m = 8;
  options.ef_construction = 60;
  return options;
}

std::unique_ptr<Index> Hnsw(const HnswOptions& options = Small()) {
  auto index = MakeHnswIndex(options);
  EXPECT_OK(index);
  return std::move(*index);
}

std::span<const float> Rows(const test::VectorSet& set, std::size_t begin, std::size_t end) {
  return {set.Row(begin), (end - begin) * kDim};
}

// Mean over the queries, at an effort that searches the graph of some thousand rows; each answer must be full.
double Recall(const Index& index, const Index& flat, const test::VectorSet& queries) {
  SearchOptions options;
  options.k = 10;
  options.ef = 80;
  std::size_t found = 0;
  for (std::size_t i = 0; i < queries.size; ++i) {
    const auto answer = index.Search(Rows(queries, i, i + 1), options);
    const auto exact = flat.Search(Rows(queries, i, i + 1), options);
    EXPECT_OK(answer);
    EXPECT_OK(exact);
    EXPECT_EQ(answer->size(), exact->size());
    // By score, within what the re-rank rows are exact to: of equal ones either is right.
    for (const Hit& hit : *answer) found += hit.score >= exact->back().score - 1e-4F ? 1 : 0;
  }
  return static_cast<double>(found) / static_cast<double>(queries.size * options.k);
}

class StreamingEdges : public ::testing::Test {
 protected:
  const std::uint64_t seed_ = test::TestSeed();
  const test::VectorSet set_ = test::ClusteredVectors(seed_, 0, 12'000, kDim, 40);
  const test::VectorSet queries_ = test::ClusteredVectors(seed_, 1, 100, kDim, 40);
};

TEST_F(StreamingEdges, EverythingDeletedAndRefilledTwentyTimes) {
  constexpr Label kRows = 2500;
  const auto index = Hnsw();
  const auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  for (Label round = 0; round < 20; ++round) {
    const std::vector<Label> labels = Range(round * kRows, (round + 1) * kRows);
    const std::size_t begin = round * 450;
    for (Index* each : {index.get(), flat.get()}) {
      ASSERT_OK(each->Insert(labels, Rows(set_, begin, begin + kRows)));
      ASSERT_EQ(each->LiveLabels(), labels);
    }
    ASSERT_OK(index->Settle());
    EXPECT_GE(Recall(*index, *flat, queries_), 0.95);
    if (round == 19) break;
    for (Index* each : {index.get(), flat.get()}) {
      each->Tombstone(labels);
      ASSERT_TRUE(each->LiveLabels().empty());
    }
    ASSERT_OK(index->Maintain());
  }
  EXPECT_LT(index->Stats().slots, 4 * kRows) << "constant size, growing room";
  const auto health = index->Audit({});
  ASSERT_OK(health);
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->Audit({})->unreachable, 0U);
}

TEST_F(StreamingEdges, OneLabelAmongManyIsReplacedAThousandTimes) {
  constexpr Label kMany = 3000;
  constexpr Label kOne = 1'000'000;
  const auto index = Hnsw();
  const auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  for (Index* each : {index.get(), flat.get()}) ASSERT_OK(each->Insert(Range(0, kMany), Rows(set_, 0, kMany)));
  SearchOptions options;
  options.k = 2;
  for (std::size_t i = 0; i < 1000; ++i) {
    const auto vector = Rows(set_, kMany + i, kMany + i + 1);
    for (Index* each : {index.get(), flat.get()}) {
      ASSERT_OK(each->Insert({&kOne, 1}, vector));
      ASSERT_OK(each->Maintain());
      ASSERT_EQ(each->Stats().live, kMany + 1);
    }
    if (i % 100 == 0) ASSERT_OK(index->Settle());
    const auto found = index->Search(vector, options);
    ASSERT_OK(found);
    ASSERT_EQ(found->size(), 2U);
    ASSERT_EQ((*found)[0].label, kOne);
    ASSERT_NE((*found)[1].label, kOne);
  }
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->LiveLabels(), flat->LiveLabels());
  EXPECT_GE(Recall(*index, *flat, queries_), 0.95);
}

// The label of the node that searches begin at, as a file says.
Label EntryOf(Index* index, const std::string& path) {
  const auto cut = index->Cut();
  EXPECT_OK(cut);
  EXPECT_OK((*cut)->Write(path));
  const auto file = IndexFile::Open(path, true);
  EXPECT_OK(file);
  const std::uint32_t slot = (*file)->upper_slots()[(*file)->header().entry_upper];
  return (*file)->Items<Label>(IndexSection::kLabels)[slot];
}

TEST_F(StreamingEdges, AllButTheEntryDeletedAndRefilled) {
  constexpr Label kRows = 3000;
  const test::TempDir dir;
  const auto index = Hnsw();
  ASSERT_OK(index->Insert(Range(0, kRows), Rows(set_, 0, kRows)));
  ASSERT_OK(index->Settle());
  const Label entry = EntryOf(index.get(), dir / "index");
  std::vector<Label> others = Range(0, kRows);
  others.erase(others.begin() + static_cast<std::ptrdiff_t>(entry));
  index->Tombstone(others);
  ASSERT_OK(index->Maintain());
  ASSERT_OK(index->Settle());
  EXPECT_GE(index->Stats().consolidations, 1U);
  EXPECT_EQ(index->LiveLabels(), std::vector<Label>{entry});
  SearchOptions options;
  options.k = 10;
  const auto last = index->Search(Rows(queries_, 0, 1), options);
  ASSERT_OK(last);
  ASSERT_EQ(last->size(), 1U);
  EXPECT_EQ(last->front().label, entry);
  const auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  ASSERT_OK(flat->Insert({&entry, 1}, Rows(set_, entry, entry + 1)));
  for (Index* each : {index.get(), flat.get()}) {
    ASSERT_OK(each->Insert(Range(kRows, 3 * kRows), Rows(set_, kRows, 3 * kRows)));
  }
  ASSERT_OK(index->Settle());
  EXPECT_EQ(index->LiveLabels(), flat->LiveLabels());
  EXPECT_GE(Recall(*index, *flat, queries_), 0.95);
}

TEST_F(StreamingEdges, TenThousandCopiesOfOneVector) {
  constexpr Label kCopies = 10'000;
  constexpr Label kOthers = 2000;
  const auto index = Hnsw();
  const auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  std::vector<float> copies;
  for (Label i = 0; i < kCopies; ++i) copies.insert(copies.end(), set_.Row(0), set_.Row(0) + kDim);
  for (Index* each : {index.get(), flat.get()}) {
    ASSERT_OK(each->Insert(Range(0, kCopies), copies));
    ASSERT_OK(each->Insert(Range(kCopies, kCopies + kOthers), Rows(set_, 1, 1 + kOthers)));
    ASSERT_OK(each->Settle());
    ASSERT_EQ(each->Stats().live, kCopies + kOthers);
  }
  for (const std::size_t k : {std::size_t{10}, std::size_t{500}, std::size_t{10'000}}) {
    SearchOptions options;
    options.k = k;
    const auto found = index->Search(Rows(set_, 0, 1), options);
    ASSERT_OK(found);
    ASSERT_EQ(found->size(), k);
    std::set<Label> labels;
    for (const Hit& hit : *found) labels.insert(hit.label);
    ASSERT_EQ(labels.size(), k);
    ASSERT_LT(*labels.rbegin(), kCopies);
  }
  EXPECT_GE(Recall(*index, *flat, queries_), 0.95);
  // Nearly all of them, the one that was linked first too.
  for (Index* each : {index.get(), flat.get()}) {
    each->Tombstone(Range(0, kCopies - 3));
    ASSERT_OK(each->Maintain());
    ASSERT_OK(each->Settle());
  }
  EXPECT_EQ(index->LiveLabels(), flat->LiveLabels());
  SearchOptions options;
  options.k = 3;
  const auto rest = index->Search(Rows(set_, 0, 1), options);
  ASSERT_OK(rest);
  ASSERT_EQ(rest->size(), 3U);
  for (const Hit& hit : *rest) EXPECT_LT(hit.label, kCopies);
  EXPECT_GE(Recall(*index, *flat, queries_), 0.95);
}

// With tombstones, rows that are not linked, and a filter: in turns or one by one it is the same.
TEST_F(StreamingEdges, ManyAtOnceAreAnsweredAsOneByOne) {
  HnswIndex index(Small());
  ASSERT_OK(index.Insert(Range(0, 6000), Rows(set_, 0, 6000)));
  ASSERT_OK(index.Settle());
  for (Label label = 0; label < 6000; label += 7) index.Tombstone({&label, 1});
  const HnswIndex::LinkingPaused paused(&index);
  ASSERT_OK(index.Insert(Range(6000, 7000), Rows(set_, 6000, 7000)));
  ASSERT_EQ(index.Stats().fresh, 1000U);
  LabelBitmap thirds(0, 7000);
  for (Label label = 0; label < 7000; label += 3) thirds.Allow(label);
  ExcludedLabels excluded(Range(3000, 3500));
  for (const LabelFilter* filter : {static_cast<const LabelFilter*>(nullptr), static_cast<const LabelFilter*>(&thirds),
                                    static_cast<const LabelFilter*>(&excluded)}) {
    for (const std::size_t k : {std::size_t{1}, std::size_t{10}, std::size_t{200}}) {
      for (const bool exact : {false, true}) {
        SearchOptions options;
        options.k = k;
        options.ef = k == 10 ? 50 : 0;
        options.filter = filter;
        options.exact = exact;
        const auto many = index.SearchMany(queries_.values, options);
        ASSERT_OK(many);
        ASSERT_EQ(many->size(), queries_.size);
        for (std::size_t i = 0; i < queries_.size; ++i) {
          const auto one = index.Search(Rows(queries_, i, i + 1), options);
          ASSERT_OK(one);
          ASSERT_EQ((*many)[i].size(), one->size());
          ASSERT_EQ(one->size(), k);
          for (std::size_t j = 0; j < one->size(); ++j) {
            ASSERT_EQ((*many)[i][j].label, (*one)[j].label);
            ASSERT_EQ((*many)[i][j].score, (*one)[j].score);
          }
        }
      }
    }
  }
  SearchOptions nothing;
  nothing.k = 0;
  const auto none = index.SearchMany(queries_.values, nothing);
  ASSERT_OK(none);
  EXPECT_EQ(none->size(), queries_.size);
}

TEST_F(StreamingEdges, SeveralThreadsBuildAsGoodAGraphAsOne) {
  const auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  ASSERT_OK(flat->Insert(Range(0, 8000), Rows(set_, 0, 8000)));
  for (const std::size_t threads : {1U, 4U}) {
    HnswOptions options = Small();
    options.link_threads = threads;
    const auto index = Hnsw(options);
    ASSERT_OK(index->Insert(Range(0, 8000), Rows(set_, 0, 8000)));
    ASSERT_OK(index->Settle());
    EXPECT_GE(Recall(*index, *flat, queries_), 0.95) << threads;
    const auto health = index->Audit({});
    ASSERT_OK(health);
    EXPECT_LE(health->unreachable, 8U);
  }
}

// The graph of a cut is being written, for however long: more rows come than the fresh segment takes.
TEST_F(StreamingEdges, RowsDoNotWaitForAFileThatIsBeingWritten) {
  HnswOptions options = Small();
  options.max_fresh = 64;
  HnswIndex index(options);
  ASSERT_OK(index.Insert(Range(0, 2000), Rows(set_, 0, 2000)));
  ASSERT_OK(index.Settle());
  {
    const HnswIndex::LinkingPaused paused(&index);
    ASSERT_OK(index.Insert(Range(2000, 6000), Rows(set_, 2000, 6000)));
    EXPECT_LE(index.Stats().fresh, 64U);
    EXPECT_GE(index.Stats().fresh, 32U) << "no more than had to be was linked";
  }
  ASSERT_OK(index.Settle());
  EXPECT_EQ(index.LiveLabels(), Range(0, 6000));
}

// And what is linked all the same while it is written does not make a worse file of it.
TEST_F(StreamingEdges, AFileWrittenWhileRowsAreLinkedIsOfItsMoment) {
  HnswOptions options = Small();
  options.max_fresh = 16;
  const auto index = Hnsw(options);
  const test::TempDir dir;
  ASSERT_OK(index->Insert(Range(0, 4000), Rows(set_, 0, 4000)));
  ASSERT_OK(index->Settle());
  Label next = 4000;
  {
    const auto cut = index->Cut();
    ASSERT_OK(cut);
    const HnswIndex::LinkingPaused paused(static_cast<HnswIndex*>(index.get()));
    Status inserted;
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      for (; inserted.ok() && !stop && next < 12'000; ++next) {
        inserted = index->Insert({&next, 1}, Rows(set_, next, next + 1));
      }
    });
    EXPECT_TRUE(test::WaitFor([&] { return index->Stats().live > 4200; }));
    EXPECT_OK((*cut)->Write(dir / "index"));
    stop = true;
    writer.join();
    ASSERT_OK(inserted);
  }
  const auto opened = OpenHnswIndex(dir / "index", options);
  ASSERT_OK(opened);
  ASSERT_OK((*opened)->Settle());
  EXPECT_EQ((*opened)->LiveLabels(), Range(0, 4000));
  const auto flat = MakeFlatIndex(kDim, Metric::kCosine);
  ASSERT_OK(flat->Insert(Range(0, 4000), Rows(set_, 0, 4000)));
  EXPECT_GE(Recall(**opened, *flat, queries_), 0.95);
}

}  // namespace
}  // namespace freshet
