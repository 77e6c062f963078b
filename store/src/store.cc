#include "freshet/store/store.h"

#include <rocksdb/snapshot.h>

#include "freshet/core/bytes.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "store_chain.h"
#include "store_rocks.h"

namespace freshet {
namespace {

// The disk reads a family while what is needed before it is gone through.
void WillScan(const RocksHandle& handle, Family family) {
  rocksdb::ColumnFamilyMetaData tables;
  handle.db()->GetColumnFamilyMetaData(handle.Of(family), &tables);
  for (const rocksdb::LevelMetaData& level : tables.levels) {
    for (const rocksdb::SstFileMetaData& file : level.files) WillReadFile(file.db_path + file.name);
  }
}

// Which row it was.
Status Named(const Status& status, Family family, std::string_view key) {
  return status.Prefixed(StrCat(kFamilyNames[family], " `", key, "`"));
}

}  // namespace

void RocksStore::PutItem(const RocksHandle& handle, const Commit::Item& item, rocksdb::WriteBatch* batch) const {
  if (item.old_label) {
    batch->Delete(handle.Of(kVectors), OrderedKey(*item.old_label));
    batch->Delete(handle.Of(kLabels), OrderedKey(*item.old_label));
  }
  if (item.deleted) {
    for (const Family family : {kItems, kFeatures, kAttributes}) batch->Delete(handle.Of(family), item.item_id);
    return;
  }
  batch->Put(handle.Of(kItems), item.item_id, EncodeItemRow(item.row));
  if (item.rows == Commit::Item::Rows::kRow) return;
  batch->Put(handle.Of(kAttributes), item.item_id, EncodeAttributeRow(item.update->attributes));
  if (item.rows == Commit::Item::Rows::kRowAndAttributes) return;
  const std::string label = OrderedKey(item.row.label);
  const auto& vector = item.update->vector;
  if (identity_.vectors == VectorType::kFp32) {
    batch->Put(handle.Of(kVectors), label,
               rocksdb::Slice(reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)));
  } else {
    batch->Put(handle.Of(kVectors), label, EncodeVector(vector, identity_.vectors));
  }
  batch->Put(handle.Of(kLabels), label, item.item_id);
  batch->Put(handle.Of(kFeatures), item.item_id, EncodeFeatureRow(item.update->features));
}

Status RocksStore::Write(const Commit& commit) {
  FRESHET_TRY(CheckWritable());
  FRESHET_TRY(FaultPoint("store.before_write"));
  const std::shared_ptr<RocksHandle> handle = Current();
  rocksdb::WriteBatch batch;
  std::uint64_t outbox_bytes = 0;
  for (const Commit::Item& item : commit.items) PutItem(*handle, item, &batch);
  for (const auto& [id, user] : commit.users) {
    if (user) {
      batch.Put(handle->Of(kUsers), id, EncodeUserRow(*user));
    } else {
      batch.Delete(handle->Of(kUsers), id);
    }
  }
  if (commit.owned) batch.Put(handle->Of(kMeta), kOwnedKey, EncodeOwnedRow(*commit.owned));
  for (const auto& [id, row] : commit.forgotten) {
    batch.Put(handle->Of(kMeta), StrCat(kForgottenPrefix, id), EncodeForgottenRow(row));
  }
  for (const PartitionProgress& progress : commit.progress) {
    batch.Put(handle->Of(kOffsets), OffsetKey(progress.partition), EncodeOffsetRow(progress));
  }
  for (const OutboxEntry& entry : commit.outbox) {
    const std::string row = EncodeOutboxRow(entry);
    outbox_bytes += row.size();
    batch.Put(handle->Of(kOutbox), OrderedKey(entry.sequence), row);
  }
  StoreState state{commit.next_label, commit.sequence, commit.as_of_ms, state_.links};
  const bool items = !commit.items.empty();
  PutState(*handle,
           {{kMeta, true},
            {kItems, items},
            {kVectors, items},
            {kLabels, items},
            {kFeatures, items},
            {kAttributes, items},
            {kUsers, !commit.users.empty()},
            {kOffsets, !commit.progress.empty()},
            {kOutbox, !commit.outbox.empty()}},
           &state, &batch);
  rocksdb::WriteOptions write;
  write.sync = options_.durability == Durability::kSync;
  const std::size_t bytes = batch.GetDataSize();
  const rocksdb::Status status = handle->db()->Write(write, &batch);
  if (!status.ok()) return Broken(status, "commit");
  state_ = std::move(state);
  committed_sequence_ = state_.sequence;
  if (write.sync) durable_sequence_ = state_.sequence;
  outbox_records_ += commit.outbox.size();
  outbox_bytes_ += outbox_bytes;
  wal_bytes_ += bytes;
  user_bytes_ += bytes;
  return FaultPoint("store.after_write");
}

