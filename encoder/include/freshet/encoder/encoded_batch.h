// What flows from the encoder to the store: the applied form of a micro-batch.
//
// Place in the flow: made by EncodeStage from events (engine), or by the changelog decoder (follower), and applied by
// store's Applier in one atomic write. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "freshet/ingest/event.h"

namespace freshet {

// The last write of an item in its batch.
struct ItemChange {
  ItemUpdate update;               // its `vector` is the embedding; empty when deleted, or with `same_features`
  bool same_features = false;      // as the store has them: the vector that is there stays
  LogPosition position;            // in the log this process reads: the items topic, or a follower's changelog
  std::size_t progress_index = 0;  // which entry of the batch's `progress` that partition is
  std::int64_t record_timestamp_ms = 0;
  std::uint64_t sequence = 0;          // followers: as published; 0 on the engine's side, where the store numbers it
  std::int32_t source_partition = -1;  // followers: of the engine's items topic; -1: not known
};

// Followers: whose items the engine answers with, by partition of its items topic; nothing: all.
struct OwnedItems {
  std::optional<std::vector<std::int32_t>> partitions;
  friend bool operator==(const OwnedItems&, const OwnedItems&) = default;
};

struct UserChange {
  std::variant<Interaction, UserUpdate> body;
  LogPosition position;
  std::size_t progress_index = 0;
  std::int64_t record_timestamp_ms = 0;
  std::uint64_t sequence = 0;
  // Followers: where the engine read it. No topic: not known (changelog records of version 1).
  std::string source_topic;
  LogPosition source;
};

struct EncodedBatch {
  std::string space_id;
  std::vector<ItemChange> items;  // at most one per item id
  std::vector<UserChange> users;  // in log order
  std::vector<PartitionProgress> progress;
  std::vector<PartitionMark> marks;  // a batch with marks has nothing else
  std::optional<OwnedItems> owned;   // followers: what the log said last; nothing: nothing new
  std::int64_t as_of_ms = 0;
  std::size_t bytes = 0;  // of keys, values and vectors
  // Monotonic microseconds, for freshness by stage.
  std::int64_t encoded_at_us = 0;
};

}  // namespace freshet
