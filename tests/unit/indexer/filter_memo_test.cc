// What an index remembers of lasting filters, against filters that nothing is remembered of: nothing that lives and
// matches is ever missed, nothing else returned, whatever comes, goes and changes in between.
#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "freshet_test/test_support.h"
#include "hnsw_index.h"
#include "slot_changes.h"

namespace freshet {
namespace {

constexpr int kDim = 8;
constexpr int kGroups = 4;

// Which group each label belongs to: what filters go by.
using Groups = std::map<Label, int>;

class Plain final : public LabelFilter {
 public:
  Plain(Groups groups, int group) : groups_(std::move(groups)), group_(group) {}
  [[nodiscard]] bool Allows(Label label) const override {
    const auto found = groups_.find(label);
    return found != groups_.end() && found->second == group_;
  }

 private:
  const Groups groups_;  // as they were
  const int group_;
};

class Lasting final : public LastingFilter {
 public:
  Lasting(const Index& index, const Groups& groups, int group)
      : as_of_(index.Changes()), plain_(groups, group), key_(static_cast<std::uint64_t>(group) + 1) {}
  [[nodiscard]] std::uint64_t key() const override { return key_; }
  [[nodiscard]] std::uint64_t as_of() const override { return as_of_; }
  [[nodiscard]] bool Allows(Label label) const override {
    ++asked;
    return plain_.Allows(label);
  }
  [[nodiscard]] const LastingFilter* lasting() const override { return this; }

  mutable std::size_t asked = 0;

 private:
  const std::uint64_t as_of_;
  const Plain plain_;
  const std::uint64_t key_;
};

// Some labels more than the lasting part may not be returned.
class Excluding final : public LabelFilter {
 public:
  Excluding(const Lasting& lasting, std::set<Label> excluded) : lasting_(lasting), excluded_(std::move(excluded)) {}
  [[nodiscard]] bool Allows(Label label) const override { return !excluded_.contains(label) && lasting_.Allows(label); }
  [[nodiscard]] const LastingFilter* lasting() const override { return &lasting_; }

 private:
  const Lasting& lasting_;
  const std::set<Label> excluded_;
};

class FilterMemoTest : public ::testing::Test {
 protected:
  explicit FilterMemoTest(std::size_t memo_bytes = std::size_t{1} << 20) {
    std::printf("seed %u\n", kSeed);
    options_.dim = kDim;
    options_.metric = Metric::kL2;
    options_.m = 8;
    options_.ef_construction = 40;
    options_.capacity = 200'000;
    options_.filter_memo_bytes = memo_bytes;
    index_ = std::make_unique<HnswIndex>(options_);
  }
  std::vector<float> Vector() {
    std::vector<float> vector(kDim);
    for (float& x : vector) x = normal_(random_);
    return vector;
  }
  // As an item comes: into the index, then to be known to filters.
  void Insert(std::size_t count) {
    std::vector<Label> labels;
    std::vector<float> vectors;
    for (std::size_t i = 0; i < count; ++i) {
      labels.push_back(next_label_++);
      const std::vector<float> vector = Vector();
      vectors.insert(vectors.end(), vector.begin(), vector.end());
    }
    ASSERT_OK(index_->Insert(labels, vectors));
    for (const Label label : labels) groups_[label] = static_cast<int>(random_() % kGroups);
    index_->Reconsider(labels);
  }
  Label Any() {
    auto at = groups_.lower_bound(random_() % next_label_);
    return (at == groups_.end() ? groups_.begin() : at)->first;
  }
  void Delete(std::size_t count) {
    for (std::size_t i = 0; i < count && !groups_.empty(); ++i) {
      const Label label = Any();
      groups_.erase(label);
      index_->Tombstone({&label, 1});
    }
  }
  void Regroup(Label label, int group) {
    groups_[label] = group;
    index_->Reconsider({&label, 1});
  }
  [[nodiscard]] std::vector<Label> Find(const LabelFilter& filter, std::span<const float> query, bool exact, bool scan,
                                        std::size_t k = 20) const {
    SearchOptions options;
    options.k = k;
    options.exact = exact;
    options.scan = scan;
    options.filter = &filter;
    const auto hits = index_->Search(query, options);
    EXPECT_OK(hits);
    std::vector<Label> labels;
    for (const Hit& hit : *hits) labels.push_back(hit.label);
    return labels;
  }
  void ExpectSame(int group) {
    const std::vector<float> query = Vector();
    const Plain plain(groups_, group);
    const Lasting lasting(*index_, groups_, group);
    EXPECT_EQ(Find(lasting, query, true, false), Find(plain, query, true, false)) << "group " << group;
    // The ways that miss a little return as many all the same, and nothing else.
    const auto matching = static_cast<std::size_t>(
        std::count_if(groups_.begin(), groups_.end(), [&](const auto& one) { return one.second == group; }));
    for (const bool scan : {false, true}) {
      const std::vector<Label> found = Find(lasting, query, false, scan);
      EXPECT_EQ(found.size(), std::min<std::size_t>(matching, 20));
      EXPECT_TRUE(std::all_of(found.begin(), found.end(), [&](Label label) { return plain.Allows(label); }));
    }
  }

