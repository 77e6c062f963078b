// The ready filters, with every kind of index.
#include "freshet/indexer/label_filters.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"

namespace freshet {
namespace {

constexpr int kDim = 24;
constexpr std::size_t kRows = 20'000;

TEST(LabelBitmap, AllowsWhatItWasTold) {
  LabelBitmap bitmap(1000, 1130);
  EXPECT_FALSE(bitmap.Allows(1000));
  for (const Label label : {1000U, 1063U, 1064U, 1129U}) {
    bitmap.Allow(label);
    EXPECT_TRUE(bitmap.Allows(label));
  }
  EXPECT_FALSE(bitmap.Allows(1001));
  bitmap.Refuse(1064);
  EXPECT_FALSE(bitmap.Allows(1064));
  for (const Label label : {Label{0}, Label{999}, Label{1130}, ~Label{0}}) EXPECT_FALSE(bitmap.Allows(label));
}

TEST(LabelBitmap, SaysOfManyWhatItSaysOfEach) {
  std::mt19937_64 random(test::TestSeed());
  constexpr Label kBegin = 500;
  for (const std::size_t size : {1U, 63U, 64U, 65U, 1'000U, 100'000U}) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, size / 2 + 1}) {
      std::vector<Label> allowed;
      for (std::size_t i = 0; i < count; ++i) allowed.push_back(kBegin + random() % size);
      const LabelBitmap bitmap(kBegin, kBegin + size, allowed);
      LabelBitmap one_by_one(kBegin, kBegin + size);
      for (const Label label : allowed) one_by_one.Allow(label);
      for (std::size_t many = 0; many <= 64; ++many) {
        std::vector<Label> labels;
        for (std::size_t i = 0; i < many; ++i) {
          const Label near = kBegin - 100 + random() % (size + 200);
          labels.push_back(i % 5 != 0 || allowed.empty() ? near : allowed[random() % allowed.size()]);
          if (i % 17 == 3) labels.back() = i % 2 == 0 ? ~Label{0} : 0;
        }
        std::uint64_t behind = 0;
        const std::uint64_t each = bitmap.AllowsEach(labels, &behind);
        for (std::size_t i = 0; i < 64; ++i) {
          const bool there = i < many;
          ASSERT_EQ((each >> i & 1) != 0, there && one_by_one.Allows(labels[i])) << i;
          ASSERT_EQ((behind >> i & 1) != 0, there && labels[i] >= kBegin + size) << i;
        }
        EXPECT_EQ(bitmap.AllowsEach(labels), each);
        EXPECT_EQ(one_by_one.LabelFilter::AllowsEach(labels), each);
      }
    }
  }
}

TEST(ExcludedLabels, IsTheSetOfWhatWasAdded) {
  std::mt19937_64 random(test::TestSeed());
  ExcludedLabels excluded;
  std::set<Label> oracle;
  EXPECT_TRUE(excluded.Allows(0));
  EXPECT_TRUE(excluded.Allows(~Label{0}));
  for (int i = 0; i < 20'000; ++i) {
    // Near each other, far apart, and again.
    const Label label = i % 3 == 0 ? random() : i % 3 == 1 ? random() % 5000 : ~Label{0} - random() % 100;
    excluded.Add(label);
    oracle.insert(label);
    ASSERT_EQ(excluded.size(), oracle.size());
    const Label other = i % 2 == 0 ? random() % 10'000 : ~Label{0} - random() % 200;
    ASSERT_EQ(excluded.Allows(other), !oracle.contains(other)) << other;
  }
  for (const Label label : oracle) ASSERT_FALSE(excluded.Allows(label)) << label;
}

TEST(ExcludedLabels, SaysHowManyItRefuses) {
  ExcludedLabels excluded;
  EXPECT_EQ(excluded.RefusesAtMost(), 0U);
  for (const Label label : {Label{7}, Label{9}, Label{7}, ~Label{0}}) excluded.Add(label);
  EXPECT_EQ(excluded.RefusesAtMost(), 3U);
  EXPECT_EQ(OnlyLabels({}).RefusesAtMost(), LabelFilter::kUnknown);
}

