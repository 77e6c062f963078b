#include "freshet/store/store.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "directory_lock.h"
#include "freshet/core/bytes.h"
#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "store_rows.h"

namespace freshet {
namespace {

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
constexpr std::array<const char*, kFamilies> kFamilyNames = {"default",  "meta",       "items", "vectors", "labels",
                                                             "features", "attributes", "users", "offsets", "outbox"};
constexpr char kIdentityKey[] = "identity";
constexpr char kStateKey[] = "state";

rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

Status FromRocks(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return Status::Ok();
  const std::string message = StrCat(what, ": ", status.ToString());
  if (status.IsNotFound()) return NotFound(message);
  if (status.IsCorruption()) return Corruption(message);
  if (status.subcode() == rocksdb::Status::kNoSpace) return ResourceExhausted(message);
  if (status.IsIOError()) return IoError(message);
  if (status.IsBusy() || status.IsTryAgain() || status.IsTimedOut()) return Unavailable(message);
  return Internal(message);
}

// Debian's RocksDB is built with assertions, and its default info log asserts on a failed write: a full disk would
// abort the process (measured). This one writes nowhere but to our log.
class InfoLog final : public rocksdb::Logger {
 public:
  InfoLog() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < rocksdb::InfoLogLevel::WARN_LEVEL) return;
    std::array<char, 1024> text{};
    std::vsnprintf(text.data(), text.size(), format, arguments);
    Log(level >= rocksdb::InfoLogLevel::ERROR_LEVEL ? LogLevel::kError : LogLevel::kWarning, "rocksdb", text.data());
  }
  void Logv(const char* format, va_list arguments) override {
    Logv(rocksdb::InfoLogLevel::INFO_LEVEL, format, arguments);
  }
};

class RocksStore final : public Store {
 public:
  // With `existing`, dimension, metric and space are taken from the store itself.
  RocksStore(const StoreOptions& options, bool existing) : options_(options), existing_(existing) {}
  ~RocksStore() override {
    for (auto* handle : handles_) {
      if (handle != nullptr) db_->DestroyColumnFamilyHandle(handle);
    }
  }
  RocksStore(const RocksStore&) = delete;
  RocksStore& operator=(const RocksStore&) = delete;

  Status Initialise() {
    FRESHET_TRY(OpenDatabase());
    return LoadIdentity();
  }
  Status Write(const Commit& commit) override;
  Status ForEachItem(const std::function<Status(std::string_view, const ItemRow&)>& item) const override;
  Status ForEachUser(const std::function<Status(std::string_view, const UserState&)>& user) const override;
  [[nodiscard]] Result<std::map<TopicPartition, PartitionProgress>> Progress() const override;
  [[nodiscard]] Result<std::vector<OutboxEntry>> ReadOutbox(std::size_t max_records,
                                                            std::size_t max_bytes) const override;
  Status TrimOutbox(std::uint64_t up_to_sequence) override;

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
  [[nodiscard]] Result<std::optional<std::vector<float>>> GetVector(Label label) const override {
    return GetRow<std::vector<float>>(kVectors, OrderedKey(label),
                                      [this](std::string_view bytes) { return DecodeVector(bytes); });
  }

  [[nodiscard]] std::uint64_t epoch() const override { return identity_.epoch; }
  [[nodiscard]] std::uint64_t next_label() const override { return state_.next_label; }
  [[nodiscard]] std::uint64_t sequence() const override { return state_.sequence; }
  [[nodiscard]] std::int64_t as_of_ms() const override { return state_.as_of_ms; }
  [[nodiscard]] std::uint64_t outbox_records() const override { return outbox_records_.load(); }
  [[nodiscard]] std::uint64_t outbox_bytes() const override { return outbox_bytes_.load(); }
  Status Flush() override {
    return FromRocks(db_->Flush(rocksdb::FlushOptions(), handles_), options_.directory + ": flush");
  }

