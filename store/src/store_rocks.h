// The store on RocksDB: what store.cc, store_open.cc and store_check.cc share.
//
// Place in the flow: private to store/src/store*.cc, the only files that name RocksDB. A handle whose write failed is
// not trusted any more: Reopen() closes it and opens another, while readers are served by a read-only view of the same
// files. Threads: see the groups of fields.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/iterator.h>
#include <rocksdb/statistics.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "directory_lock.h"
#include "freshet/core/status.h"
#include "freshet/store/store.h"
#include "store_rows.h"

namespace freshet {

enum Family {
  kDefault,
  kMeta,
  kItems,
  kVectors,
  kLabels,
  kFeatures,
  kAttributes,
  kUsers,
  kOffsets,
  kOutbox,
  kFamilies
};
inline constexpr std::array<const char*, kFamilies> kFamilyNames = {
    "default", "meta", "items", "vectors", "labels", "features", "attributes", "users", "offsets", "outbox"};

// Keys of the family `meta`.
inline constexpr char kIdentityKey[] = "identity";
inline constexpr char kStateKey[] = "state";
inline constexpr char kRestoredKey[] = "restored";
inline constexpr char kRenumberedKey[] = "renumbered";
inline constexpr char kIndexFileKey[] = "index_file";
inline constexpr char kOwnedKey[] = "owned";
inline constexpr char kForgottenPrefix[] = "forgotten:";  // before a user id

inline rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }
[[nodiscard]] Status FromRocks(const rocksdb::Status& status, std::string_view what);
// The same while a directory is opened, where whatever is missing or unknown is damage.
[[nodiscard]] Status FromOpen(const rocksdb::Status& status, std::string_view what);

// Errors: kFailedPrecondition for a format that is newer than ours.
[[nodiscard]] Status CheckFormat(std::uint32_t format, const std::string& directory);
inline constexpr std::uint32_t kFirstFormatWithChain = 3;

// A database and its column families, closed in order.
class RocksHandle {
 public:
  // Errors: as Store::Open. `read_only` writes nothing and takes no lock.
  [[nodiscard]] static Result<std::shared_ptr<RocksHandle>> Open(
      const StoreOptions& options, bool create, bool read_only, const std::shared_ptr<rocksdb::Statistics>& statistics);
  ~RocksHandle();
  RocksHandle(const RocksHandle&) = delete;
  RocksHandle& operator=(const RocksHandle&) = delete;
  [[nodiscard]] rocksdb::DB* db() const { return db_.get(); }
  [[nodiscard]] rocksdb::ColumnFamilyHandle* Of(Family family) const {
    return families_[static_cast<std::size_t>(family)];
  }
  [[nodiscard]] const std::vector<rocksdb::ColumnFamilyHandle*>& families() const { return families_; }

 private:
  RocksHandle() = default;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
};

// Summed over all families.
[[nodiscard]] std::uint64_t IntProperty(const RocksHandle& handle, const std::string& name);

class RocksStore final : public Store {
 public:
  // All but kAsConfigured take dimension, metric and space from the store itself.
  enum class Mode { kAsConfigured, kExisting, kReadOnly };
  RocksStore(const StoreOptions& options, Mode mode) : options_(options), mode_(mode) {}
  ~RocksStore() override;
  RocksStore(const RocksStore&) = delete;
  RocksStore& operator=(const RocksStore&) = delete;

