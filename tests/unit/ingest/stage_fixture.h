// What tests of the ingest stage share: a source, dead letters and a decoder that do as they are told.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "freshet/ingest/ingest_stage.h"
#include "freshet_test/test_support.h"

namespace freshet {

using std::chrono::milliseconds;
using test::WaitFor;

// A source that gives what it is fed, and waits in between.
class FakeSource final : public RecordSource {
 public:
  struct Fed {
    PollResult::Kind kind = PollResult::Kind::kRecord;
    std::string topic = "items";
    std::int64_t offset = 0;
    std::string key;
    std::string value;
    Status error;
    bool lost = false;
    std::string reason;
    std::vector<std::pair<std::string, std::string>> headers;
  };

  void Feed(Fed fed) {
    const std::lock_guard lock(mu_);
    fed_.push_back(std::move(fed));
    changed_.notify_all();
  }
  void Item(std::int64_t offset, const std::string& value = "{}") {
    Feed({.offset = offset,
          .key = "i" + std::to_string(offset),
          .value = value,
          .error = {},
          .lost = false,
          .reason = {},
          .headers = {}});
  }

  Result<PollResult> Poll(milliseconds timeout) override {
    std::unique_lock lock(mu_);
    changed_.wait_for(lock, timeout, [&] { return !fed_.empty(); });
    if (fed_.empty()) return PollResult{};
    now_ = std::move(fed_.front());
    fed_.pop_front();
    if (!now_.error.ok()) return now_.error;
    PollResult result;
    result.kind = now_.kind;
    result.lost = now_.lost;
    result.reason = now_.reason;
    if (now_.kind != PollResult::Kind::kRecord) result.partitions = {{now_.topic, 0}};
    if (now_.kind == PollResult::Kind::kRecord) {
      result.record.topic = now_.topic;
      result.record.offset = now_.offset;
      result.record.timestamp_ms = 1000 + now_.offset;
      result.record.key = now_.key;
      result.record.value = now_.value;
      for (const auto& [name, value] : now_.headers) result.record.headers.emplace_back(name, value);
    }
    return result;
  }
  std::int64_t AsOfMs() const override { return as_of_.load(); }
  std::int64_t LagRecords() const override { return 3; }
  void ReportStored(const std::vector<PartitionProgress>&) override {}
  Status KeepAlive() override {
    ++kept_alive_;
    return Status::Ok();
  }
  // What it would own if all the changes were returned that it has met.
  void SetOwned(std::vector<std::int32_t> partitions) {
    const std::lock_guard lock(mu_);
    owned_.clear();
    for (const std::int32_t partition : partitions) owned_.push_back({"items", partition});
  }
  std::vector<TopicPartition> Owned() const override {
    const std::lock_guard lock(mu_);
    return owned_;
  }

  std::atomic<int> kept_alive_{0};
  std::atomic<std::int64_t> as_of_{77};

 private:
  mutable std::mutex mu_;
  std::vector<TopicPartition> owned_;
  std::condition_variable changed_;
  std::deque<Fed> fed_;
  Fed now_;
};

// Takes letters; can be corked, to see what waits for them.
class FakeDeadLetters final : public DeadLetterQueue {
 public:
  Status Send(std::vector<DeadLetter> letters) override {
    std::unique_lock lock(mu_);
    waiting_ = true;
    changed_.wait(lock, [&] { return !corked_; });
    for (DeadLetter& letter : letters) taken_.push_back(std::move(letter));
    return answer_;
  }
  void Cork(bool corked) {
    const std::lock_guard lock(mu_);
    corked_ = corked;
    changed_.notify_all();
  }
  bool waiting() {
    const std::lock_guard lock(mu_);
    return waiting_;
  }
  std::vector<DeadLetter> taken() {
    const std::lock_guard lock(mu_);
    return taken_;
  }
  Status answer_;

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool corked_ = false;
  bool waiting_ = false;
  std::vector<DeadLetter> taken_;
};

class IngestStageTest : public ::testing::Test {
 protected:
  void Start() {
    IngestStage::Decoders decoders;
    auto decoder = MakeJsonDecoder(TopicRole::kItems, DefaultSchema(TopicRole::kItems), {});
    ASSERT_OK(decoder);
    decoders["items"] = std::move(*decoder);
    Start(std::move(decoders));
  }
  void Start(IngestStage::Decoders decoders) {
    stage_ =
        std::make_unique<IngestStage>(options_, &source_, std::move(decoders), &letters_, &out_, &clock_, &metrics_);
    if (on_owned_) stage_->OnOwned(on_owned_, [this] { return source_.Owned(); });
    stage_->Start();
  }
  // The next batch that holds events; heartbeats are passed over.
  std::optional<EventBatch> NextBatch() {
    for (;;) {
      std::optional<EventBatch> batch = out_.PopFor(milliseconds(20'000));
      if (!batch || !batch->events.empty()) return batch;
    }
  }

  IngestOptions options_{.max_batch_records = 3, .max_batch_bytes = 1000, .linger_ms = 10, .heartbeat_ms = 100};
  FakeSource source_;
  FakeDeadLetters letters_;
  BoundedQueue<EventBatch> out_{16, std::size_t{1} << 20};
  SystemClock clock_;
  Metrics metrics_;
  std::function<void(const std::vector<TopicPartition>&)> on_owned_;
  std::unique_ptr<IngestStage> stage_;
};

// Away for its first answers, then fine.
class AwayDecoder final : public EventDecoder {
 public:
  explicit AwayDecoder(std::atomic<int>* away) : away_(away) {}
  Status Decode(const RawRecord& record, Event* event) const override {
    if (away_->load() > 0) {
      away_->fetch_sub(1);
      return Unavailable("the registry is away");
    }
    event->body = ItemUpdate{std::string(*record.key), false, {}, {}, {}};
    return Status::Ok();
  }

 private:
  std::atomic<int>* const away_;
};

}  // namespace freshet