 private:
  template <typename Row, typename Decode>
  Result<std::optional<Row>> GetRow(Family family, std::string_view key, Decode decode) const {
    rocksdb::PinnableSlice value;
    const rocksdb::Status status =
        db_->Get(rocksdb::ReadOptions(), handles_[static_cast<std::size_t>(family)], ToSlice(key), &value);
    if (status.IsNotFound()) return std::optional<Row>();
    FRESHET_TRY(FromRocks(status, kFamilyNames[static_cast<std::size_t>(family)]));
    auto row = decode(ToView(value));
    if (!row.ok()) return row.status().Prefixed(kFamilyNames[static_cast<std::size_t>(family)]);
    return std::optional<Row>(std::move(*row));
  }
  [[nodiscard]] Result<std::vector<float>> DecodeVector(std::string_view bytes) const {
    std::vector<float> vector(static_cast<std::size_t>(options_.dim));
    if (bytes.size() != vector.size() * sizeof(float)) return Corruption("vector row does not decode");
    std::memcpy(vector.data(), bytes.data(), bytes.size());
    return vector;
  }
  // An iterator ends early at a damaged block, and only its status says so: it is checked here for everyone.
  Status Scan(Family family, const std::string& from,
              const std::function<Result<bool>(std::string_view key, std::string_view value)>& row) const {
    rocksdb::ReadOptions read;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read, Handle(family)));
    for (it->Seek(from); it->Valid(); it->Next()) {
      FRESHET_ASSIGN(const bool more, row(ToView(it->key()), ToView(it->value())));
      if (!more) return Status::Ok();
    }
    return FromRocks(it->status(), kFamilyNames[static_cast<std::size_t>(family)]);
  }
  Status OpenDatabase();
  Status LoadIdentity();
  [[nodiscard]] rocksdb::ColumnFamilyHandle* Handle(Family family) const {
    return handles_[static_cast<std::size_t>(family)];
  }
  void PutItem(const Commit::Item& item, rocksdb::WriteBatch* batch) const;

  StoreOptions options_;  // constant after Initialise()
  const bool existing_;
  DirectoryLock lock_;  // released after the database is closed
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  StoreIdentity identity_;
  StoreState state_;     // writer thread only, after Open
  bool broken_ = false;  // writer thread only: a write failed, the handle is not trusted any more
  std::atomic<std::uint64_t> outbox_records_{0};
  std::atomic<std::uint64_t> outbox_bytes_{0};
  std::atomic<std::uint64_t> outbox_first_{0};  // nothing below it is left: keeps reads off the trimmed range
};

Status RocksStore::OpenDatabase() {
  FRESHET_TRY(CreateDirectories(options_.directory));
  FRESHET_TRY(lock_.Acquire(options_.directory));
  rocksdb::Options db;
  db.create_if_missing = !existing_;
  db.create_missing_column_families = true;
  db.info_log = std::make_shared<InfoLog>();
  // kill -9 may tear the log's tail; everything before the tear is kept (traps.md).
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  db.max_open_files = 512;
  db.max_background_jobs = 2;
  db.max_total_wal_size = std::size_t{256} << 20;
  db.keep_log_file_num = 1;
  // One cache bounds it all: blocks, their index and filters, and write buffers.
  const auto cache = rocksdb::NewLRUCache(options_.cache_bytes);
  db.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(options_.write_buffer_bytes * 2, cache);
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = options_.write_buffer_bytes;
  family.compression = rocksdb::kLZ4Compression;
  family.level_compaction_dynamic_level_bytes = true;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  descriptors.reserve(kFamilyNames.size());
  for (const char* name : kFamilyNames) descriptors.emplace_back(name, family);
  // Floats do not compress; trying costs time.
  descriptors[kVectors].options.compression = rocksdb::kNoCompression;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(db, options_.directory, descriptors, &handles_, &opened);
  FRESHET_TRY(FromRocks(status, options_.directory));
  db_.reset(opened);
  return Status::Ok();
}