  Status Initialise();
  Status Write(const Commit& commit) override;
  [[nodiscard]] bool writable() const override { return !broken_.load() && mode_ != Mode::kReadOnly; }
  [[nodiscard]] Status failure() const override;
  Status Reopen() override;
  Status ForEachItem(const std::function<Status(std::string_view, const ItemRow&)>& item) const override;
  Status ForEachUser(const std::function<Status(std::string_view, const UserState&)>& user) const override;
  Status ForEachShown(
      const std::function<Status(std::string_view, const ItemRow&, Attributes attributes)>& item) const override;
  [[nodiscard]] Result<std::map<TopicPartition, PartitionProgress>> Progress() const override;
  [[nodiscard]] Result<std::vector<OutboxEntry>> ReadOutboxAbove(std::uint64_t sequence, std::size_t max_records,
                                                                 std::size_t max_bytes) const override;
  Status TrimOutbox(std::uint64_t up_to_sequence) override;
  Status SyncLog() override;
  Status MakeDurable(std::uint64_t sequence) override;
  Status Flush() override;
  Status Checkpoint(const std::string& directory) override;
  Status BecomeRestored(const RestoredAs& as) override;
  [[nodiscard]] Result<StoreCheck> Check(const StoreCheckOptions& options) const override;
  [[nodiscard]] Result<std::optional<std::string>> CheckNumbers(const std::string& items_topic, const std::string& from,
                                                                std::size_t max_items,
                                                                StoreCheck* check) const override;
  [[nodiscard]] Result<std::vector<std::pair<Label, std::string>>> LabelsFrom(Label from,
                                                                              std::size_t max) const override;
  [[nodiscard]] StoreSizes Sizes() const override;
  [[nodiscard]] std::uint64_t EstimatedItems() const override;
  [[nodiscard]] Result<std::optional<IndexFileRow>> IndexFile() const override;
  Status PutIndexFile(const IndexFileRow& row) override;

  [[nodiscard]] Result<std::optional<ItemRow>> GetItem(std::string_view item_id) const override {
    return GetRow<ItemRow>(kItems, item_id, &DecodeItemRow);
  }
  [[nodiscard]] Result<std::optional<Features>> GetFeatures(std::string_view item_id) const override {
    return GetRow<Features>(kFeatures, item_id, &DecodeFeatureRow);
  }
  [[nodiscard]] Result<std::optional<Attributes>> GetAttributes(std::string_view item_id) const override {
    return GetRow<Attributes>(kAttributes, item_id, &DecodeAttributeRow);
  }
  [[nodiscard]] Result<std::optional<UserState>> GetUser(std::string_view user_id) const override {
    return GetRow<UserState>(kUsers, user_id, &DecodeUserRow);
  }
  [[nodiscard]] Result<std::optional<std::vector<float>>> GetVector(Label label) const override;
  [[nodiscard]] Result<std::optional<ForgottenRow>> GetForgotten(std::string_view user_id) const override {
    return GetRow<ForgottenRow>(kMeta, StrCat(kForgottenPrefix, user_id), &DecodeForgottenRow);
  }
  Result<std::uint64_t> TrimForgotten(std::int64_t before_ms) override;
  [[nodiscard]] Result<OwnedItems> Owned() const override {
    FRESHET_ASSIGN(std::optional<OwnedItems> row, GetRow<OwnedItems>(kMeta, kOwnedKey, &DecodeOwnedRow));
    return row ? std::move(*row) : OwnedItems();
  }

  [[nodiscard]] std::uint32_t format() const override { return identity_.format; }
  [[nodiscard]] std::uint64_t epoch() const override { return identity_.epoch; }
  [[nodiscard]] std::uint64_t restored_epoch() const override { return restored_epoch_; }
  [[nodiscard]] std::uint64_t renumbered() const override { return renumbered_; }
  [[nodiscard]] const StoreOptions& options() const override { return options_; }
  [[nodiscard]] std::uint64_t next_label() const override { return state_.next_label; }
  [[nodiscard]] std::uint64_t sequence() const override { return state_.sequence; }
  [[nodiscard]] std::int64_t as_of_ms() const override { return state_.as_of_ms; }
  [[nodiscard]] std::uint64_t outbox_records() const override { return outbox_records_.load(); }
  [[nodiscard]] std::uint64_t outbox_bytes() const override { return outbox_bytes_.load(); }
  [[nodiscard]] std::uint64_t wal_bytes() const override { return wal_bytes_.load(); }

