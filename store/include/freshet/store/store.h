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
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/indexer/index.h"
#include "freshet/store/replica.h"

namespace rocksdb {
class Env;
}

namespace freshet {

// What a commit that has returned survives. All three: the end of the process, however it comes. Whatever is lost is a
// suffix of commits with their offsets, so Kafka gives it again, as long as its retention reaches back. What followers
// were told is never among it (MakeDurable): its numbers would be given again, to other records.
enum class Durability {
  kWal,       // power loss: what the kernel had not written back (seconds)
  kSync,      // power loss too: fsync of the log at each commit
  kInterval,  // power loss: at most the last sync_interval_ms, and the fsync that was under way
};

// How vectors are kept. fp16 halves the store's largest family; vectors are rounded before they are indexed, so that a
// restart changes no score.
enum class VectorType : std::uint8_t { kFp32 = 0, kFp16 = 1 };

// To what the store keeps, so that what is indexed and published is what is stored.
void RoundTo(VectorType type, std::span<float> vector);

struct StoreOptions {
  std::string directory;
  std::string space_id;
  int dim = 0;
  Metric metric = Metric::kCosine;
  Durability durability = Durability::kWal;
  int sync_interval_ms = 100;  // with kInterval
  VectorType vectors = VectorType::kFp32;
  std::size_t cache_bytes = std::size_t{64} << 20;  // block cache, write buffers charged to it
  std::size_t write_buffer_bytes = std::size_t{32} << 20;
  std::uint64_t compaction_bytes_per_second = 0;  // of flushes and compactions together; 0: no limit
  std::uint64_t epoch_above = 0;                  // a new store's epoch is higher, though the clock went backwards
  rocksdb::Env* env = nullptr;                    // not owned; null: the system's
  Status Validate() const;
};

// What is known of an item beside its payload.
struct ItemRow {
  Label label = 0;
  std::uint64_t epoch = 0;  // of the store that numbered it
  std::uint64_t sequence = 0;
  LogPosition position;  // in the log this process reads
  std::int64_t record_timestamp_ms = 0;
  // Engine: of its partition when the item was last seen there; see PartitionProgress.
  std::uint32_t generation = 0;
  // Engine: HashOf() what is stored; 0: not known.
  std::uint64_t features_hash = 0;
  std::uint64_t attributes_hash = 0;
  std::int32_t source_partition = -1;  // of the engine's items topic; -1: not known, it is of an older format
};

struct OutboxEntry {
  std::uint64_t sequence = 0;
  bool is_user_event = false;
  std::string key;
  std::optional<std::string> value;
};

// The index file that belongs to the store: `index/<tag>` in its directory. It is written first and named in the store
// afterwards, so that a store which lost a suffix of its log never takes a file of that lost future for its own.
struct IndexFileRow {
  std::uint64_t tag = 0;
  std::uint64_t sequence = 0;  // of the store when the file was cut
};

// What a restored checkpoint becomes, in one batch, before anybody sees it.
struct RestoredAs {
  std::uint64_t sequence_at_least = 0;  // engine: what may have been published since the snapshot is not numbered again
  // Follower: where to go on in the changelog. Replaces all offsets; the outbox is emptied.
  std::optional<std::vector<PartitionProgress>> follow;
  std::optional<IndexFileRow> index_file;
};

// What a look through the store found.
struct StoreCheck {
  std::uint64_t items = 0;
  std::uint64_t users = 0;
  std::uint64_t outbox = 0;
  std::uint64_t covered = 0;  // items whose offset was compared with that of their partition
  std::uint64_t differences = 0;
  std::vector<std::string> examples;  // of the differences, the first few
};

struct StoreCheckOptions {
  std::string items_topic = "items";         // whose offsets cover the items; no other topic's do
  std::function<Status(double)> progress{};  // gets 0..1 and may end it
};

struct StoreSizes {
  std::uint64_t sst_bytes = 0;      // on disk
  std::uint64_t live_bytes = 0;     // RocksDB's estimate of what of it is live
  std::uint64_t written_bytes = 0;  // since open: log, flushes, compactions
  std::uint64_t user_bytes = 0;     // since open: keys and values of commits
};

// That a user was forgotten: what he did before that and is read only later is dropped. Without it he would come back,
// at the latest when all topics are read from their beginning, of which the one with the users is soon done.
struct ForgottenRow {
  std::int64_t at_ms = 0;     // log time
  std::int64_t noted_ms = 0;  // on this machine's clock
};

// Everything one micro-batch changes. Built by the Applier.
struct Commit {
  struct Item {
    std::string item_id;
    std::optional<Label> old_label;  // its vector and label rows go
    bool deleted = false;
    enum class Rows { kAll, kRowAndAttributes, kRow } rows = Rows::kAll;  // what changes; else the label stays
    ItemRow row;                                                          // when not deleted
    const ItemUpdate* update = nullptr;
  };
  std::vector<Item> items;
  std::vector<std::pair<std::string, std::optional<UserState>>> users;  // nothing: forgotten
  std::vector<std::pair<std::string, ForgottenRow>> forgotten;          // engine: user ids
  std::optional<OwnedItems> owned;                                      // follower: where it changed
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
  // The same for a look at it: nothing is written, not even to bring an older format up to date, and a medium that
  // cannot be written will do. Several may look at once, none while somebody else owns the directory. What would write
  // is kFailedPrecondition.
  [[nodiscard]] static Result<std::unique_ptr<Store>> OpenReadOnly(const std::string& directory);
  virtual ~Store() = default;
  // Reads one table of a checkpoint, whose checksums must hold. Any thread. Errors: kCorruption naming it.
  [[nodiscard]] static Status CheckTable(const std::string& path);