Status RocksStore::Broken(const rocksdb::Status& status, const char* what) {
  Status failure = FromRocks(status, StrCat(options_.directory, ": ", what));
  const std::lock_guard lock(failure_mu_);
  failure_ = failure;
  broken_ = true;
  return failure;
}

Status RocksStore::SyncLog() {
  FRESHET_TRY(CheckWritable());
  return SyncCurrent();
}

// Not CheckWritable(): where a write failed for want of room, what is in the log can still be synced.
Status RocksStore::MakeDurable(std::uint64_t sequence) {
  if (mode_ == Mode::kReadOnly) return CheckWritable();
  if (sequence <= durable_sequence_) return Status::Ok();
  const Status status = SyncCurrent();
  return status.ok() ? status : Unavailable(status.message());
}

// A log whose sync failed is not synced again: the kernel may have given up its pages, and call the next one a success.
Status RocksStore::SyncCurrent() {
  const std::lock_guard lock(log_sync_mu_);
  if (log_sync_failed_) return CheckWritable();
  const std::uint64_t committed = committed_sequence_;
  const rocksdb::Status status = Current()->db()->SyncWAL();
  if (status.ok()) {
    durable_sequence_ = committed;
    return Status::Ok();
  }
  if (status.IsNotSupported()) return Unavailable(StrCat(options_.directory, ": the store is being opened again"));
  log_sync_failed_ = true;
  return Broken(status, "sync");
}

Status RocksStore::failure() const {
  const std::lock_guard lock(failure_mu_);
  return broken_ ? failure_ : Status::Ok();
}

Status RocksStore::CheckWritable() const {
  if (mode_ == Mode::kReadOnly) {
    return FailedPrecondition(StrCat(options_.directory, ": the store was opened to be looked at"));
  }
  if (!broken_) return Status::Ok();
  return Unavailable(StrCat(options_.directory, ": an earlier write failed, the store is not open yet"));
}

Result<std::optional<std::vector<float>>> RocksStore::GetVector(Label label) const {
  return GetRow<std::vector<float>>(kVectors, OrderedKey(label), [this](std::string_view bytes) {
    return DecodeVector(bytes, identity_.dim, identity_.vectors);
  });
}

Result<std::uint64_t> RocksStore::TrimForgotten(std::int64_t before_ms) {
  FRESHET_TRY(CheckWritable());
  const std::string_view prefix = kForgottenPrefix;
  const std::shared_ptr<RocksHandle> handle = Current();
  rocksdb::WriteBatch batch;
  std::uint64_t left = 0;
  FRESHET_TRY(Scan(kMeta, std::string(prefix), [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (!key.starts_with(prefix)) return false;
    const auto row = DecodeForgottenRow(value);
    if (!row.ok()) return Named(row.status(), kMeta, key);
    if (std::max(row->at_ms, row->noted_ms) >= before_ms) {
      ++left;
    } else {
      batch.Delete(handle->Of(kMeta), ToSlice(key));
    }
    return true;
  }));
  if (batch.Count() == 0) return left;
  const rocksdb::Status status = handle->db()->Write(rocksdb::WriteOptions(), &batch);
  if (!status.ok()) return Broken(status, "forgotten users");
  return left;
}

Status RocksStore::Scan(Family family, const std::string& from,
                        const std::function<Result<bool>(std::string_view, std::string_view)>& row) const {
  const std::shared_ptr<RocksHandle> handle = Current();
  rocksdb::ReadOptions read;
  read.readahead_size = std::size_t{1} << 20;
  read.iterate_upper_bound = RowsEnd();
  const std::unique_ptr<rocksdb::Iterator> it(handle->db()->NewIterator(read, handle->Of(family)));
  for (it->Seek(from); it->Valid(); it->Next()) {
    FRESHET_ASSIGN(const bool more, row(ToView(it->key()), ToView(it->value())));
    if (!more) return Status::Ok();
  }
  return FromRocks(it->status(), kFamilyNames[static_cast<std::size_t>(family)]);
}