Status RocksStore::LoadIdentity() {
  std::string bytes;
  const rocksdb::Status found = db_->Get(rocksdb::ReadOptions(), Handle(kMeta), kIdentityKey, &bytes);
  if (found.IsNotFound() && db_->GetLatestSequenceNumber() == 0) {
    identity_.epoch = static_cast<std::uint64_t>(SystemClock().WallMs()) * 1000;
    identity_.dim = static_cast<std::uint32_t>(options_.dim);
    identity_.metric = MetricName(options_.metric);
    identity_.space_id = options_.space_id;
    rocksdb::WriteOptions write;
    write.sync = true;
    return FromRocks(db_->Put(write, Handle(kMeta), kIdentityKey, EncodeIdentity(identity_)), options_.directory);
  }
  if (found.IsNotFound()) return Corruption(StrCat(options_.directory, ": a database without an identity row"));
  FRESHET_TRY(FromRocks(found, options_.directory));
  FRESHET_ASSIGN(identity_, DecodeIdentity(bytes));
  if (identity_.format != StoreIdentity{}.format) {
    return FailedPrecondition(StrCat(options_.directory, ": store format ", identity_.format, ", this freshet reads ",
                                     StoreIdentity{}.format));
  }
  if (existing_) options_.dim = static_cast<int>(identity_.dim);
  if (!existing_ &&
      (identity_.space_id != options_.space_id || identity_.dim != static_cast<std::uint32_t>(options_.dim) ||
       identity_.metric != MetricName(options_.metric))) {
    return FailedPrecondition(StrCat(options_.directory, ": holds vectors of embedding space ", identity_.space_id,
                                     " (", identity_.dim, "-d ", identity_.metric, "), the configured model makes ",
                                     options_.space_id, " (", options_.dim, "-d ", MetricName(options_.metric),
                                     "): use the model it was made with, or an empty data_dir to embed all again"));
  }
  const rocksdb::Status state = db_->Get(rocksdb::ReadOptions(), Handle(kMeta), kStateKey, &bytes);
  if (!state.IsNotFound()) {
    FRESHET_TRY(FromRocks(state, options_.directory));
    FRESHET_ASSIGN(state_, DecodeState(bytes));
  }
  std::uint64_t records = 0;
  std::uint64_t total = 0;
  FRESHET_TRY(Scan(kOutbox, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (records++ == 0) outbox_first_ = FromOrderedKey(key);
    total += value.size();
    return true;
  }));
  outbox_records_ = records;
  outbox_bytes_ = total;
  return Status::Ok();
}

void RocksStore::PutItem(const Commit::Item& item, rocksdb::WriteBatch* batch) const {
  if (item.old_label) {
    batch->Delete(Handle(kVectors), OrderedKey(*item.old_label));
    batch->Delete(Handle(kLabels), OrderedKey(*item.old_label));
  }
  if (item.deleted) {
    for (const Family family : {kItems, kFeatures, kAttributes}) batch->Delete(Handle(family), item.item_id);
    return;
  }
  const std::string label = OrderedKey(item.row.label);
  const auto& vector = item.update->vector;
  batch->Put(Handle(kItems), item.item_id, EncodeItemRow(item.row));
  batch->Put(Handle(kVectors), label,
             rocksdb::Slice(reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)));
  batch->Put(Handle(kLabels), label, item.item_id);
  batch->Put(Handle(kFeatures), item.item_id, EncodeFeatureRow(item.update->features));
  batch->Put(Handle(kAttributes), item.item_id, EncodeAttributeRow(item.update->attributes));
}

Status RocksStore::Write(const Commit& commit) {
  if (broken_) return IoError(StrCat(options_.directory, ": an earlier write failed; restart to continue"));
  FRESHET_TRY(FaultPoint("store.before_write"));
  rocksdb::WriteBatch batch;
  std::uint64_t outbox_bytes = 0;
  for (const Commit::Item& item : commit.items) PutItem(item, &batch);
  for (const auto& [id, user] : commit.users) {
    if (user) {
      batch.Put(Handle(kUsers), id, EncodeUserRow(*user));
    } else {
      batch.Delete(Handle(kUsers), id);
    }
  }
  for (const PartitionProgress& progress : commit.progress) {
    batch.Put(Handle(kOffsets), OffsetKey(progress.partition), EncodeOffsetRow(progress));
  }
  for (const OutboxEntry& entry : commit.outbox) {
    const std::string row = EncodeOutboxRow(entry);
    outbox_bytes += row.size();
    batch.Put(Handle(kOutbox), OrderedKey(entry.sequence), row);
  }
  const StoreState state{commit.next_label, commit.sequence, commit.as_of_ms};
  batch.Put(Handle(kMeta), kStateKey, EncodeState(state));
  rocksdb::WriteOptions write;
  write.sync = options_.sync;
  const rocksdb::Status status = db_->Write(write, &batch);
  if (!status.ok()) {
    broken_ = true;
    return FromRocks(status, options_.directory + ": commit");
  }
  state_ = state;
  outbox_records_ += commit.outbox.size();
  outbox_bytes_ += outbox_bytes;
  return FaultPoint("store.after_write");
}