 private:
  template <typename Row, typename Decode>
  Result<std::optional<Row>> GetRow(Family family, std::string_view key, Decode decode) const {
    const std::shared_ptr<RocksHandle> handle = Current();
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = handle->db()->Get(rocksdb::ReadOptions(), handle->Of(family), ToSlice(key), &value);
    if (status.IsNotFound()) return std::optional<Row>();
    FRESHET_TRY(FromRocks(status, kFamilyNames[static_cast<std::size_t>(family)]));
    auto row = decode(ToView(value));
    if (!row.ok()) return row.status().Prefixed(kFamilyNames[static_cast<std::size_t>(family)]);
    return std::optional<Row>(std::move(*row));
  }
  // What readers use now; they may keep it for as long as they read.
  [[nodiscard]] std::shared_ptr<RocksHandle> Current() const {
    const std::lock_guard lock(current_mu_);
    return current_;
  }
  void SetCurrent(std::shared_ptr<RocksHandle> handle) {
    const std::lock_guard lock(current_mu_);
    current_.swap(handle);
  }
  // An iterator ends early at a damaged block, and only its status says so: it is checked here for everyone.
  Status Scan(Family family, const std::string& from,
              const std::function<Result<bool>(std::string_view key, std::string_view value)>& row) const;
  Status LoadIdentity();
  Status MakeIdentity();
  Status WriteIdentity(bool begin_chain);  // of commits, which formats 1 and 2 had not
  // A number of the family `meta` that has no version byte; 0: it is not there.
  [[nodiscard]] Result<std::uint64_t> GetNumber(const char* key) const;
  // kUnavailable until a broken store is open again; kFailedPrecondition where it is only looked at.
  [[nodiscard]] Status CheckWritable() const;
  // Of store_chain.h: whether each family ends where the state says.
  [[nodiscard]] Status CheckChain(const RocksHandle& handle) const;
  // The end of a commit that writes to `touched`: their links, and the state, which counts them.
  static void PutState(const RocksHandle& handle, std::initializer_list<std::pair<Family, bool>> touched,
                       StoreState* state, rocksdb::WriteBatch* batch);
  Status LoadState();
  // A write that failed: nothing more is written through this handle.
  Status Broken(const rocksdb::Status& status, const char* what);
  // Any thread. Errors also: kUnavailable while there is no handle to sync.
  Status SyncCurrent();
  void PutItem(const RocksHandle& handle, const Commit::Item& item, rocksdb::WriteBatch* batch) const;
  void SyncEvery();

  StoreOptions options_;  // constant after Initialise()
  const Mode mode_;
  DirectoryLock lock_;  // released after the database is closed
  std::shared_ptr<rocksdb::Statistics> statistics_;
  mutable std::mutex current_mu_;
  std::shared_ptr<RocksHandle> current_;  // guarded by current_mu_; never null after Initialise()
  StoreIdentity identity_;
  std::uint64_t renumbered_ = 0;      // constant after Initialise()
  std::uint64_t restored_epoch_ = 0;  // constant after Initialise()
  StoreState state_;                  // writer thread only, after Open
  std::atomic<bool> broken_{false};   // a write failed, the handle is not trusted any more
  mutable std::mutex failure_mu_;
  Status failure_;      // guarded by failure_mu_; of the last write that failed
  std::mutex trim_mu_;  // Reopen() and TrimOutbox() exclude each other
  std::atomic<std::uint64_t> outbox_records_{0};
  std::atomic<std::uint64_t> outbox_bytes_{0};
  std::atomic<std::uint64_t> outbox_first_{0};        // nothing below it is left: keeps reads off the trimmed range
  std::atomic<std::uint64_t> committed_sequence_{0};  // state_.sequence, for any thread
  std::atomic<std::uint64_t> durable_sequence_{0};    // survives power loss
  std::atomic<std::uint64_t> wal_bytes_{0};
  std::atomic<std::uint64_t> user_bytes_{0};
  std::mutex log_sync_mu_;
  bool log_sync_failed_ = false;  // guarded by log_sync_mu_; of the current handle
  // durability: interval
  std::thread syncer_;
  std::mutex sync_mu_;
  std::condition_variable sync_wake_;
  bool sync_stop_ = false;  // guarded by sync_mu_
};

}  // namespace freshet