Status RocksStore::ForEachItem(const std::function<Status(std::string_view, const ItemRow&)>& item) const {
  return Scan(kItems, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    const auto row = DecodeItemRow(value);
    if (!row.ok()) return Named(row.status(), kItems, key);
    FRESHET_TRY(item(key, *row));
    return true;
  });
}

Status RocksStore::ForEachUser(const std::function<Status(std::string_view, const UserState&)>& user) const {
  return Scan(kUsers, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    const auto row = DecodeUserRow(value);
    if (!row.ok()) return Named(row.status(), kUsers, key);
    FRESHET_TRY(user(key, *row));
    return true;
  });
}

// Both families are in id order: one walk, no lookups.
Status RocksStore::ForEachShown(
    const std::function<Status(std::string_view, const ItemRow&, Attributes attributes)>& item) const {
  const std::shared_ptr<RocksHandle> handle = Current();
  for (const Family family : {kItems, kAttributes, kUsers}) WillScan(*handle, family);
  rocksdb::ReadOptions read;
  read.readahead_size = std::size_t{1} << 20;
  read.iterate_upper_bound = RowsEnd();
  read.snapshot = handle->db()->GetSnapshot();
  const rocksdb::ManagedSnapshot managed(handle->db(), read.snapshot);
  const std::unique_ptr<rocksdb::Iterator> items(handle->db()->NewIterator(read, handle->Of(kItems)));
  const std::unique_ptr<rocksdb::Iterator> shown(handle->db()->NewIterator(read, handle->Of(kAttributes)));
  shown->SeekToFirst();
  for (items->SeekToFirst(); items->Valid(); items->Next()) {
    const auto row = DecodeItemRow(ToView(items->value()));
    if (!row.ok()) return Named(row.status(), kItems, ToView(items->key()));
    while (shown->Valid() && shown->key().compare(items->key()) < 0) shown->Next();
    FRESHET_TRY(FromRocks(shown->status(), kFamilyNames[kAttributes]));
    Attributes attributes;
    if (shown->Valid() && shown->key() == items->key()) {
      auto decoded = DecodeAttributeRow(ToView(shown->value()));
      if (!decoded.ok()) return Named(decoded.status(), kAttributes, ToView(shown->key()));
      attributes = std::move(*decoded);
    }
    FRESHET_TRY(item(ToView(items->key()), *row, std::move(attributes)));
  }
  return FromRocks(items->status(), kFamilyNames[kItems]);
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

Result<std::vector<OutboxEntry>> RocksStore::ReadOutboxAbove(std::uint64_t sequence, std::size_t max_records,
                                                             std::size_t max_bytes) const {
  std::vector<OutboxEntry> entries;
  std::size_t bytes = 0;
  const std::string from = OrderedKey(std::max(outbox_first_.load(), sequence + 1));
  FRESHET_TRY(Scan(kOutbox, from, [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (key.size() != 8) return Corruption("outbox key does not decode");
    FRESHET_ASSIGN(OutboxEntry entry, DecodeOutboxRow(FromOrderedKey(key), value));
    entries.push_back(std::move(entry));
    bytes += value.size();
    return entries.size() < max_records && bytes < max_bytes;
  }));
  return entries;
}

Status RocksStore::TrimOutbox(std::uint64_t up_to_sequence) {
  const std::lock_guard lock(trim_mu_);
  FRESHET_TRY(CheckWritable());
  FRESHET_TRY(FaultPoint("outbox.before_trim"));
  rocksdb::WriteBatch batch;
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  const std::shared_ptr<RocksHandle> handle = Current();
  FRESHET_TRY(
      Scan(kOutbox, OrderedKey(outbox_first_), [&](std::string_view key, std::string_view value) -> Result<bool> {
        if (FromOrderedKey(key) > up_to_sequence) return false;
        batch.Delete(handle->Of(kOutbox), ToSlice(key));
        ++records;
        bytes += value.size();
        return true;
      }));
  // Not synced: what reappears after a power loss is published again, and followers drop it by its sequence.
  const rocksdb::Status status = handle->db()->Write(rocksdb::WriteOptions(), &batch);
  // The writer reopens the store; what is published stays in the outbox until then.
  if (!status.ok()) return Unavailable(Broken(status, "trim").message());
  outbox_first_ = up_to_sequence + 1;
  outbox_records_ -= records;
  outbox_bytes_ -= bytes;
  return FaultPoint("outbox.after_trim");
}

}  // namespace freshet
