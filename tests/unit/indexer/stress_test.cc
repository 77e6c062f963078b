// All at once: writers, deleters, searchers, pages of labels, audits, consolidations, rebuilds and cuts, for
// FRESHET_STRESS_SECONDS (4), against an oracle of each label. After Insert has returned a label is in every exact
// search for its vector, and nearly always in an approximate one; after Tombstone has returned it is in no search, and
// no page of labels, that begins then; no label comes twice; a cut holds what was live at its moment; and counts are
// exact at the end.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>

#include "freshet/core/strings.h"
#include "freshet/indexer/label_filters.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

constexpr int kDim = 16;
constexpr std::size_t kLabels = 8'000'000;
constexpr std::size_t kHigh = 6000;  // live rows go up and down between these, so that rebuilds are due, too
constexpr std::size_t kLow = 1200;

double Seconds() {
  const char* given = std::getenv("FRESHET_STRESS_SECONDS");
  return given != nullptr ? std::atof(given) : 4;
}

std::vector<float> VectorOf(Label label) {
  std::mt19937_64 random(label * 0x9e3779b97f4a7c15ULL + 1);
  std::normal_distribution<float> normal;
  std::vector<float> vector(kDim);
  // Around a hundred centres. (A distribution each: one keeps half of what it draws for the next call.)
  std::mt19937_64 centre_random(label % 100);
  std::normal_distribution<float> centre;
  for (float& x : vector) x = centre(centre_random) + 0.5F * normal(random);
  return vector;
}

// What is known of each label. `gone` is when its tombstone had returned, by a clock that counts them; 0: it has not.
class Oracle {
 public:
  enum State : std::uint8_t { kUnborn, kComing, kLive, kLeaving };
  Oracle() : states_(kLabels), gone_(kLabels) {}
  void Set(Label label, State state) { states_[label] = state; }
  [[nodiscard]] bool Is(Label label, State state) const { return states_[label] == state; }
  void Gone(Label label) { gone_[label] = ++clock_; }
  [[nodiscard]] std::uint32_t Now() const { return clock_; }
  [[nodiscard]] bool WasGoneAt(Label label, std::uint32_t moment) const {
    const std::uint32_t gone = gone_[label];
    return gone != 0 && gone <= moment;
  }

 private:
  std::vector<std::atomic<std::uint8_t>> states_;
  std::vector<std::atomic<std::uint32_t>> gone_;
  std::atomic<std::uint32_t> clock_{0};
};

// A third of all labels, for ever: so what is remembered of it is never told to be wrong.
class Third final : public LastingFilter {
 public:
  Third(std::uint64_t rest, std::uint64_t as_of) : rest_(rest), as_of_(as_of) {}
  [[nodiscard]] std::uint64_t key() const override { return rest_ + 1; }
  [[nodiscard]] std::uint64_t as_of() const override { return as_of_; }
  [[nodiscard]] bool Allows(Label label) const override { return label % 3 == rest_; }
  [[nodiscard]] const LastingFilter* lasting() const override { return this; }

 private:
  const std::uint64_t rest_;
  const std::uint64_t as_of_;
};

class Stress {
 public:
  Stress(std::uint64_t seed, std::size_t max_fresh) : seed_(seed) {
    HnswOptions options;
    options.dim = kDim;
    options.metric = Metric::kL2;
    options.m = 8;
    options.ef_construction = 40;
    options.capacity = 200'000;
    options.max_fresh = max_fresh;
    options.link_threads = 2;
    options_ = options;
    auto index = MakeHnswIndex(options);
    EXPECT_OK(index);
    index_ = std::move(*index);
  }

