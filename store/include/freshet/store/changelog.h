// The changelog: what followers read instead of the producers' topics.
//
// Place in the flow: the Applier writes a record into the outbox column family in the same WriteBatch as the change;
// the Publisher sends it and then trims; a follower decodes it back into an EncodedBatch. Topic `vectors` (compacted)
// has key = item id, null value = delete; topic `user-events` has key = user id. Every record carries `freshet-epoch`
// and `freshet-sequence` headers (u64, decimal text), so that a delete, which has no value, is ordered too. The value's
// bytes are described in store/README.md. Every byte is validated; the checksum covers all before it. Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "freshet/core/status.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/ingest/record_source.h"
#include "freshet/store/store.h"

namespace freshet {

inline constexpr char kEpochHeader[] = "freshet-epoch";
inline constexpr char kSequenceHeader[] = "freshet-sequence";
// Progress records' key: not valid UTF-8, so that no id collides with it.
inline constexpr std::string_view kProgressKey =
    "\xff"
    "progress";

// "Everything up to `sequence` is in this partition before me, and the engine was at `as_of_ms` then."
struct ChangelogProgress {
  std::int64_t as_of_ms = 0;
  std::string space_id;
  OwnedItems owned = {};
};

// A changelog record, decoded.
struct ChangelogRecord {
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;
  std::string space_id;
  std::optional<ItemChange> item;
  std::optional<UserChange> user;
  std::optional<ChangelogProgress> progress;
};

// Without topic, key and headers: what the outbox holds.
[[nodiscard]] std::string EncodeItemValue(const ItemChange& change, std::string_view space_id,
                                          VectorType vectors = VectorType::kFp32);  // REQUIRES: not deleted
// The change's position is that in `source_topic`.
[[nodiscard]] std::string EncodeUserValue(const UserChange& change, std::string_view source_topic = "");
[[nodiscard]] std::string EncodeProgressValue(const ChangelogProgress& progress);

// Errors: kInvalidArgument with the reason (checksum, short, ...); kFailedPrecondition for a version that is newer.
[[nodiscard]] Result<ChangelogRecord> DecodeChangelogRecord(const RawRecord& record, bool is_vectors_topic);

// A follower's note of how far it has seen a topic of the engine within one partition of user-events. An engine that
// was restored reads those events again and publishes them under new numbers; by this they are known. In the `offsets`
// family, under a topic name that Kafka does not allow.
[[nodiscard]] PartitionProgress SourceProgress(const TopicPartition& changelog, const TopicPartition& source,
                                               std::int64_t next_offset, std::int64_t timestamp_ms,
                                               std::uint64_t epoch);

}  // namespace freshet
