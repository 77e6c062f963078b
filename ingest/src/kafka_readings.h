// Where reading of each owned partition stands, and whether its log is still the one that the store knows.
//
// Place in the flow: private to the consumer; knows nothing of librdkafka. A log is no longer the known one when the
// stored offset is not in it (evicted, or beyond its end), when the record before that offset is another one than the
// stored fingerprint says (deleted and made again: this version of librdkafka knows no topic ids), or when tombstones
// may have been compacted away since everything was last covered. Then the partition is read again from its beginning.
// Not thread-safe: polling thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/ingest/record_source.h"

namespace freshet::kafka {

struct Reading {
  std::int64_t next_offset = -1;  // of the last record returned + 1, or where reading started; -1: the earliest
  std::int64_t last_timestamp_ms = 0;
  std::int64_t complete_ms = 0;           // see PartitionProgress
  std::uint64_t fingerprint = 0;          // of the last record returned or stored
  std::optional<std::uint64_t> expected;  // the fingerprint of next_offset - 1, which is read once more to compare
  bool doubted = false;                   // to be compared as soon as something comes of it
  bool rereading = false;                 // until the end is reached
  bool answered = false;                  // a record or the end came
  bool at_end = false;
  bool late = false;          // tombstones may have gone before they were read: to be read again from its beginning
  std::int64_t end = -1;      // where the broker said that it ends, not settled yet; -1: nothing was asked
  std::int64_t asked_ms = 0;  // when it was asked for that
  std::int64_t as_of_ms = 0;  // what was settled before: see AsOf()

  // Log time up to which every record has been returned; 0: unknown. Whoever has come to the end that was asked for has
  // all that was acknowledged before the millisecond of asking. On the way there a record's own time tells as much of
  // the records before it; not where it is later than the asking, though the record was there: that clock is wrong.
  [[nodiscard]] std::int64_t AsOf() const;
};

// An answer of the broker: the next offset of each partition, at a moment between asked_ms and the answer's arrival.
struct Ends {
  std::int64_t asked_ms = 0;  // wall
  std::map<TopicPartition, std::int64_t> offsets;
};

class Readings {
 public:
  // `reread`: a lost position is read again from the beginning; else lost() says why, and nothing goes on. `quiet`: no
  // word of assignments.
  Readings(OffsetLookup stored, bool reread, const Clock* clock, bool quiet = false)
      : stored_(std::move(stored)), reread_(reread), quiet_(quiet), clock_(clock) {}
  void SetTombstoneRetention(std::map<std::string, std::int64_t> ms) { tombstones_ms_ = std::move(ms); }

  // What happens is appended to *changes: the assignment, and each partition that is to be read again.
  void Assign(const std::vector<TopicPartition>& partitions, std::deque<PollResult>* changes);
  void Add(const TopicPartition& partition, std::deque<PollResult>* changes);
  void Clear() {
    all_.clear();
    last_ = all_.end();
  }
  // Where the log is to be read from; nothing: its beginning.
  [[nodiscard]] static std::optional<std::int64_t> StartOf(const Reading& reading);

  enum class Verdict {
    kReturn,  // a new record
    kDrop,    // seen before, or not ours
    kRestart  // the partition is to be read from StartOf() on
  };
  Verdict OnRecord(const RawRecord& record, std::deque<PollResult>* changes);
  // `away_since_ms`: when the broker was last heard of, where it is away.
  Verdict OnEnd(const TopicPartition& partition, std::int64_t offset, std::deque<PollResult>* changes);
  // The broker does not have the offset that was asked for. `low`, `high`: what it has.
  void OnLost(const TopicPartition& partition, std::int64_t low, std::int64_t high, std::deque<PollResult>* changes);
  // Also where reading is more than delete.retention.ms behind: while it goes on, tombstones go that it has not come
  // to. A partition that is still on its way to an end that was asked for earlier keeps that one.
  void OnEnds(const Ends& ends);
  // The oldest of the partitions' AsOf(); 0: of one of them it is unknown, or there is none.
  [[nodiscard]] std::int64_t AsOfMs() const;
  // The broker says that it does not know the topic: it may be another one when it comes back.
  void Doubt(const std::string& topic);

  // Without `reread`: why a position is no position in its log any more, or misses what was deleted. Empty: none is.
  [[nodiscard]] const std::string& lost() const { return lost_; }
  [[nodiscard]] const std::map<TopicPartition, Reading>& all() const { return all_; }
  [[nodiscard]] const Reading* Find(const TopicPartition& partition) const;

 private:
  static bool Compare(Reading* reading);
  void Begin(const TopicPartition& partition, const StoredPositions& stored, std::deque<PollResult>* changes);
  void Reread(const TopicPartition& partition, Reading* reading, const std::string& reason, const std::string& why,
              std::deque<PollResult>* changes);
  [[nodiscard]] bool IsLate(const std::string& topic, std::int64_t kept_up_ms) const;
  [[nodiscard]] bool TombstonesMayBeGone(const std::string& topic, std::int64_t complete_ms) const;

  const OffsetLookup stored_;
  const bool reread_;
  const bool quiet_;
  const Clock* const clock_;
  std::map<std::string, std::int64_t> tombstones_ms_;
  std::map<TopicPartition, Reading> all_;
  std::map<TopicPartition, Reading>::iterator last_ = all_.end();  // of the last record
  std::string lost_;
  // Told to be read again, and why, and not yet to be at their end. Where the store does not know of it when such a
  // partition is assigned once more, it begins once more, for the same cause: the store is behind.
  std::map<TopicPartition, std::string> rereading_;
};

}  // namespace freshet::kafka