  void Run(double seconds) {
    std::vector<std::thread> threads;
    threads.emplace_back([&] { Write(); });
    threads.emplace_back([&] { Delete(); });
    for (std::uint64_t i = 0; i < 2; ++i) threads.emplace_back([&, i] { Search(seed_ + 10 + i); });
    threads.emplace_back([&] { Audit(); });
    threads.emplace_back([&] { Cut(); });
    threads.emplace_back([&] { PageLabels(); });
    const auto begin = std::chrono::steady_clock::now();
    // For as long as asked, and until each has done something: on a busy machine that may be later.
    EXPECT_TRUE(test::WaitFor(
        [&] {
          const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
          if (::testing::Test::HasFailure() || next_ >= kLabels - 100) return true;
          return elapsed.count() >= seconds && searches_ > 200 && audits_ > 0 && cuts_ > 0 && pages_ > 0 &&
                 index_->Stats().consolidations > 0 && index_->Stats().rebuilds > 0;
        },
        static_cast<int>(seconds * 1000) + 100'000));
    stop_ = true;
    for (std::thread& thread : threads) thread.join();
    ASSERT_OK(index_->Settle());
    std::sort(live_.begin(), live_.end());
    EXPECT_EQ(index_->LiveLabels(), live_);
    EXPECT_EQ(index_->Stats().live, live_.size());
    EXPECT_EQ(index_->Stats().fresh, 0U);
    // What may be missed is what the graph does not lead to.
    EXPECT_LE(missed_ * 100, approximate_) << "of " << approximate_;
    std::printf("%llu rows, %d searches (%d of %d missed), %d audits, %d cuts, %zu consolidations, %zu rebuilds\n",
                static_cast<unsigned long long>(next_), searches_.load(), missed_.load(), approximate_.load(),
                audits_.load(), cuts_.load(), index_->Stats().consolidations, index_->Stats().rebuilds);
  }

 private:
  // --- One at a time, as the port has it: under writing_.

  void Write() {
    std::mt19937_64 random(seed_);
    while (!stop_ && next_ < kLabels - 100) {
      if (full_) {
        std::this_thread::yield();
        continue;
      }
      const std::lock_guard lock(writing_);
      std::vector<Label> labels;
      std::vector<float> vectors;
      for (std::size_t i = 0; i <= random() % 40; ++i) {
        const Label label = next_++;
        labels.push_back(label);
        oracle_.Set(label, Oracle::kComing);
        const std::vector<float> vector = VectorOf(label);
        vectors.insert(vectors.end(), vector.begin(), vector.end());
      }
      EXPECT_OK(index_->Insert(labels, vectors));
      for (const Label label : labels) oracle_.Set(label, Oracle::kLive);
      live_.insert(live_.end(), labels.begin(), labels.end());
      EXPECT_OK(index_->Maintain());
      full_ = live_.size() >= kHigh;
    }
  }

  void Delete() {
    std::mt19937_64 random(seed_ + 1);
    while (!stop_) {
      const std::lock_guard lock(writing_);
      // While the rows grow, half as many as came; many while they shrink; now and then what came last, which is not
      // linked yet.
      const std::size_t most = full_ ? 60 : static_cast<std::size_t>(next_ - deleted_up_to_) / 2;
      deleted_up_to_ = next_;
      std::vector<Label> labels;
      for (std::size_t i = 0; i < most && !live_.empty(); ++i) {
        std::swap(live_[random() % 4 == 0 ? live_.size() - 1 : random() % live_.size()], live_.back());
        labels.push_back(live_.back());
        live_.pop_back();
      }
      for (const Label label : labels) oracle_.Set(label, Oracle::kLeaving);
      index_->Tombstone(labels);
      for (const Label label : labels) oracle_.Gone(label);
      EXPECT_OK(index_->Maintain());
      if (full_ && live_.size() < kLow) Rest();
    }
  }

  // At the lowest the rebuild is waited for that is due there.
  void Rest() {
    const std::size_t rebuilds = index_->Stats().rebuilds;
    (void)test::WaitFor(
        [&] {
          EXPECT_OK(index_->Maintain());
          return stop_ || index_->Stats().rebuilds > rebuilds;
        },
        30'000);
    full_ = false;
  }

  void Cut() {
    const test::TempDir dir;
    for (Label next = 0; !stop_; next = next_ + 1000) {
      // While one is there no slot is freed: not always one.
      if (!test::WaitFor([&] { return stop_ || next_ >= next; })) continue;
      std::vector<Label> expected;
      Result<std::unique_ptr<IndexCut>> cut = Internal("none");
      {
        const std::lock_guard lock(writing_);
        cut = index_->Cut();
        expected = live_;
      }
      ASSERT_OK(cut);
      const std::string path = dir / StrCat("cut", cuts_.load());
      ASSERT_OK((*cut)->Write(path));
      *cut = nullptr;
      std::sort(expected.begin(), expected.end());
      const auto mapped = OpenMappedIndex(path, true);
      ASSERT_OK(mapped);
      ASSERT_EQ((*mapped)->LiveLabels(), expected);
      if (cuts_ % 4 == 0) {
        const auto opened = OpenHnswIndex(path, options_);
        ASSERT_OK(opened);
        ASSERT_EQ((*opened)->LiveLabels(), expected);
      }
      std::filesystem::remove(path);
      ++cuts_;
    }
  }

  // --- Any number at a time.

  void Audit() {
    while (!stop_) {
      AuditOptions options;
      options.seed = static_cast<std::uint64_t>(audits_);
      const auto health = index_->Audit(options);
      ASSERT_OK(health);
      ++audits_;
    }
  }

  // As store's auditor asks for them.
  void PageLabels() {
    constexpr std::size_t kPage = 500;
    while (!stop_ && !::testing::Test::HasFailure()) {
      for (Label from = 0;;) {
        const std::uint32_t begin = oracle_.Now();
        const std::vector<Label> page = index_->LiveLabelsFrom(from, kPage);
        for (std::size_t i = 0; i < page.size(); ++i) {
          ASSERT_LT(page[i], kLabels);
          ASSERT_GE(page[i], i == 0 ? from : page[i - 1] + 1) << "not ascending, or twice";
          ASSERT_FALSE(oracle_.Is(page[i], Oracle::kUnborn)) << page[i];
          ASSERT_FALSE(oracle_.WasGoneAt(page[i], begin)) << page[i] << " was gone when the page was asked for";
        }
        ++pages_;
        if (page.size() < kPage) break;
        from = page.back() + 1;
      }
    }
  }

  void Search(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!stop_ && !::testing::Test::HasFailure()) {
      const Label next = next_;
      const Label wanted = next - std::min<Label>(next, 1 + random() % 12'000);
      const bool was_live = oracle_.Is(wanted, Oracle::kLive);
      const std::uint32_t begin = oracle_.Now();
      SearchOptions options;
      options.k = 1 + random() % 30;
      options.exact = random() % 4 == 0;
      options.ef = random() % 2 == 0 ? 0 : options.k + 30;
      ExcludedLabels excluded;
      const Third third(random() % 3, index_->Changes());
      if (const auto kind = random() % 6; kind < 2) {
        options.filter = &third;
      } else if (kind < 4) {
        for (int i = 0; i < 50; ++i) excluded.Add(next - std::min<Label>(next, 1 + random() % 12'000));
        options.filter = &excluded;
      }
      const auto hits = index_->Search(VectorOf(wanted), options);
      ASSERT_OK(hits);
      ASSERT_LE(hits->size(), options.k);
      std::vector<Label> labels;
      for (const Hit& hit : *hits) {
        labels.push_back(hit.label);
        ASSERT_LT(hit.label, kLabels);
        ASSERT_FALSE(oracle_.Is(hit.label, Oracle::kUnborn)) << hit.label;
        ASSERT_FALSE(oracle_.WasGoneAt(hit.label, begin)) << hit.label << " was gone when the search began";
        ASSERT_TRUE(options.filter == nullptr || options.filter->Allows(hit.label))
            << hit.label << " may not be returned";
      }
      std::sort(labels.begin(), labels.end());
      ASSERT_TRUE(std::adjacent_find(labels.begin(), labels.end()) == labels.end()) << "a label twice";
      ++searches_;
      if (!was_live || !oracle_.Is(wanted, Oracle::kLive)) continue;
      if (options.filter != nullptr && !options.filter->Allows(wanted)) continue;
      const bool found = std::binary_search(labels.begin(), labels.end(), wanted);
      if (options.exact) {
        ASSERT_TRUE(found) << wanted << " was there all the time";
      } else {
        ++approximate_;
        missed_ += found ? 0 : 1;
      }
    }
  }

  const std::uint64_t seed_;
  HnswOptions options_;
  std::unique_ptr<Index> index_;
  Oracle oracle_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> full_{false};
  std::atomic<Label> next_{0};
  std::atomic<int> searches_{0};
  std::atomic<int> approximate_{0};
  std::atomic<int> missed_{0};
  std::atomic<int> audits_{0};
  std::atomic<int> cuts_{0};
  std::atomic<int> pages_{0};
  std::mutex writing_;
  // Guarded by writing_:
  std::vector<Label> live_;
  Label deleted_up_to_ = 0;
};

// A fresh segment that is nearly always full, and one that seldom is.
TEST(IndexStress, AFewFreshRows) { Stress(test::TestSeed(), 16).Run(Seconds() / 2); }
TEST(IndexStress, ManyFreshRows) { Stress(test::TestSeed(), 4096).Run(Seconds() / 2); }

}  // namespace
}  // namespace freshet