  static constexpr unsigned kSeed = 20261127;
  std::mt19937_64 random_{kSeed};
  std::normal_distribution<float> normal_;
  HnswOptions options_;
  std::unique_ptr<HnswIndex> index_;
  Groups groups_;
  Label next_label_ = 1'000;
};

TEST_F(FilterMemoTest, WhatComesGoesAndChangesIsFoundAsIfNothingWereRemembered) {
  Insert(2'000);
  for (int step = 0; step < 400; ++step) {
    switch (random_() % 6) {
      case 0:
        Insert(1 + random_() % 40);
        break;
      case 1:
        Delete(1 + random_() % 40);
        break;
      case 2:
        for (std::size_t i = random_() % 30; i > 0; --i) Regroup(Any(), static_cast<int>(random_() % kGroups));
        break;
      case 3:
        ASSERT_OK(index_->Maintain());
        break;
      default:
        ExpectSame(static_cast<int>(random_() % kGroups));
    }
  }
  ASSERT_OK(index_->Settle());
  for (int group = 0; group < kGroups; ++group) ExpectSame(group);
  EXPECT_GT(index_->Stats().filter_bytes, 0U);
}

TEST_F(FilterMemoTest, TheFilterIsAskedOfAllOnceAndThenOfWhatChanged) {
  Insert(5'000);
  ASSERT_OK(index_->Settle());
  const std::vector<float> query = Vector();
  const auto asked = [&] {
    const Lasting lasting(*index_, groups_, 1);
    EXPECT_EQ(Find(lasting, query, false, true).size(), 20U);
    return lasting.asked;
  };
  EXPECT_GE(asked(), 5'000U);
  const std::size_t again = asked();
  EXPECT_LT(again, 200U);  // those that are returned
  for (int i = 0; i < 10; ++i) Regroup(Any(), 1);
  const std::size_t changed = asked();
  EXPECT_GE(changed, again);
  EXPECT_LT(changed, again + 50);
}

TEST_F(FilterMemoTest, AnswersOfBeforeAChangeAreNotRememberedPastIt) {
  Insert(2'000);
  const std::vector<float> query = Vector();
  const std::vector<Label> nearest = Find(Plain(groups_, 2), query, true, false, 1);
  ASSERT_EQ(nearest.size(), 1U);
  // It went by the groups as they were, and searches only now that they have changed.
  const Lasting before(*index_, groups_, 3);
  Regroup(nearest[0], 3);
  (void)Find(before, query, true, false);
  const Lasting after(*index_, groups_, 3);
  EXPECT_EQ(Find(after, query, true, false), Find(Plain(groups_, 3), query, true, false));
  // And one that comes late does not take back what is newer.
  (void)Find(before, query, true, false);
  EXPECT_EQ(Find(after, query, true, false), Find(Plain(groups_, 3), query, true, false));
}

// A filter by a rule, which knows labels before they come.
class EveryThird final : public LastingFilter {
 public:
  explicit EveryThird(const Index& index) : as_of_(index.Changes()) {}
  [[nodiscard]] std::uint64_t key() const override { return 77; }
  [[nodiscard]] std::uint64_t as_of() const override { return as_of_; }
  [[nodiscard]] bool Allows(Label label) const override { return label % 3 == 0; }
  [[nodiscard]] const LastingFilter* lasting() const override { return this; }

 private:
  const std::uint64_t as_of_;
};

// The other one has remembered more than this one knew, but not the row that has come since.
TEST_F(FilterMemoTest, WhatCameSinceANewerOneWasRememberedIsFoundByAnOlderOne) {
  next_label_ = 0;
  Insert(2'001);
  ASSERT_NE(index_->Stats().slots % 64, 0U) << "the new row was meant to be in a word that is there";
  const EveryThird before(*index_);
  Regroup(Any(), 1);
  const EveryThird after(*index_);
  const std::vector<float> query = Vector();
  (void)Find(after, query, true, false);
  const Label nearest = 3'000;
  ASSERT_OK(index_->Insert({&nearest, 1}, query));
  EXPECT_EQ(Find(before, query, true, false).front(), nearest);
  EXPECT_EQ(Find(after, query, true, false).front(), nearest);
}

TEST_F(FilterMemoTest, MoreChangesThanAreKeptAreNoneForgotten) {
  Insert(2'000);
  ExpectSame(0);
  const Label label = Any();
  for (int i = 0; i < 70'000; ++i) index_->Reconsider({&label, 1});
  for (int i = 0; i < 300; ++i) Regroup(Any(), static_cast<int>(random_() % kGroups));
  for (int i = 0; i < 70'000; ++i) index_->Reconsider({&label, 1});
  ExpectSame(0);
  ExpectSame(0);
}

TEST_F(FilterMemoTest, ExcludedOnesAreNoneOfIt) {
  Insert(3'000);
  ASSERT_OK(index_->Settle());
  const std::vector<float> query = Vector();
  const Lasting lasting(*index_, groups_, 1);
  const std::vector<Label> best = Find(lasting, query, true, false, 200);
  ASSERT_EQ(best.size(), 200U);
  const Excluding excluding(lasting, {best.begin(), best.begin() + 150});
  const std::vector<Label> left(best.begin() + 150, best.begin() + 170);
  EXPECT_EQ(Find(excluding, query, true, false), left);
  for (const bool scan : {false, true}) {
    const std::vector<Label> found = Find(excluding, query, false, scan);
    EXPECT_EQ(found.size(), 20U);
    EXPECT_TRUE(std::none_of(found.begin(), found.end(),
                             [&](Label label) { return std::count(best.begin(), best.begin() + 150, label) > 0; }));
  }
  // They were this request's own.
  EXPECT_EQ(Find(lasting, query, true, false, 200), best);
}

TEST_F(FilterMemoTest, ARebuildForgetsWhichSlotsTheyWere) {
  Insert(12'000);
  ASSERT_OK(index_->Settle());
  ExpectSame(1);
  const Lasting before(*index_, groups_, 1);
  while (groups_.size() > 2'000) Delete(500);
  ASSERT_TRUE(test::WaitFor([&] {
    EXPECT_OK(index_->Maintain());
    EXPECT_OK(index_->Settle());
    return index_->Stats().rebuilds > 0;
  }));
  const std::vector<float> query = Vector();
  (void)Find(before, query, true, false);  // of numbers before the rebuild
  for (int i = 0; i < 3; ++i) {
    for (int group = 0; group < kGroups; ++group) ExpectSame(group);
    Insert(100);
    Regroup(Any(), 1);
  }
}

class SmallMemoTest : public FilterMemoTest {
 protected:
  SmallMemoTest() : FilterMemoTest(2'000) {}
};

TEST_F(SmallMemoTest, WhatIsRememberedHasABound) {
  Insert(4'000);  // 500 bytes a filter
  for (int round = 0; round < 3; ++round) {
    for (int group = 0; group < kGroups; ++group) ExpectSame(group);
    EXPECT_LE(index_->Stats().filter_bytes, 2'000U);
  }
  EXPECT_GT(index_->Stats().filter_bytes, 0U);
}

class NoMemoTest : public FilterMemoTest {
 protected:
  NoMemoTest() : FilterMemoTest(0) {}
};

TEST_F(NoMemoTest, NothingIsRememberedWhereNothingMayBe) {
  Insert(1'000);
  for (int group = 0; group < kGroups; ++group) ExpectSame(group);
  EXPECT_EQ(index_->Stats().filter_bytes, 0U);
}

TEST(SlotChanges, TellWhatCameAfter) {
  SlotChanges changes(100);
  std::vector<std::uint32_t> slots;
  EXPECT_TRUE(changes.After(100, &slots));
  EXPECT_TRUE(slots.empty());
  changes.Add(7);
  changes.Add(9);
  EXPECT_TRUE(changes.After(100, &slots));
  EXPECT_EQ(slots, (std::vector<std::uint32_t>{7, 9}));
  EXPECT_TRUE(changes.After(101, &slots));
  EXPECT_EQ(slots, std::vector<std::uint32_t>{9});
  EXPECT_FALSE(changes.After(99, &slots)) << "of another segment";
  EXPECT_FALSE(changes.After(103, &slots)) << "not there yet";
  for (int i = 0; i < 100'000; ++i) changes.Add(1);
  EXPECT_FALSE(changes.After(100, &slots)) << "too long ago";
}

}  // namespace
}  // namespace freshet
