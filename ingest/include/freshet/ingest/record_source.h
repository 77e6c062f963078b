// The port through which records come in.
//
// Place in the flow: the left edge. KafkaConsumer implements it for a log; tests implement it with a vector. One thread
// polls. Views in a RawRecord that Poll() returns live until the next Poll().
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

// What a poll brought. Ownership changes arrive in-band, between the records that they separate.
struct PollResult {
  enum class Kind {
    kIdle,
    kRecord,
    kAssigned,  // partitions: all that are owned from now on
    kRevoked,   // partitions: nothing more of them comes until they are assigned again
    kReread,    // partitions: one, whose log is no longer the one that was read; it is read again from its beginning
    kCaughtUp,  // partitions: one, which was read again and has come to its end
  } kind = Kind::kIdle;
  RawRecord record;  // kRecord
  std::vector<TopicPartition> partitions;
  // kRevoked: others may own them by now. Without it the group is only being arranged anew, and nobody else does.
  bool lost = false;
  std::string reason;  // kReread: evicted, beyond_end, recreated or tombstones
};

// Where to start: for each partition asked for what the store covers of it, or nothing where it covers nothing (then
// the source starts at the earliest record that the log still holds).
using StoredPositions = std::map<TopicPartition, PartitionProgress>;
using OffsetLookup = std::function<StoredPositions(const std::vector<TopicPartition>&)>;

// XXH3 of a record's timestamp and key: notices a topic that was deleted and made again, where the same offset holds
// another record.
[[nodiscard]] std::uint64_t Fingerprint(const RawRecord& record);

class RecordSource {
 public:
  virtual ~RecordSource() = default;
  // Waits up to `timeout` for something. Errors: kUnavailable while the broker is away (poll again, the source retries
  // by itself); permanent codes end the stream.
  [[nodiscard]] virtual Result<PollResult> Poll(std::chrono::milliseconds timeout) = 0;
  // For a caller that can take no record just now, but must not lose its membership: serves the group, returns no
  // record and leaves the views of the last one valid. Ownership changes that it meets are returned by the Polls that
  // follow.
  virtual Status KeepAlive() { return Status::Ok(); }
  // Which partitions are owned at this moment, counting changes that were met and not returned yet. While a group is
  // only being arranged anew, those that were.
  [[nodiscard]] virtual std::vector<TopicPartition> Owned() const { return {}; }
  // Of every owned partition: `partition`, `complete_ms`, and `next_offset` (-1: unknown).
  [[nodiscard]] virtual std::vector<PartitionProgress> Positions() const { return {}; }
  // Log time up to which every record of every owned partition has been returned by Poll(): all that was acknowledged
  // up to that millisecond, by this machine's clock; of a partition that is behind, all up to the time of the last
  // record returned, by its producer's. 0: nothing is owned yet, or of a partition it is not known so far.
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
