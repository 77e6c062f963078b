// What a snapshot is, and the bytes of every file in it.
//
// Place in the flow: written last into a snapshot by the SnapshotRepository, read first. JSON, one object:
// {"checksum": XXH3-128 of the manifest's own bytes, "manifest": {...}}; the fields are in store/README.md. Reading
// validates every field: a manifest that is damaged in any way is kCorruption. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/ingest/event.h"

namespace freshet {

struct SnapshotFile {
  std::string name;  // "store/000012.sst", "index", "model/item_tower.pt"
  std::uint64_t bytes = 0;
  std::string xxh3;  // 128 bits, 32 hex digits
};

struct SnapshotManifest {
  int format = 1;
  std::string id;
  std::string previous;  // id of the newest snapshot when this one was made; empty: none
  std::string host;
  std::string version;  // of freshet
  std::int64_t created_ms = 0;
  // The store's identity and the moment of the cut.
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;
  std::int64_t as_of_ms = 0;
  std::string space_id;
  int dim = 0;
  std::string metric;
  std::string vectors;  // "fp32", "fp16"
  std::uint64_t items = 0;
  std::uint64_t users = 0;
  std::uint64_t outbox_records = 0;
  std::vector<PartitionProgress> offsets;  // next offsets of the engine's topics
  // For followers: the changelog's topics, and offsets before which nothing newer than `sequence` stands.
  std::string vectors_topic;
  std::string user_events_topic;
  std::vector<PartitionProgress> changelog;
  std::string model;  // name and version of the package in model/; empty: none
  std::vector<SnapshotFile> files;

  [[nodiscard]] const SnapshotFile* Find(std::string_view name) const;
  [[nodiscard]] std::uint64_t bytes() const;
};

// Newer: the later store, then the later commit, whatever the clocks said.
[[nodiscard]] bool IsNewer(const SnapshotManifest& a, const SnapshotManifest& b);

// [0-9a-z-]{1,64}, not starting with '-'.
[[nodiscard]] bool IsValidSnapshotId(std::string_view id);
// "20261121t131502-12345": UTC time of the cut and the sequence.
[[nodiscard]] std::string MakeSnapshotId(std::int64_t created_ms, std::uint64_t sequence);

[[nodiscard]] std::string EncodeManifest(const SnapshotManifest& manifest);
// The object without its checksum, for people and scripts.
[[nodiscard]] std::string ManifestToJson(const SnapshotManifest& manifest);
// Errors: kCorruption with the reason; kFailedPrecondition for a newer format.
[[nodiscard]] Result<SnapshotManifest> DecodeManifest(std::string_view text);

}  // namespace freshet