Status RocksStore::ForEachItem(const std::function<Status(std::string_view, const ItemRow&)>& item) const {
  return Scan(kItems, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    FRESHET_ASSIGN(const ItemRow row, DecodeItemRow(value));
    FRESHET_TRY(item(key, row));
    return true;
  });
}

Status RocksStore::ForEachUser(const std::function<Status(std::string_view, const UserState&)>& user) const {
  return Scan(kUsers, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    FRESHET_ASSIGN(const UserState row, DecodeUserRow(value));
    FRESHET_TRY(user(key, row));
    return true;
  });
}

Result<std::map<TopicPartition, PartitionProgress>> RocksStore::Progress() const {
  std::map<TopicPartition, PartitionProgress> all;
  FRESHET_TRY(Scan(kOffsets, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    FRESHET_ASSIGN(PartitionProgress progress, DecodeOffsetRow(key, value));
    const TopicPartition partition = progress.partition;
    all[partition] = std::move(progress);
    return true;
  }));
  return all;
}

Result<std::vector<OutboxEntry>> RocksStore::ReadOutbox(std::size_t max_records, std::size_t max_bytes) const {
  std::vector<OutboxEntry> entries;
  std::size_t bytes = 0;
  FRESHET_TRY(
      Scan(kOutbox, OrderedKey(outbox_first_), [&](std::string_view key, std::string_view value) -> Result<bool> {
        if (key.size() != 8) return Corruption("outbox key does not decode");
        FRESHET_ASSIGN(OutboxEntry entry, DecodeOutboxRow(FromOrderedKey(key), value));
        entries.push_back(std::move(entry));
        bytes += value.size();
        return entries.size() < max_records && bytes < max_bytes;
      }));
  return entries;
}

Status RocksStore::TrimOutbox(std::uint64_t up_to_sequence) {
  FRESHET_TRY(FaultPoint("outbox.before_trim"));
  rocksdb::WriteBatch batch;
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  FRESHET_TRY(
      Scan(kOutbox, OrderedKey(outbox_first_), [&](std::string_view key, std::string_view value) -> Result<bool> {
        if (FromOrderedKey(key) > up_to_sequence) return false;
        batch.Delete(Handle(kOutbox), ToSlice(key));
        ++records;
        bytes += value.size();
        return true;
      }));
  // Not synced: what reappears after a power loss is published again, and followers drop it by its sequence.
  FRESHET_TRY(FromRocks(db_->Write(rocksdb::WriteOptions(), &batch), options_.directory + ": trim"));
  outbox_first_ = up_to_sequence + 1;
  outbox_records_ -= records;
  outbox_bytes_ -= bytes;
  return FaultPoint("outbox.after_trim");
}

}  // namespace

Status StoreOptions::Validate() const {
  if (directory.empty()) return ConfigError("data_dir is empty");
  if (space_id.empty()) return ConfigError("the embedding space has no id");
  if (dim < 1 || dim > 4096) return ConfigError(StrCat("dim must be 1 to 4096, not ", dim));
  if (cache_bytes < (std::size_t{8} << 20)) return ConfigError("store.cache_bytes must be at least 8388608");
  if (write_buffer_bytes < (std::size_t{1} << 20))
    return ConfigError("store.write_buffer_bytes must be at least 1048576");
  return Status::Ok();
}

namespace {

Result<std::unique_ptr<Store>> OpenStore(const StoreOptions& options, bool existing) {
  try {
    auto store = std::make_unique<RocksStore>(options, existing);
    FRESHET_TRY(store->Initialise());
    return std::unique_ptr<Store>(std::move(store));
  } catch (const std::exception& e) {
    return Internal(StrCat(options.directory, ": ", e.what()));
  }
}

}  // namespace

Result<std::unique_ptr<Store>> Store::Open(const StoreOptions& options) {
  FRESHET_TRY(options.Validate());
  return OpenStore(options, /*existing=*/false);
}

Result<std::unique_ptr<Store>> Store::OpenExisting(const std::string& directory) {
  if (!FileExists(directory + "/CURRENT")) return NotFound(StrCat(directory, ": holds no store"));
  StoreOptions options;
  options.directory = directory;
  return OpenStore(options, /*existing=*/true);
}

}  // namespace freshet
