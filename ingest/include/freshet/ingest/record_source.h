// The port through which records come in.
//
// Place in the flow: the left edge. KafkaConsumer implements it for a log; tests implement it with a vector. One thread
// polls. Views in a RawRecord live until the next Poll().
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/ingest/event.h"

namespace freshet {

struct RawRecord {
  std::string_view topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::int64_t timestamp_ms = 0;
  std::optional<std::string_view> key;    // nothing: a null key
  std::optional<std::string_view> value;  // nothing: a null value, a delete; empty is not null
  std::vector<std::pair<std::string_view, std::string_view>> headers;
};

// What a poll brought. Ownership changes arrive in-band, between the records that they separate.
struct PollResult {
  enum class Kind { kIdle, kRecord, kAssigned, kRevoked } kind = Kind::kIdle;
  RawRecord record;                        // kRecord
  std::vector<TopicPartition> partitions;  // kAssigned, kRevoked
};

// Offsets to start from: for each partition asked for, the stored next offset, or nothing where none is stored (then
// the source starts at the earliest record that the log still holds).
using OffsetLookup = std::function<std::map<TopicPartition, std::int64_t>(const std::vector<TopicPartition>&)>;

class RecordSource {
 public:
  virtual ~RecordSource() = default;
  // Waits up to `timeout` for something. Errors: kUnavailable while the broker is away (poll again, the source retries
  // by itself); permanent codes end the stream.
  [[nodiscard]] virtual Result<PollResult> Poll(std::chrono::milliseconds timeout) = 0;
  // Log time up to which every record of every owned partition has been returned by Poll(): now for partitions at their
  // end, else the time of the last record returned. 0: nothing is owned yet, or a partition has not answered so far.
  [[nodiscard]] virtual std::int64_t AsOfMs() const = 0;
  // Records between what was polled and the ends of the owned partitions, as last reported by the broker.
  [[nodiscard]] virtual std::int64_t LagRecords() const = 0;
  // Tells the broker how far the store has come: for lag dashboards only, never read back. Best effort.
  virtual void ReportStored(const std::vector<PartitionProgress>& progress) = 0;
};

// The port through which records go out: dead letters, the changelog, replay.
struct OutRecord {
  std::string topic;
  std::optional<std::string> key;
  std::optional<std::string> value;  // nothing: null
  std::vector<std::pair<std::string, std::string>> headers;
  std::int64_t timestamp_ms = 0;  // 0: now
  std::int32_t partition = -1;    // -1: by key hash (murmur2, as Java producers do)
};

class RecordSink {
 public:
  virtual ~RecordSink() = default;
  // Sends all in order and waits until every one is acknowledged by all in-sync replicas. Errors: kUnavailable or
  // kDeadlineExceeded when the broker does not take them within `timeout` (some may have been written: at least once);
  // kInvalidArgument when a record can never be taken (too large, unknown topic with creation off).
  [[nodiscard]] virtual Status Send(const std::vector<OutRecord>& records, std::chrono::milliseconds timeout) = 0;
  // Errors: kNotFound for an unknown topic, kUnavailable.
  [[nodiscard]] virtual Result<std::int32_t> PartitionCount(const std::string& topic) = 0;
};

}  // namespace freshet
