#include "http_slots.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace freshet {
namespace {

using Entry = RequestSlots::Entry;
using Place = RequestSlots::Place;

class RequestSlotsTest : public ::testing::Test {
 protected:
  // Queues under a name; the place is kept until Leave().
  Entry Enter(RequestSlots* slots, const std::string& name, bool may_be_refused = true) {
    Place place;
    const Entry entry = slots->Enter(may_be_refused, &place, [&] {
      ++turns_made_;
      return [this, name](Place turn) {
        order_ += name;
        places_.push_back(std::move(turn));
      };
    });
    if (entry == Entry::kEntered) places_.push_back(std::move(place));
    return entry;
  }
  void LeaveOne() {
    Place leaving = std::move(places_.front());
    places_.erase(places_.begin());
  }
  double Queued() { return metrics_.GetGauge("freshet_http_queued_requests", "").Value(); }
  double QueueTimes() { return metrics_.GetHistogram("freshet_http_queue_seconds", "").Count(); }

  ManualClock clock_;
  Metrics metrics_;
  std::vector<Place> places_;
  std::string order_;
  int turns_made_ = 0;
};

TEST_F(RequestSlotsTest, WhoFindsAPlaceEntersAtOnce) {
  RequestSlots slots(2, 8, &clock_, &metrics_);
  EXPECT_EQ(Enter(&slots, "a"), Entry::kEntered);
  EXPECT_EQ(Enter(&slots, "b"), Entry::kEntered);
  EXPECT_EQ(turns_made_, 0);
  LeaveOne();
  EXPECT_EQ(Enter(&slots, "c"), Entry::kEntered);
  EXPECT_EQ(turns_made_, 0);
  EXPECT_EQ(QueueTimes(), 0);
  places_.clear();
}

TEST_F(RequestSlotsTest, OthersComeInTheirOrder) {
  RequestSlots slots(1, 8, &clock_, &metrics_);
  EXPECT_EQ(Enter(&slots, "a"), Entry::kEntered);
  EXPECT_EQ(Enter(&slots, "b"), Entry::kQueued);
  EXPECT_EQ(Enter(&slots, "c"), Entry::kQueued);
  EXPECT_EQ(Queued(), 2);
  clock_.AdvanceMs(20);
  LeaveOne();
  EXPECT_EQ(order_, "b");
  EXPECT_EQ(Enter(&slots, "d"), Entry::kQueued) << "the place was handed on, nobody passes the queue";
  LeaveOne();
  LeaveOne();
  EXPECT_EQ(order_, "bcd");
  EXPECT_EQ(Queued(), 0);
  EXPECT_EQ(QueueTimes(), 3);
  EXPECT_GT(metrics_.GetHistogram("freshet_http_queue_seconds", "").Quantile(0.99), 0.015);
  LeaveOne();
  EXPECT_EQ(Enter(&slots, "e"), Entry::kEntered);
  places_.clear();
}

TEST_F(RequestSlotsTest, TheQueueIsBounded) {
  RequestSlots slots(1, 1, &clock_, &metrics_);
  EXPECT_EQ(Enter(&slots, "a"), Entry::kEntered);
  EXPECT_EQ(Enter(&slots, "b"), Entry::kQueued);
  EXPECT_EQ(Enter(&slots, "c"), Entry::kFull);
  EXPECT_EQ(turns_made_, 1);
  // Who may not be refused does not take the others' room either.
  EXPECT_EQ(Enter(&slots, "d", false), Entry::kQueued);
  LeaveOne();
  EXPECT_EQ(Enter(&slots, "e"), Entry::kQueued);
  EXPECT_EQ(Enter(&slots, "f"), Entry::kFull);
  while (!places_.empty()) LeaveOne();
  EXPECT_EQ(order_, "bde");
}

TEST_F(RequestSlotsTest, ATurnThatThrowsDoesNotKeepThePlace) {
  RequestSlots slots(1, 8, &clock_, &metrics_);
  EXPECT_EQ(Enter(&slots, "a"), Entry::kEntered);
  Place none;
  EXPECT_EQ(slots.Enter(true, &none, [] { return [](Place) { throw std::runtime_error("no memory"); }; }),
            Entry::kQueued);
  EXPECT_EQ(Enter(&slots, "b"), Entry::kQueued);
  LeaveOne();
  EXPECT_EQ(order_, "b");
  places_.clear();
  EXPECT_EQ(Enter(&slots, "c"), Entry::kEntered);
  places_.clear();
}

TEST_F(RequestSlotsTest, ClosingDropsThoseThatQueue) {
  RequestSlots slots(1, 8, &clock_, &metrics_);
  const auto alive = std::make_shared<int>(0);
  EXPECT_EQ(Enter(&slots, "a"), Entry::kEntered);
  Place none;
  EXPECT_EQ(slots.Enter(true, &none, [&] { return [alive](Place) { ADD_FAILURE() << "called"; }; }), Entry::kQueued);
  EXPECT_EQ(alive.use_count(), 2);
  slots.Close();
  EXPECT_EQ(alive.use_count(), 1);
  EXPECT_EQ(Queued(), 0);
  EXPECT_EQ(Enter(&slots, "b"), Entry::kFull);
  EXPECT_EQ(Enter(&slots, "c", false), Entry::kFull);
  LeaveOne();
}

TEST_F(RequestSlotsTest, NeverMoreThanThereArePlacesAndEveryoneHasATurn) {
  constexpr int kThreads = 8;
  constexpr int kRounds = 500;
  constexpr int kPlaces = 3;
  SystemClock clock;
  RequestSlots slots(kPlaces, 1'000, &clock, &metrics_);
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<int> served{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        const auto turn = std::make_shared<std::promise<Place>>();
        Place place;
        const Entry entry =
            slots.Enter(true, &place, [&] { return [turn](Place given) { turn->set_value(std::move(given)); }; });
        ASSERT_NE(entry, Entry::kFull);
        if (entry == Entry::kQueued) place = turn->get_future().get();
        const int now = ++inside;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::yield();
        --inside;
        ++served;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, kPlaces);
  EXPECT_EQ(served, kThreads * kRounds);
  EXPECT_EQ(Queued(), 0);
}

}  // namespace
}  // namespace freshet
