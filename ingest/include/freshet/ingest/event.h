// What the stream says, typed: the vocabulary of every stage.
//
// Place in the flow: made by the decoders of ingest, walked through encoder, indexer and store, published to followers.
// Plain values, thread-compatible. Offsets travel with the data: an EventBatch carries, for each partition that it
// covers, the offset to continue from, over data *and* skipped records, so that nothing can be committed before it is
// written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "freshet/core/byte_arena.h"

namespace freshet {

// A feature feeds the towers. A bool arrives as 0 or 1, a missing one is absent.
using FeatureValue = std::variant<double, std::string, std::vector<std::string>>;
// Sorted by name, names unique. `category` and `tags` of the plain event form are features of these names.
using Features = std::vector<std::pair<std::string, FeatureValue>>;

// An attribute is stored, typed, filterable and returned; it does not feed the towers.
using AttributeValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>,
                                    std::vector<bool>, std::vector<std::int64_t>, std::vector<double>>;
// Sorted by name, names unique.
using Attributes = std::vector<std::pair<std::string, AttributeValue>>;

[[nodiscard]] const FeatureValue* FindFeature(const Features& features, std::string_view name);
[[nodiscard]] const AttributeValue* FindAttribute(const Attributes& attributes, std::string_view name);

struct TopicPartition {
  std::string topic;
  std::int32_t partition = 0;
  friend auto operator<=>(const TopicPartition&, const TopicPartition&) = default;
};

// Where a record stands in the log.
struct LogPosition {
  std::int32_t partition = 0;
  std::int64_t offset = 0;
};

struct ItemUpdate {
  std::string item_id;
  bool deleted = false;
  Features features;
  Attributes attributes;
  std::vector<float> vector;  // only where the producer brings embeddings (passthrough encoder); else empty
};

struct Interaction {
  std::string user_id;
  std::string item_id;
  std::string event;              // "view", "purchase", ...
  double value = 1.0;             // weight; finite
  std::int64_t timestamp_ms = 0;  // event time
};

struct UserUpdate {
  std::string user_id;
  bool forgotten = false;  // true: profile, history, seen-set go, everywhere
  Features features;
};

// A record that changes nothing but its partition's offset: poison (already a dead letter), or none of our business.
struct Skipped {};

// A record as the log has it; whoever gives one says how long its views live.
struct RawRecord {
  std::string_view topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::int64_t timestamp_ms = 0;
  std::optional<std::string_view> key;    // nothing: a null key
  std::optional<std::string_view> value;  // nothing: a null value, a delete; empty is not null
  std::vector<std::pair<std::string_view, std::string_view>> headers;
};

// The record's bytes, owned: what a dead letter holds.
struct RawCopy {
  std::string topic;
  std::string key;
  bool has_key = false;
  std::string value;
  bool has_value = false;
  std::vector<std::pair<std::string, std::string>> headers;
};
[[nodiscard]] RawCopy CopyOf(const RawRecord& record);

struct Event {
  LogPosition position;
  std::size_t progress_index = 0;        // which entry of its batch's `progress` its partition is
  std::int64_t record_timestamp_ms = 0;  // Kafka's record time, Unix ms: the start of the freshness clock
  std::variant<Skipped, ItemUpdate, Interaction, UserUpdate> body;
  bool key_is_poison = false;  // where it does not decode: because of the record's key, not of its value
  RawRecord raw;               // so that a later stage can still make a dead letter of it; lives as long as its batch
};

// How far a partition is covered by a batch.
struct PartitionProgress {
  TopicPartition partition;
  std::int64_t next_offset = 0;        // last covered offset + 1
  std::int64_t last_timestamp_ms = 0;  // of the last covered record
  std::uint64_t fingerprint = 0;  // XXH3 of the last covered record's timestamp and key: notices a re-created topic
  std::uint64_t epoch = 0;        // followers: the writer's store epoch ...
  std::uint64_t sequence = 0;     // ... and the newest sequence covered; 0 on the engine's side
  // Wall time at which everything up to the partition's end was last known to be covered, or at which reading from its
  // beginning began; 0: unknown. Tombstones may be compacted away some time after it.
  std::int64_t complete_ms = 0;
  // Engine: how often the partition was read again from its beginning (the store's word, not the batch's), and whether
  // that is still going on: what has not been seen when it ends is swept.
  std::uint32_t generation = 0;
  bool rereading = false;
  // Engine: while rereading, offsets below it were applied before and only say what is still there; 0: the log is
  // another one.
  std::int64_t seen_below = 0;
};

// Adds how far partitions are complete (RecordSource::Positions()) to what a batch says of its own. Of those that it
// did not touch everything else stays as it is stored.
void AddPositions(std::vector<PartitionProgress> positions, std::vector<PartitionProgress>* progress);

// What happened to a partition as a whole. Stands between batches of records, in the order in which it happened.
struct PartitionMark {
  enum class Kind {
    kReread,    // the log is no longer the one that was read: it is read again from its beginning
    kCaughtUp,  // ... and its end was reached
  } kind = Kind::kReread;
  TopicPartition partition;
  bool same_log = false;  // kReread: offsets mean what they meant before
};

struct EventBatch {
  std::vector<Event> events;                // in log order within each partition
  std::vector<PartitionProgress> progress;  // one for each partition touched
  std::int64_t as_of_ms = 0;         // log time up to which everything is in this batch or an earlier one; 0: unknown
  std::size_t bytes = 0;             // of keys, values, headers: the queue's byte bound
  std::shared_ptr<ByteArena> arena;  // where these are, that is what the events' `raw` views; null without events
  std::vector<PartitionMark> marks;  // a batch with marks has no events
};

}  // namespace freshet
