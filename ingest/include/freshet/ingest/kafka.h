// Kafka: the adapters over librdkafka (configuration reference: librdkafka 2.0.2 CONFIGURATION.md).
//
// Place in the flow: KafkaConsumer is the left edge of engine and sidecar, KafkaProducer the right edge of dead
// letters, changelog and replay, MockBroker the embedded broker. Ownership: each owns its librdkafka handle; closing
// waits for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/status.h"
#include "freshet/ingest/record_source.h"

namespace freshet {

struct KafkaOptions {
  std::string bootstrap_servers = "127.0.0.1:9092";
  std::string client_id = "freshet";
  // Passed to librdkafka as they are. Keys that freshet owns (offsets, commits, group, assignment) are refused by name.
  std::map<std::string, std::string> librdkafka_options;
};
// Errors: kConfig naming the refused key and why.
Status ValidateLibrdkafkaOptions(const std::map<std::string, std::string>& options);

struct ConsumerOptions {
  KafkaOptions kafka;
  std::vector<std::string> topics;
  // Consumer group with static membership (group.instance.id), so that a restart moves nothing. Empty with
  // `assign_all`.
  std::string group_id;
  std::string group_instance_id;
  bool assign_all = false;           // pin every partition of the topics, without a group
  std::vector<std::int32_t> assign;  // pin these partitions of each topic, without a group
  // A partition whose stored offset is no position in its log any more, or that may have lost tombstones since, is read
  // again from its beginning (kReread). Without it such a partition ends the stream: kFailedPrecondition.
  bool reread_lost = false;
  // Asks the broker again and again where the partitions end: AsOfMs() rests on it, and is 0 without; so does the
  // complete_ms of Positions(), by which it is known whether tombstones may have been lost.
  bool ask_ends = false;
  bool quiet = false;  // assignments are not logged: somebody has a short look
  int session_timeout_ms = 10'000;
  std::size_t queued_max_kbytes = 16'384;  // prefetch bound per partition
};

// One thread polls; AsOfMs, LagRecords and ReportStored are called from that thread or, ReportStored, from any.
// Errors of Open: kConfig, kUnavailable when metadata cannot be had within `timeout` (exit code 69).
[[nodiscard]] Result<std::unique_ptr<RecordSource>> OpenKafkaConsumer(const ConsumerOptions& options,
                                                                      OffsetLookup stored_offsets, const Clock* clock,
                                                                      std::chrono::milliseconds timeout);

// Idempotent producer, acks=all, lz4. Thread-safe.
class KafkaProducer : public RecordSink {
 public:
  // Queues without waiting for the acknowledgement; blocks (bounded by the local queue) while it is full. A delivery
  // that fails is counted and reported by Flush().
  [[nodiscard]] virtual Status Produce(const OutRecord& record) = 0;
  [[nodiscard]] virtual Status Flush(std::chrono::milliseconds timeout) = 0;
};
[[nodiscard]] Result<std::unique_ptr<KafkaProducer>> OpenKafkaProducer(const KafkaOptions& options);

// How long each topic keeps tombstones once they are compacted (delete.retention.ms); none of a topic that is not
// compacted. Where the broker does not say: 24 hours, Kafka's default.
[[nodiscard]] std::map<std::string, std::int64_t> TombstoneRetentionMs(const KafkaOptions& options,
                                                                       const std::vector<std::string>& topics,
                                                                       std::chrono::milliseconds timeout);

// Creates the topics that do not exist; existing ones are left as they are. `compact`: cleanup.policy=compact.
struct NewTopic {
  std::string name;
  std::int32_t partitions = 1;
  bool compact = false;
  std::int64_t retention_ms = 0;  // how long records are kept; 0: the broker's default
};
Status CreateTopics(const KafkaOptions& options, const std::vector<NewTopic>& topics,
                    std::chrono::milliseconds timeout);

// The offsets of the oldest record that a partition still holds, and of the next one to come.
struct Watermarks {
  std::int64_t low = 0;
  std::int64_t high = 0;
};
// Of every partition of the topics, asked of the broker now. Errors: kNotFound for an unknown topic, kUnavailable.
[[nodiscard]] Result<std::map<TopicPartition, Watermarks>> QueryWatermarks(const KafkaOptions& options,
                                                                           const std::vector<std::string>& topics,
                                                                           std::chrono::milliseconds timeout);

// Where each partition of the topics ends, asked of the broker now, with the fingerprint of the last record before
// that: by it a reader knows later whether the log is still the same. 0 where there is no such record any more. `last`
// is shown these records. Errors: as QueryWatermarks(), kDeadlineExceeded.
[[nodiscard]] Result<std::vector<PartitionProgress>> ReadEnds(const KafkaOptions& options,
                                                              const std::vector<std::string>& topics,
                                                              const Clock* clock, std::chrono::milliseconds timeout,
                                                              const std::function<void(const RawRecord&)>& last = {});

// How long a topic keeps its records (retention.ms); nothing: for ever, or the broker does not say.
[[nodiscard]] std::optional<std::int64_t> RetentionMs(const KafkaOptions& options, const std::string& topic,
                                                      std::chrono::milliseconds timeout);

// librdkafka's mock cluster: real protocol on loopback, in this process. It keeps 5 MiB a partition, does not compact,
// and forgets everything when the process ends: for trying out and for fault tests, not for keeping data.
class MockBroker {
 public:
  virtual ~MockBroker() = default;
  [[nodiscard]] virtual std::string bootstrap_servers() const = 0;
  virtual Status CreateTopic(const std::string& name, std::int32_t partitions) = 0;
  // Takes all brokers down: connections are cut, requests time out; and up again.
  virtual Status SetUp(bool up) = 0;
  // Answers the next heartbeat of a group with: you are no member.
  virtual void Expel() = 0;
  // Says that it knows no such topic, as a broker does that has just started; and knows it again.
  virtual void Forget(const std::string& topic, bool forgotten) = 0;
  // `broker`: from 1; -1: the partition has no leader.
  virtual Status MoveLeader(const TopicPartition& partition, std::int32_t broker) = 0;
};
[[nodiscard]] Result<std::unique_ptr<MockBroker>> StartMockBroker(std::int32_t brokers = 1);

}  // namespace freshet