TEST(OnlyLabels, AllowsThoseAndNoOthers) {
  const std::vector<Label> labels = {3, 900'000'000'000, 7, 3, ~Label{0}};
  const OnlyLabels only(labels);
  for (const Label label : labels) EXPECT_TRUE(only.Allows(label)) << label;
  for (const Label label : {Label{0}, Label{4}, Label{8}, ~Label{0} - 1}) EXPECT_FALSE(only.Allows(label)) << label;
  EXPECT_FALSE(OnlyLabels({}).Allows(0));
}

class FiltersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    HnswOptions options;
    options.dim = kDim;
    options.m = 8;
    options.ef_construction = 60;
    options.capacity = 50'000;
    options.rerank = Rerank::kFp32;  // as exact as the flat index
    flat_ = MakeFlatIndex(kDim, Metric::kCosine);
    auto hnsw = MakeHnswIndex(options);
    ASSERT_OK(hnsw);
    hnsw_ = std::move(*hnsw);
    std::vector<Label> labels(kRows);
    std::iota(labels.begin(), labels.end(), Label{0});
    for (Index* index : {flat_.get(), hnsw_.get()}) {
      ASSERT_OK(index->Insert(labels, set_.values));
      ASSERT_OK(index->Settle());
    }
    const auto cut = hnsw_->Cut();
    ASSERT_OK(cut);
    ASSERT_OK((*cut)->Write(dir_ / "index"));
    auto mapped = OpenMappedIndex(dir_ / "index", true);
    ASSERT_OK(mapped);
    mapped_ = std::move(*mapped);
  }
  // Every kind: full answers of what is allowed alone, and exactly the best by an exact search. Mean recall otherwise.
  double Recall(const SearchOptions& given) const {
    double found = 0;
    double wanted = 0;
    for (std::size_t i = 0; i < queries_.size; ++i) {
      const std::span<const float> query(queries_.Row(i), kDim);
      SearchOptions options = given;
      options.exact = true;
      const auto truth = flat_->Search(query, options);
      EXPECT_OK(truth);
      std::set<Label> best;
      for (const Hit& hit : *truth) best.insert(hit.label);
      for (const Index* index : {flat_.get(), hnsw_.get(), mapped_.get()}) {
        for (const bool exact : {true, false}) {
          options.exact = exact;
          const auto hits = index->Search(query, options);
          EXPECT_OK(hits);
          // Only a count can be promised: what reaches a threshold is found as well as the graph finds anything.
          if (exact || !given.score_threshold) {
            EXPECT_EQ(hits->size(), truth->size());
          }
          EXPECT_LE(hits->size(), truth->size());
          std::size_t right = 0;
          for (const Hit& hit : *hits) {
            EXPECT_TRUE(given.filter == nullptr || given.filter->Allows(hit.label));
            right += best.contains(hit.label) ? 1 : 0;
          }
          if (exact) {
            EXPECT_EQ(right, best.size());
          } else {
            found += static_cast<double>(right);
            wanted += static_cast<double>(best.size());
          }
        }
      }
    }
    return found / wanted;
  }

  const std::uint64_t seed_ = test::TestSeed();
  const test::TempDir dir_;
  const test::VectorSet set_ = test::ClusteredVectors(seed_, 0, kRows, kDim, 100);
  const test::VectorSet queries_ = test::ClusteredVectors(seed_, 1, 100, kDim, 100);
  std::unique_ptr<Index> flat_;
  std::unique_ptr<Index> hnsw_;
  std::unique_ptr<Index> mapped_;
};

