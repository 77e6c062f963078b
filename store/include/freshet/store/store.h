// RocksDB: the truth.
//
// Place in the flow: right after the encoder, in one process-wide writer thread; readers from any thread. store.cc is
// the only place that names RocksDB. One WriteBatch per micro-batch carries vectors, attributes, features, labels,
// users, the outbox, the next offset of every partition covered and the sequence; after a crash the store is at one of
// its commits. Column families and bytes: store/README.md. Errors: kCorruption, kFailedPrecondition (another engine
// holds the directory, newer format, other embedding space), kResourceExhausted (disk full: stop using the store,
// reopen), kIoError.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/indexer/index.h"
#include "freshet/store/replica.h"

namespace freshet {

struct StoreOptions {
  std::string directory;
  std::string space_id;
  int dim = 0;
  Metric metric = Metric::kCosine;
  bool sync = false;  // fsync the log at each commit; without it power loss may lose a suffix, which Kafka still has
  std::size_t cache_bytes = std::size_t{64} << 20;  // block cache, write buffers charged to it
  std::size_t write_buffer_bytes = std::size_t{32} << 20;
  Status Validate() const;
};

// What is known of an item beside its payload.
struct ItemRow {
  Label label = 0;
  std::uint64_t epoch = 0;  // of the store that numbered it
  std::uint64_t sequence = 0;
  LogPosition position;  // in the log this process reads
  std::int64_t record_timestamp_ms = 0;
};

struct OutboxEntry {
  std::uint64_t sequence = 0;
  bool is_user_event = false;
  std::string key;
  std::optional<std::string> value;
};

// Everything one micro-batch changes. Built by the Applier.
struct Commit {
  struct Item {
    std::string item_id;
    std::optional<Label> old_label;  // its vector and label rows go
    bool deleted = false;
    ItemRow row;  // when not deleted
    const ItemUpdate* update = nullptr;
  };
  std::vector<Item> items;
  std::vector<std::pair<std::string, std::optional<UserState>>> users;  // nothing: forgotten
  std::vector<PartitionProgress> progress;
  std::vector<OutboxEntry> outbox;
  std::uint64_t next_label = 0;
  std::uint64_t sequence = 0;
  std::int64_t as_of_ms = 0;
};

class Store {
 public:
  // Creates what is not there. A new store gets an epoch (creation time, microseconds): it orders stores after each
  // other.
  [[nodiscard]] static Result<std::unique_ptr<Store>> Open(const StoreOptions& options);
  // An existing store, whatever its embedding space. Errors also: kNotFound.
  [[nodiscard]] static Result<std::unique_ptr<Store>> OpenExisting(const std::string& directory);
  virtual ~Store() = default;

  // Atomic and, with `sync`, durable when it returns.
  virtual Status Write(const Commit& commit) = 0;

  [[nodiscard]] virtual Result<std::optional<ItemRow>> GetItem(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Features>> GetFeatures(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Attributes>> GetAttributes(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<std::vector<float>>> GetVector(Label label) const = 0;
  [[nodiscard]] virtual Result<std::optional<UserState>> GetUser(std::string_view user_id) const = 0;

  // In id order, over one consistent snapshot. Stops at the first status that is not ok.
  virtual Status ForEachItem(const std::function<Status(std::string_view item_id, const ItemRow& row)>& item) const = 0;
  virtual Status ForEachUser(const std::function<Status(std::string_view user_id, const UserState&)>& user) const = 0;

  [[nodiscard]] virtual Result<std::map<TopicPartition, PartitionProgress>> Progress() const = 0;
  [[nodiscard]] virtual std::uint64_t epoch() const = 0;
  // As of the last commit:
  [[nodiscard]] virtual std::uint64_t next_label() const = 0;
  [[nodiscard]] virtual std::uint64_t sequence() const = 0;
  [[nodiscard]] virtual std::int64_t as_of_ms() const = 0;

  // Oldest first, up to `max_records` or `max_bytes`, whichever comes first. Trim removes all up to and including
  // `sequence`.
  [[nodiscard]] virtual Result<std::vector<OutboxEntry>> ReadOutbox(std::size_t max_records,
                                                                    std::size_t max_bytes) const = 0;
  virtual Status TrimOutbox(std::uint64_t up_to_sequence) = 0;
  [[nodiscard]] virtual std::uint64_t outbox_records() const = 0;
  [[nodiscard]] virtual std::uint64_t outbox_bytes() const = 0;

  // Memtables to disk; at a graceful stop.
  virtual Status Flush() = 0;
};

}  // namespace freshet
