// What tests of the Kafka adapters share: librdkafka's mock cluster, the real protocol on loopback.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "freshet/ingest/dead_letters.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/test_support.h"

namespace freshet {

using std::chrono::milliseconds;
using test::WaitFor;

inline constexpr milliseconds kTimeout{20'000};

inline StoredPositions NothingStored(const std::vector<TopicPartition>&) { return {}; }

struct Kept {
  RawCopy copy;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::int64_t timestamp_ms = 0;
};

inline StoredPositions StoredAt(const TopicPartition& partition, std::int64_t next_offset) {
  StoredPositions stored;
  stored[partition].partition = partition;
  stored[partition].next_offset = next_offset;
  return stored;
}

class KafkaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto broker = StartMockBroker();
    ASSERT_OK(broker);
    broker_ = std::move(*broker);
    ASSERT_OK(broker_->CreateTopic("items", 1));
  }

  // Closing a mock cluster may take a second of waiting; it happens beside the next test.
  void TearDown() override {
    closing_.push_back(std::async(std::launch::async, [broker = std::move(broker_)]() mutable { broker.reset(); }));
  }
  static void TearDownTestSuite() { closing_.clear(); }

  KafkaOptions Options() const {
    KafkaOptions options;
    options.bootstrap_servers = broker_->bootstrap_servers();
    return options;
  }
  ConsumerOptions Pinned(std::vector<std::string> topics) const {
    ConsumerOptions options;
    options.kafka = Options();
    options.topics = std::move(topics);
    options.assign_all = true;
    return options;
  }

  // Polls until `count` records came.
  static std::vector<Kept> Read(RecordSource* source, std::size_t count) {
    std::vector<Kept> kept;
    const bool all = WaitFor([&] {
      auto polled = source->Poll(milliseconds(100));
      EXPECT_OK(polled);
      if (!polled.ok()) return true;
      if (polled->kind == PollResult::Kind::kRecord) {
        const RawRecord& r = polled->record;
        kept.push_back({CopyOf(r), r.partition, r.offset, r.timestamp_ms});
      }
      return kept.size() >= count;
    });
    EXPECT_TRUE(all) << "got " << kept.size() << " of " << count;
    return kept;
  }
  // Polls until `condition` holds.
  static bool PollUntil(RecordSource* source, const std::function<bool(const Result<PollResult>&)>& condition) {
    return WaitFor([&] { return condition(source->Poll(milliseconds(50))); });
  }

  static OutRecord Record(const std::string& key, const std::string& value) {
    OutRecord record;
    record.topic = "items";
    record.key = key;
    record.value = value;
    return record;
  }

  SystemClock clock_;
  std::unique_ptr<MockBroker> broker_;
  static inline std::vector<std::future<void>> closing_;
};

}  // namespace freshet