TEST_F(FiltersTest, ABitmapOfManyAndOfFew) {
  for (const Label every : {2U, 10U, 900U, 30'000U}) {
    LabelBitmap bitmap(0, kRows);
    for (Label label = 0; label < kRows; label += every) bitmap.Allow(label);
    SearchOptions options;
    options.k = 20;
    options.ef = 80;
    options.filter = &bitmap;
    EXPECT_GE(Recall(options), 0.95) << every;
  }
}

TEST_F(FiltersTest, ListsOfTheBestAndOfAny) {
  SearchOptions options;
  options.k = 20;
  options.ef = 160;
  for (const std::size_t count : {1U, 64U, 300U, 1024U}) {
    ExcludedLabels any;
    std::mt19937_64 random(seed_ + count);
    while (any.size() < count) any.Add(random() % kRows);
    options.filter = &any;
    EXPECT_GE(Recall(options), 0.95) << count;
    // What is nearest to one query is excluded: the search has to come out on the other side of it.
    SearchOptions near;
    near.k = count;
    const auto best = flat_->Search({queries_.Row(0), kDim}, near);
    ASSERT_OK(best);
    ExcludedLabels excluded;
    for (const Hit& hit : *best) excluded.Add(hit.label);
    options.filter = &excluded;
    EXPECT_GE(Recall(options), 0.95) << count;
    options.score_threshold = 0.5F;
    EXPECT_GE(Recall(options), 0.95) << count;
    options.score_threshold.reset();
  }
}

// Each query's own best, so many that the search gives up its walk for a scan: what is behind them is found all the
// same, though the codes tell it apart worse than what is near.
TEST_F(FiltersTest, ListsOfTheBestOfEachQuery) {
  constexpr std::size_t kBest = 5'000;
  SearchOptions options;
  options.k = 10;
  options.ef = 40;
  double found = 0;
  for (std::size_t i = 0; i < queries_.size; ++i) {
    const std::span<const float> query(queries_.Row(i), kDim);
    SearchOptions all;
    all.k = kBest + options.k;
    const auto best = flat_->Search(query, all);
    ASSERT_OK(best);
    ExcludedLabels excluded;
    for (std::size_t at = 0; at < kBest; ++at) excluded.Add((*best)[at].label);
    options.filter = &excluded;
    const auto hits = hnsw_->Search(query, options);
    ASSERT_OK(hits);
    ASSERT_EQ(hits->size(), options.k);
    for (const Hit& hit : *hits) {
      found += std::any_of(best->begin() + kBest, best->end(), [&](const Hit& one) { return one.label == hit.label; });
    }
  }
  EXPECT_GE(found, 0.95 * static_cast<double>(options.k * queries_.size));
}

// A scan scores what is allowed, and nothing else: as the oracle does, for few and for many, bits and lists.
TEST_F(FiltersTest, AScanFindsTheBestOfWhatIsAllowed) {
  for (const Label every : {1U, 3U, 50U, 4'000U, 30'000U}) {
    LabelBitmap bitmap(0, kRows);
    std::vector<Label> labels;
    for (Label label = 0; label < kRows; label += every) labels.push_back(label);
    for (const Label label : labels) bitmap.Allow(label);
    const OnlyLabels listed(labels);
    for (const LabelFilter* filter :
         {static_cast<const LabelFilter*>(&bitmap), static_cast<const LabelFilter*>(&listed)}) {
      SearchOptions options;
      options.k = 20;
      options.ef = 80;
      options.filter = filter;
      EXPECT_GE(Recall(options), 0.95) << every;
      options.scan = true;
      EXPECT_GE(Recall(options), 0.999) << "every " << every << ": nothing is missed for want of a way";
    }
  }
}

TEST_F(FiltersTest, AllButAFew) {
  ExcludedLabels excluded;
  for (Label label = 5; label < kRows; ++label) excluded.Add(label);
  SearchOptions options;
  options.k = 20;
  options.filter = &excluded;
  EXPECT_EQ(Recall(options), 1);
}

}  // namespace
}  // namespace freshet