  // Atomic; see Durability for what survives what. After an error nothing can be written until Reopen(): whether the
  // commit is in the store is then told by sequence(), and writing it again changes nothing.
  virtual Status Write(const Commit& commit) = 0;
  [[nodiscard]] virtual bool writable() const = 0;
  // Any thread. Why nothing can be written: what failed last, be it a commit, a trim or a sync. Ok while writable().
  [[nodiscard]] virtual Status failure() const = 0;
  // Writer thread. Closes the database and opens it again; it can be read all the while. Errors: kResourceExhausted
  // while the disk has too little room; kIoError. Then try again later.
  virtual Status Reopen() = 0;

  [[nodiscard]] virtual Result<std::optional<ItemRow>> GetItem(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Features>> GetFeatures(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Attributes>> GetAttributes(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<std::vector<float>>> GetVector(Label label) const = 0;
  [[nodiscard]] virtual Result<std::optional<UserState>> GetUser(std::string_view user_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<ForgottenRow>> GetForgotten(std::string_view user_id) const = 0;
  // Removes what was noted, and happened, before `before_ms`; says how many such rows are left.
  virtual Result<std::uint64_t> TrimForgotten(std::int64_t before_ms) = 0;

  // In id order, over one consistent snapshot. Stops at the first status that is not ok.
  virtual Status ForEachItem(const std::function<Status(std::string_view item_id, const ItemRow& row)>& item) const = 0;
  virtual Status ForEachUser(const std::function<Status(std::string_view user_id, const UserState&)>& user) const = 0;
  // Items with their attributes, as answers show them; in id order.
  virtual Status ForEachShown(
      const std::function<Status(std::string_view item_id, const ItemRow& row, Attributes attributes)>& item) const = 0;

  // Labels with the items that they name, ascending, from `from` on, at most `max`: a page of all of them.
  [[nodiscard]] virtual Result<std::vector<std::pair<Label, std::string>>> LabelsFrom(Label from,
                                                                                      std::size_t max) const = 0;

  // Follower: what the engine owned when it last said so.
  [[nodiscard]] virtual Result<OwnedItems> Owned() const = 0;

  [[nodiscard]] virtual std::uint64_t EstimatedItems() const = 0;  // of the order of; to reserve room

  [[nodiscard]] virtual Result<std::map<TopicPartition, PartitionProgress>> Progress() const = 0;
  // Of what is on disk: today's, but for an older store that was opened to be looked at.
  [[nodiscard]] virtual std::uint32_t format() const = 0;
  [[nodiscard]] virtual std::uint64_t epoch() const = 0;
  // Follower: rows of this epoch came with a snapshot of the engine and carry the engine's partitions; 0: none did.
  [[nodiscard]] virtual std::uint64_t restored_epoch() const = 0;
  // Engine: what it numbers after it was restored is above this; 0: it never was. What it numbered before may be older
  // than what it published.
  [[nodiscard]] virtual std::uint64_t renumbered() const = 0;
  [[nodiscard]] virtual const StoreOptions& options() const = 0;
  // As of the last commit:
  [[nodiscard]] virtual std::uint64_t next_label() const = 0;
  [[nodiscard]] virtual std::uint64_t sequence() const = 0;
  [[nodiscard]] virtual std::int64_t as_of_ms() const = 0;

  // What is above `sequence`, oldest first, up to `max_records` or `max_bytes`, whichever comes first.
  [[nodiscard]] virtual Result<std::vector<OutboxEntry>> ReadOutboxAbove(std::uint64_t sequence,
                                                                         std::size_t max_records,
                                                                         std::size_t max_bytes) const = 0;
  [[nodiscard]] Result<std::vector<OutboxEntry>> ReadOutbox(std::size_t max_records, std::size_t max_bytes) const {
    return ReadOutboxAbove(0, max_records, max_bytes);
  }
  // Removes all up to and including `sequence`. Errors: kUnavailable until the store is open again.
  virtual Status TrimOutbox(std::uint64_t up_to_sequence) = 0;
  [[nodiscard]] virtual std::uint64_t outbox_records() const = 0;
  [[nodiscard]] virtual std::uint64_t outbox_bytes() const = 0;

  // What was written so far survives power loss when this returns. Any thread.
  virtual Status SyncLog() = 0;
  // The same of the commits up to `sequence`, whatever options().durability: syncs the log if they are not known to
  // survive. Any thread; works after a failed write too, where the disk still syncs. Errors: kUnavailable until the
  // writer has opened the store again.
  virtual Status MakeDurable(std::uint64_t sequence) = 0;
  // Memtables to disk; at a graceful stop, and before a checkpoint. Any thread.
  virtual Status Flush() = 0;
  // The store as it is, into a directory that is not there yet, on the same file system: tables are hard links, the log
  // is copied. Writer thread between two commits; quick after a Flush(). The files are not synced yet.
  virtual Status Checkpoint(const std::string& directory) = 0;
  virtual Status BecomeRestored(const RestoredAs& as) = 0;
  // Reads everything: every table's checksums, items, vectors, labels, features and attributes one to one, no number
  // above its counter. One consistent view; other threads go on. Errors: kCorruption where rows cannot be read.
  [[nodiscard]] virtual Result<StoreCheck> Check(const StoreCheckOptions& options) const = 0;
  // What of it is cheap, a page of items at a time: numbers against their counters, items against the offsets of
  // `items_topic`, the outbox against the sequence. Each page is a consistent view of its own. `from` is empty at
  // first, then what was returned; nothing: that was the last page. Adds to *check.
  [[nodiscard]] virtual Result<std::optional<std::string>> CheckNumbers(const std::string& items_topic,
                                                                        const std::string& from, std::size_t max_items,
                                                                        StoreCheck* check) const = 0;
  [[nodiscard]] virtual StoreSizes Sizes() const = 0;
  // Since open.
  [[nodiscard]] virtual std::uint64_t wal_bytes() const = 0;
  [[nodiscard]] virtual Result<std::optional<IndexFileRow>> IndexFile() const = 0;
  virtual Status PutIndexFile(const IndexFileRow& row) = 0;
};

}  // namespace freshet
