#include "kafka_readings.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {

std::uint64_t Fingerprint(const RawRecord& record) {
  char time[sizeof(record.timestamp_ms)];
  std::memcpy(time, &record.timestamp_ms, sizeof(time));  // little-endian: bytes.h
  return Xxh3(record.key.value_or(std::string_view()), Xxh3({time, sizeof(time)}));
}

namespace kafka {
namespace {

// Who keeps tombstones for less than this tries something out, and would have everything read again at each hitch.
constexpr std::int64_t kLeastLateMs = 60'000;

}  // namespace

void Readings::Assign(const std::vector<TopicPartition>& partitions, std::deque<PollResult>* changes) {
  Clear();
  PollResult change;
  change.kind = PollResult::Kind::kAssigned;
  change.partitions = partitions;
  changes->push_back(std::move(change));
  const StoredPositions stored = stored_(partitions);
  for (const TopicPartition& partition : partitions) Begin(partition, stored, changes);
}

void Readings::Add(const TopicPartition& partition, std::deque<PollResult>* changes) {
  Begin(partition, stored_({partition}), changes);
}

void Readings::Begin(const TopicPartition& partition, const StoredPositions& stored, std::deque<PollResult>* changes) {
  Reading& reading = all_[partition];
  const auto found = stored.find(partition);
  if (found == stored.end()) {
    reading.complete_ms = clock_->WallMs();
  } else {
    const PartitionProgress& known = found->second;
    // Nothing of it was read so far: from wherever the log begins.
    reading.next_offset = known.next_offset > 0 ? known.next_offset : -1;
    reading.complete_ms = known.complete_ms;
    reading.rereading = known.rereading;
    reading.fingerprint = known.fingerprint;
    if (const auto told = rereading_.find(partition); told != rereading_.end() && !known.rereading) {
      const std::string cause = told->second;
      Reread(partition, &reading, cause, "it changed hands before that was stored", changes);
    } else if (TombstonesMayBeGone(partition.topic, known.complete_ms)) {
      // Also where it was being read again, since so long ago: what it had seen by then may have been deleted after.
      Reread(partition, &reading, "tombstones",
             StrCat("nothing was read of it for longer than the topic's delete.retention.ms (",
                    tombstones_ms_.at(partition.topic), "): deletes may have been compacted away"),
             changes);
    } else if (known.fingerprint != 0 && known.next_offset > 0) {
      reading.expected = known.fingerprint;
    }
  }
  if (quiet_) return;
  const std::optional<std::int64_t> from = StartOf(reading);
  LogInfo("kafka", "partition assigned",
          {{"topic", partition.topic},
           {"partition", StrCat(partition.partition)},
           {"from", reading.next_offset < 0 || !from ? "the beginning" : StrCat(reading.next_offset)}});
}

std::optional<std::int64_t> Readings::StartOf(const Reading& reading) {
  if (reading.next_offset < 0) return std::nullopt;
  return reading.expected ? reading.next_offset - 1 : reading.next_offset;
}

Readings::Verdict Readings::OnRecord(const RawRecord& record, std::deque<PollResult>* changes) {
  // Records of a partition come many in a row.
  if (last_ == all_.end() || last_->first.partition != record.partition || last_->first.topic != record.topic) {
    last_ = all_.find({std::string(record.topic), record.partition});
  }
  const auto found = last_;
  if (found == all_.end()) return Verdict::kDrop;  // an old delivery of a partition given up since
  Reading& reading = found->second;
  if (Compare(&reading)) return Verdict::kRestart;
  if (record.offset < reading.next_offset) {
    if (!reading.expected || record.offset != reading.next_offset - 1) return Verdict::kDrop;
    if (Fingerprint(record) == *reading.expected) {
      reading.expected.reset();
      return Verdict::kDrop;
    }
    Reread(
        found->first, &reading, "recreated",
        StrCat("offset ", record.offset, " holds another record than it did: the topic was made anew, or its log cut"),
        changes);
    return Verdict::kRestart;
  }
  // Where the record before it was compacted away there is nothing to compare.
  reading.expected.reset();
  reading.next_offset = record.offset + 1;
  reading.last_timestamp_ms = record.timestamp_ms;
  reading.fingerprint = Fingerprint(record);
  reading.answered = true;
  reading.at_end = false;
  return Verdict::kReturn;
}

Readings::Verdict Readings::OnEnd(const TopicPartition& partition, std::int64_t offset,
                                  std::deque<PollResult>* changes) {
  const auto found = all_.find(partition);
  if (found == all_.end()) return Verdict::kDrop;
  Reading& reading = found->second;
  if (Compare(&reading)) return Verdict::kRestart;
  const bool late = reading.late || (!reading.rereading && !reading.at_end &&
                                     IsLate(partition.topic, std::max(reading.complete_ms, reading.AsOf())));
  if (late && reading.next_offset > 0) {
    Reread(
        partition, &reading, "tombstones",
        StrCat("reading was behind by more than the topic's delete.retention.ms (", tombstones_ms_.at(partition.topic),
               "): deletes may have been compacted away meanwhile. It should be longer than all of it takes to read"),
        changes);
    return Verdict::kRestart;
  }
  reading.late = false;
  reading.answered = true;
  reading.at_end = true;
  reading.next_offset = std::max(reading.next_offset, offset);
  reading.complete_ms = clock_->WallMs();
  // An end beyond this one will not be reached: the log was cut. Or this one is older, and it is asked for again.
  if (reading.end > reading.next_offset) reading.end = -1;
  if (reading.rereading) {
    reading.rereading = false;
    rereading_.erase(partition);
    PollResult change;
    change.kind = PollResult::Kind::kCaughtUp;
    change.partitions = {partition};
    changes->push_back(std::move(change));
  }
  return Verdict::kDrop;
}

void Readings::OnLost(const TopicPartition& partition, std::int64_t low, std::int64_t high,
                      std::deque<PollResult>* changes) {
  const auto found = all_.find(partition);
  if (found == all_.end()) return;
  Reading& reading = found->second;
  if (reading.expected && low == reading.next_offset) {
    // Only the record to compare with is gone; what comes next is there.
    reading.expected.reset();
    return;
  }
  if (reading.next_offset < 0) return;  // the beginning: it moved on meanwhile, and is asked for again
  Reread(partition, &reading,
         reading.next_offset < low    ? "evicted"
         : reading.next_offset > high ? "beyond_end"
                                      : "recreated",
         StrCat("the log holds offsets ", low, " to ", high, ", offset ", reading.next_offset, " was to be next"),
         changes);
}

std::int64_t Reading::AsOf() const {
  // Until a doubt about the log is settled its offsets say nothing.
  if (end < 0 || !answered || doubted || expected) return as_of_ms;
  std::int64_t known_ms = 0;
  if (next_offset >= end) {
    known_ms = asked_ms - 1;
  } else if (last_timestamp_ms <= asked_ms) {
    known_ms = last_timestamp_ms - 1;
  }
  return std::max(as_of_ms, known_ms);
}

void Readings::OnEnds(const Ends& ends) {
  for (const auto& [partition, end] : ends.offsets) {
    const auto found = all_.find(partition);
    if (found == all_.end()) continue;
    Reading& reading = found->second;
    reading.as_of_ms = reading.AsOf();
    reading.late = reading.late || (end > reading.next_offset &&
                                    IsLate(partition.topic, std::max(reading.complete_ms, reading.as_of_ms)));
    if (reading.next_offset < reading.end) continue;
    reading.end = end;
    reading.asked_ms = ends.asked_ms;
  }
}

std::int64_t Readings::AsOfMs() const {
  if (all_.empty()) return 0;
  std::int64_t oldest = std::numeric_limits<std::int64_t>::max();
  for (const auto& [partition, reading] : all_) oldest = std::min(oldest, reading.AsOf());
  return oldest;
}

void Readings::Doubt(const std::string& topic) {
  for (auto& [partition, reading] : all_) {
    if (partition.topic == topic && reading.next_offset > 0 && reading.fingerprint != 0) {
      reading.as_of_ms = reading.AsOf();  // so far it was that log
      reading.doubted = true;
    }
  }
}

// Only now that the partition is being read: before, librdkafka may not take another position for it.
bool Readings::Compare(Reading* reading) {
  if (!reading->doubted) return false;
  reading->doubted = false;
  reading->expected = reading->fingerprint;
  reading->at_end = false;
  return true;
}

const Reading* Readings::Find(const TopicPartition& partition) const {
  const auto found = all_.find(partition);
  return found == all_.end() ? nullptr : &found->second;
}

void Readings::Reread(const TopicPartition& partition, Reading* reading, const std::string& reason,
                      const std::string& why, std::deque<PollResult>* changes) {
  if (!reread_) {
    lost_ = StrCat(partition.topic, "[", partition.partition, "] cannot be read on from offset ", reading->next_offset,
                   " (", reason, "): ", why);
    return;
  }
  LogWarning(
      "kafka", "a partition is read again from its beginning; what it no longer holds will be removed",
      {{"topic", partition.topic}, {"partition", StrCat(partition.partition)}, {"cause", reason}, {"reason", why}});
  *reading = Reading{};
  reading->rereading = true;
  reading->complete_ms = clock_->WallMs();
  rereading_[partition] = reason;
  PollResult change;
  change.kind = PollResult::Kind::kReread;
  change.partitions = {partition};
  change.reason = reason;
  changes->push_back(std::move(change));
}

bool Readings::IsLate(const std::string& topic, std::int64_t kept_up_ms) const {
  return clock_->WallMs() - kept_up_ms > kLeastLateMs && TombstonesMayBeGone(topic, kept_up_ms);
}

bool Readings::TombstonesMayBeGone(const std::string& topic, std::int64_t complete_ms) const {
  const auto retention = tombstones_ms_.find(topic);
  return retention != tombstones_ms_.end() && complete_ms > 0 && clock_->WallMs() - complete_ms > retention->second;
}

}  // namespace kafka
}  // namespace freshet
