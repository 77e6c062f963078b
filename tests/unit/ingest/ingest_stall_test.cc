// Something later takes nothing for long: a full queue, a dead-letter topic, a schema registry. The group must not
// think that we are gone, and what it gives to others meanwhile must leave our answers.
#include <chrono>
#include <set>

#include "stage_fixture.h"

namespace freshet {
namespace {

using Told = std::vector<std::vector<std::int32_t>>;

class IngestStallTest : public IngestStageTest {
 protected:
  IngestStallTest() {
    on_owned_ = [this](const std::vector<TopicPartition>& owned) {
      const std::lock_guard lock(told_mu_);
      auto& partitions = told_.emplace_back();
      for (const TopicPartition& partition : owned) partitions.push_back(partition.partition);
    };
  }
  ~IngestStallTest() override {
    // Whatever still waits, also where a check failed.
    out_.Close();
    letters_.Cork(false);
    if (stage_ != nullptr) stage_->Stop();
  }
  Told told() {
    const std::lock_guard lock(told_mu_);
    return told_;
  }
  void Change(PollResult::Kind kind, bool lost = false) {
    FakeSource::Fed fed;
    fed.kind = kind;
    fed.lost = lost;
    source_.Feed(fed);
  }
  void Assign(const std::vector<std::int32_t>& partitions) {
    source_.SetOwned(partitions);
    Change(PollResult::Kind::kAssigned);
  }

  std::mutex told_mu_;
  Told told_;  // guarded by told_mu_
};

// A queue that stays full: the source is kept alive, nothing is lost.
TEST_F(IngestStallTest, WhileALaterStageTakesNothingTheSourceIsKeptAlive) {
  options_.max_batch_records = 1;
  Start();
  for (std::int64_t i = 0; i < 20; ++i) source_.Item(i);  // the queue holds 16
  ASSERT_TRUE(WaitFor([&] { return source_.kept_alive_ > 0; }));
  std::set<std::int64_t> offsets;
  while (offsets.size() < 20) {
    const auto batch = NextBatch();
    ASSERT_TRUE(batch.has_value());
    for (const Event& event : batch->events) offsets.insert(event.position.offset);
  }
}

// The queue stays full; the changes come behind the records that were read before them, and are told before those
// moved.
TEST_F(IngestStallTest, WhatIsLostWhileTheQueueIsFullIsToldAtOnceAndRecordsKeepTheirOrder) {
  options_.max_batch_records = 1;
  Assign({0, 1});
  Start();
  ASSERT_TRUE(WaitFor([&] { return told() == Told{{0, 1}}; }));
  for (std::int64_t i = 0; i < 20; ++i) source_.Item(i);  // the queue holds 16
  ASSERT_TRUE(WaitFor([&] { return source_.kept_alive_ > 0; }));
  source_.SetOwned({1});
  Change(PollResult::Kind::kRevoked);
  Change(PollResult::Kind::kAssigned);
  ASSERT_TRUE(WaitFor([&] { return told() == (Told{{0, 1}, {1}}); })) << "nothing was taken from the queue yet";
  source_.SetOwned({});
  Change(PollResult::Kind::kRevoked, /*lost=*/true);
  ASSERT_TRUE(WaitFor([&] { return told() == (Told{{0, 1}, {1}, {}}); }));
  for (std::int64_t i = 20; i < 22; ++i) source_.Item(i);
  for (std::int64_t offset = 0; offset < 22;) {
    const auto batch = NextBatch();
    ASSERT_TRUE(batch.has_value());
    for (const Event& event : batch->events) EXPECT_EQ(event.position.offset, offset++);
  }
  EXPECT_EQ(told(), (Told{{0, 1}, {1}, {}})) << "a change that came late must not show again what was lost since";
}

TEST_F(IngestStallTest, WhatIsLostWhileDeadLettersWaitIsToldAtOnce) {
  letters_.Cork(true);
  Assign({0});
  Start();
  source_.Item(0, "no json");
  ASSERT_TRUE(WaitFor([&] { return source_.kept_alive_ > 0; }));
  source_.SetOwned({});
  Change(PollResult::Kind::kRevoked, /*lost=*/true);
  EXPECT_TRUE(WaitFor([&] { return told() == (Told{{0}, {}}); }));
  EXPECT_TRUE(letters_.taken().empty());
}

TEST_F(IngestStallTest, WhatIsLostWhileTheRegistryIsAwayIsToldAtOnce) {
  std::atomic<int> away{1'000'000};
  IngestStage::Decoders decoders;
  decoders["items"] = std::make_unique<AwayDecoder>(&away);
  Assign({0});
  Start(std::move(decoders));
  source_.Item(0);
  EXPECT_TRUE(WaitFor([&] { return source_.kept_alive_ > 0; }));
  source_.SetOwned({});
  Change(PollResult::Kind::kRevoked, /*lost=*/true);
  EXPECT_TRUE(WaitFor([&] { return told() == (Told{{0}, {}}); }));
  EXPECT_GT(away.load(), 0);
  stage_->Stop();
}

// Engines that lost the same registry at the same moment do not come back to it in step: some wait is less than the
// whole of its step, which is 50 ms and doubles up to two seconds.
TEST_F(IngestStallTest, RetriesDoNotComeInStep) {
  std::mutex mu;
  std::vector<std::chrono::steady_clock::time_point> tries;
  class NotingDecoder final : public EventDecoder {
   public:
    explicit NotingDecoder(std::function<void()> note) : note_(std::move(note)) {}
    Status Decode(const RawRecord&, Event*) const override {
      note_();
      return Unavailable("the registry is away");
    }

   private:
    const std::function<void()> note_;
  };
  IngestStage::Decoders decoders;
  decoders["items"] = std::make_unique<NotingDecoder>([&] {
    const std::lock_guard lock(mu);
    tries.push_back(std::chrono::steady_clock::now());
  });
  Start(std::move(decoders));
  source_.Item(0);
  EXPECT_TRUE(WaitFor([&] {
    const std::lock_guard lock(mu);
    milliseconds whole(50);
    for (std::size_t i = 1; i < tries.size(); ++i) {
      if (tries[i] - tries[i - 1] < whole) return true;
      whole = std::min(whole * 2, milliseconds(2000));
    }
    return false;
  }));
  stage_->Stop();
}

}  // namespace
}  // namespace freshet
