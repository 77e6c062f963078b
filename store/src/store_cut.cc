// The store as a whole: flush, checkpoint, what a restored one becomes, sizes, the index file that belongs to it.
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/utilities/checkpoint.h>

#include <algorithm>
#include <limits>

#include "freshet/core/bytes.h"
#include "freshet/core/fault.h"
#include "freshet/core/strings.h"
#include "store_rocks.h"
#include "store_tables.h"

namespace freshet {
namespace {

constexpr int kCheckpointTries = 3;

}  // namespace

std::uint64_t IntProperty(const RocksHandle& handle, const std::string& name) {
  std::uint64_t total = 0;
  for (auto* family : handle.families()) {
    std::uint64_t value = 0;
    if (handle.db()->GetIntProperty(family, name, &value)) total += value;
  }
  return total;
}

Status RocksStore::Flush() {
  FRESHET_TRY(CheckWritable());
  const std::shared_ptr<RocksHandle> handle = Current();
  const rocksdb::Status status = handle->db()->Flush(rocksdb::FlushOptions(), handle->families());
  // RocksDB refuses every flush after one that failed, however much room there is by then: it has to be opened again.
  return status.ok() ? Status::Ok() : Broken(status, "flush");
}

Status RocksStore::Checkpoint(const std::string& directory) {
  const std::shared_ptr<RocksHandle> handle = Current();
  FRESHET_TRY(FaultPoint("snapshot.before_checkpoint"));
  rocksdb::Checkpoint* made = nullptr;
  FRESHET_TRY(FromRocks(rocksdb::Checkpoint::Create(handle->db(), &made), directory));
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  rocksdb::Status status;
  for (int i = 0; i < kCheckpointTries; ++i) {
    // Never flushes: the caller has flushed outside of the pause, and what came since is a short log to copy.
    status = checkpoint->CreateCheckpoint(directory, std::numeric_limits<std::uint64_t>::max());
    if (status.ok() || status.subcode() == rocksdb::Status::kNoSpace) break;
  }
  FRESHET_TRY(FromRocks(status, directory + ": checkpoint"));
  return FaultPoint("snapshot.after_checkpoint");
}

Status RocksStore::BecomeRestored(const RestoredAs& as) {
  FRESHET_TRY(CheckWritable());
  const std::shared_ptr<RocksHandle> handle = Current();
  rocksdb::WriteBatch batch;
  StoreState state = state_;
  state.sequence = std::max(state.sequence, as.sequence_at_least);
  std::vector<OutboxEntry> left;
  FRESHET_TRY(Scan(kOutbox, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (!as.follow && as.sequence_at_least > state_.sequence) {
      // What was not published before the snapshot may have been since, under its number: it gets a new one, so that
      // the newest record of a key never has a lower number than one before it.
      FRESHET_ASSIGN(OutboxEntry entry, DecodeOutboxRow(FromOrderedKey(key), value));
      left.push_back(std::move(entry));
    }
    if (as.follow || as.sequence_at_least > state_.sequence) batch.Delete(handle->Of(kOutbox), ToSlice(key));
    return true;
  }));
  if (!as.follow && as.sequence_at_least > state_.sequence) {
    ByteWriter sequence;
    batch.Put(handle->Of(kMeta), kRenumberedKey, sequence.Put(state.sequence).Take());
    renumbered_ = state.sequence;
  }
  for (const OutboxEntry& entry : left) {
    batch.Put(handle->Of(kOutbox), OrderedKey(++state.sequence), EncodeOutboxRow(entry));
  }
  if (as.follow) {
    FRESHET_TRY(Scan(kOffsets, "", [&](std::string_view key, std::string_view) -> Result<bool> {
      batch.Delete(handle->Of(kOffsets), ToSlice(key));
      return true;
    }));
    for (const PartitionProgress& progress : *as.follow) {
      batch.Put(handle->Of(kOffsets), OffsetKey(progress.partition), EncodeOffsetRow(progress));
    }
    ByteWriter epoch;
    batch.Put(handle->Of(kMeta), kRestoredKey, epoch.Put(identity_.epoch).Take());
    restored_epoch_ = identity_.epoch;
  }
  if (as.index_file) {
    batch.Put(handle->Of(kMeta), kIndexFileKey, EncodeIndexFileRow(*as.index_file));
  } else {
    batch.Delete(handle->Of(kMeta), kIndexFileKey);
  }
  PutState(*handle, {{kMeta, true}, {kOffsets, true}, {kOutbox, true}}, &state, &batch);
  rocksdb::WriteOptions write;
  write.sync = true;
  const rocksdb::Status status = handle->db()->Write(write, &batch);
  if (!status.ok()) return Broken(status, "restore");
  return LoadState();
}

Status Store::CheckTable(const std::string& path) {
  FRESHET_TRY(CheckTableFile(path));
  const rocksdb::Options options;
  rocksdb::SstFileReader reader(options);
  FRESHET_TRY(FromRocks(reader.Open(path), path));
  return FromRocks(reader.VerifyChecksum(), path);
}

StoreSizes RocksStore::Sizes() const {
  const std::shared_ptr<RocksHandle> handle = Current();
  StoreSizes sizes;
  sizes.sst_bytes = IntProperty(*handle, "rocksdb.total-sst-files-size");
  sizes.live_bytes = IntProperty(*handle, "rocksdb.estimate-live-data-size");
  sizes.written_bytes = statistics_->getTickerCount(rocksdb::WAL_FILE_BYTES) +
                        statistics_->getTickerCount(rocksdb::FLUSH_WRITE_BYTES) +
                        statistics_->getTickerCount(rocksdb::COMPACT_WRITE_BYTES);
  sizes.user_bytes = user_bytes_;
  return sizes;
}

std::uint64_t RocksStore::EstimatedItems() const {
  const std::shared_ptr<RocksHandle> handle = Current();
  const auto of_items = [&](const char* property) {
    std::uint64_t value = 0;
    return handle->db()->GetIntProperty(handle->Of(kItems), property, &value) ? value : 0;
  };
  // An estimate that no table could hold is none.
  return std::min(of_items("rocksdb.estimate-num-keys"),
                  of_items("rocksdb.total-sst-files-size") + of_items("rocksdb.cur-size-all-mem-tables"));
}

Result<std::optional<IndexFileRow>> RocksStore::IndexFile() const {
  return GetRow<IndexFileRow>(kMeta, kIndexFileKey, &DecodeIndexFileRow);
}

Status RocksStore::PutIndexFile(const IndexFileRow& row) {
  FRESHET_TRY(CheckWritable());
  const std::shared_ptr<RocksHandle> handle = Current();
  FRESHET_TRY(FaultPoint("index_file.before_named"));
  const rocksdb::Status status =
      handle->db()->Put(rocksdb::WriteOptions(), handle->Of(kMeta), kIndexFileKey, EncodeIndexFileRow(row));
  if (!status.ok()) return Broken(status, "index file");
  return FaultPoint("index_file.after_named");
}

}  // namespace freshet
