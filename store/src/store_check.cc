// What the store says about itself as a whole: flush, checkpoint, sizes, and a look through everything.
#include <rocksdb/snapshot.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/utilities/checkpoint.h>

#include <limits>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/fault.h"
#include "freshet/core/strings.h"
#include "store_chain.h"
#include "store_rocks.h"

namespace freshet {
namespace {

constexpr char kStateKey[] = "state";
constexpr char kRestoredKey[] = "restored";
constexpr char kRenumberedKey[] = "renumbered";
constexpr char kIndexFileKey[] = "index_file";
constexpr int kCheckpointTries = 3;
constexpr std::uint64_t kRowsPerStep = 4096;

std::uint64_t IntProperty(const RocksHandle& handle, const std::string& name) {
  std::uint64_t total = 0;
  for (auto* family : handle.families()) {
    std::uint64_t value = 0;
    if (handle.db()->GetIntProperty(family, name, &value)) total += value;
  }
  return total;
}

// A walk through one family over a common snapshot, in key order.
class Walk {
 public:
  Walk(const RocksHandle& handle, const rocksdb::ReadOptions& read, Family family)
      : it_(handle.db()->NewIterator(read, handle.Of(family))), name_(kFamilyNames[family]) {
    it_->SeekToFirst();
  }
  [[nodiscard]] bool valid() const { return it_->Valid(); }
  [[nodiscard]] std::string_view key() const { return ToView(it_->key()); }
  [[nodiscard]] std::string_view value() const { return ToView(it_->value()); }
  void Next() { it_->Next(); }
  [[nodiscard]] Status status() const { return FromRocks(it_->status(), name_); }

 private:
  const std::unique_ptr<rocksdb::Iterator> it_;
  const char* const name_;
};

std::string Shown(Family family, std::string_view key) {
  const bool number = (family == kVectors || family == kLabels || family == kOutbox) && key.size() == 8;
  return StrCat(kFamilyNames[family], " `", number ? StrCat(FromOrderedKey(key)) : std::string(key), "`");
}

// One look through a store.
class Checker {
 public:
  Checker(const RocksHandle& handle, const rocksdb::ReadOptions& read, const StoreIdentity& identity,
          const std::function<Status(double)>& progress)
      : handle_(handle), read_(read), identity_(identity), progress_(progress) {
    total_ = std::max<std::uint64_t>(1, IntProperty(handle, "rocksdb.estimate-num-keys"));
  }

  Result<StoreCheck> Run() {
    FRESHET_TRY(ReadCounters());
    FRESHET_TRY(Items());
    FRESHET_TRY(Labels());
    if (item_labels_ != label_items_) {
      Differ("items and labels name each other differently");
    }
    FRESHET_TRY(Each(kUsers, [this](std::string_view, std::string_view value) -> Status {
      ++check_.users;
      return DecodeUserRow(value).status();
    }));
    FRESHET_TRY(Each(kOutbox, [this](std::string_view key, std::string_view value) -> Status {
      ++check_.outbox;
      if (key.size() != 8) return Corruption("outbox key does not decode");
      if (FromOrderedKey(key) > state_.sequence) Differ(StrCat(Shown(kOutbox, key), " is above the sequence"));
      return DecodeOutboxRow(FromOrderedKey(key), value).status();
    }));
    return check_;
  }

 private:
  Status ReadCounters() {
    std::string bytes;
    const rocksdb::Status found = handle_.db()->Get(read_, handle_.Of(kMeta), kStateKey, &bytes);
    if (!found.IsNotFound()) {
      FRESHET_TRY(FromRocks(found, "meta"));
      FRESHET_ASSIGN(state_, DecodeState(bytes));
    }
    return Each(kOffsets, [this](std::string_view key, std::string_view value) -> Status {
      FRESHET_ASSIGN(const PartitionProgress progress, DecodeOffsetRow(key, value));
      if (progress.next_offset < 0) Differ(StrCat("offset of ", progress.partition.topic, " is negative"));
      std::int64_t& next = next_offsets_[progress.partition.partition];
      next = std::max(next, progress.next_offset);
      if (progress.sequence > state_.sequence) {
        Differ(StrCat(progress.partition.topic, "[", progress.partition.partition, "] is above the sequence"));
      }
      return Status::Ok();
    });
  }

  // Items, their features and their attributes stand side by side.
  Status Items() {
    Walk items(handle_, read_, kItems);
    Walk features(handle_, read_, kFeatures);
    Walk attributes(handle_, read_, kAttributes);
    for (; items.valid(); items.Next()) {
      FRESHET_TRY(Step());
      ++check_.items;
      auto row = DecodeItemRow(items.value());
      if (!row.ok()) return row.status().Prefixed(Shown(kItems, items.key()));
      FRESHET_TRY(Beside(items.key(), &features, kFeatures));
      FRESHET_TRY(Beside(items.key(), &attributes, kAttributes));
      item_labels_ += Pair(items.key(), row->label);
      if (row->label >= state_.next_label) Differ(StrCat(Shown(kItems, items.key()), " has a label not given yet"));
      if (row->sequence > state_.sequence) Differ(StrCat(Shown(kItems, items.key()), " is above the sequence"));
      const auto next = next_offsets_.find(row->position.partition);
      if (row->epoch == identity_.epoch && next != next_offsets_.end() && row->position.offset >= next->second) {
        Differ(StrCat(Shown(kItems, items.key()), " comes from an offset that is not covered"));
      }
    }
    FRESHET_TRY(items.status());
    FRESHET_TRY(Rest(&features, kFeatures));
    return Rest(&attributes, kAttributes);
  }

  Status Beside(std::string_view key, Walk* walk, Family family) {
    while (walk->valid() && walk->key() < key) {
      Differ(StrCat(Shown(family, walk->key()), " belongs to no item"));
      walk->Next();
    }
    if (!walk->valid() || walk->key() != key) {
      Differ(StrCat(Shown(kItems, key), " has no ", kFamilyNames[family]));
      return walk->status();
    }
    const Status decoded =
        family == kFeatures ? DecodeFeatureRow(walk->value()).status() : DecodeAttributeRow(walk->value()).status();
    walk->Next();
    return decoded.Prefixed(Shown(family, key));
  }
  Status Rest(Walk* walk, Family family) {
    for (; walk->valid(); walk->Next()) Differ(StrCat(Shown(family, walk->key()), " belongs to no item"));
    return walk->status();
  }

  // Vectors and labels stand side by side.
  Status Labels() {
    Walk labels(handle_, read_, kLabels);
    Walk vectors(handle_, read_, kVectors);
    for (; labels.valid(); labels.Next()) {
      FRESHET_TRY(Step());
      if (labels.key().size() != 8) return Corruption("label key does not decode");
      label_items_ += Pair(labels.value(), FromOrderedKey(labels.key()));
      while (vectors.valid() && vectors.key() < labels.key()) {
        Differ(StrCat(Shown(kVectors, vectors.key()), " belongs to no item"));
        vectors.Next();
      }
      if (!vectors.valid() || vectors.key() != labels.key()) {
        Differ(StrCat(Shown(kLabels, labels.key()), " has no vector"));
        FRESHET_TRY(vectors.status());
        continue;
      }
      FRESHET_TRY(DecodeVector(vectors.value(), identity_.dim, identity_.vectors).status());
      vectors.Next();
    }
    FRESHET_TRY(labels.status());
    return Rest(&vectors, kVectors);
  }

  Status Each(Family family, const std::function<Status(std::string_view, std::string_view)>& row) {
    Walk walk(handle_, read_, family);
    for (; walk.valid(); walk.Next()) {
      FRESHET_TRY(Step());
      if (const Status status = row(walk.key(), walk.value()); !status.ok()) {
        return status.Prefixed(Shown(family, walk.key()));
      }
    }
    return walk.status();
  }

  // A sum over all pairs: equal sets of pairs have equal sums, and others all but never.
  static std::uint64_t Pair(std::string_view id, Label label) { return Xxh3(id, label); }
  void Differ(std::string what) {
    constexpr std::size_t kExamples = 16;
    ++check_.differences;
    if (check_.examples.size() < kExamples) check_.examples.push_back(std::move(what));
  }
  Status Step() {
    if (++steps_ % kRowsPerStep != 0 || !progress_) return Status::Ok();
    return progress_(std::min(1.0, static_cast<double>(steps_) / static_cast<double>(total_)));
  }

  const RocksHandle& handle_;
  const rocksdb::ReadOptions& read_;
  const StoreIdentity& identity_;
  const std::function<Status(double)>& progress_;
  StoreCheck check_;
  StoreState state_;
  std::map<std::int32_t, std::int64_t> next_offsets_;
  std::uint64_t item_labels_ = 0;
  std::uint64_t label_items_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace

Status RocksStore::Flush() {
  const std::shared_ptr<RocksHandle> handle = Current();
  return FromRocks(handle->db()->Flush(rocksdb::FlushOptions(), handle->families()), options_.directory + ": flush");
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
  const rocksdb::Options options;
  rocksdb::SstFileReader reader(options);
  FRESHET_TRY(FromRocks(reader.Open(path), path));
  return FromRocks(reader.VerifyChecksum(), path);
}

Result<StoreCheck> RocksStore::Check(const std::function<Status(double)>& progress) const {
  const std::shared_ptr<RocksHandle> handle = Current();
  rocksdb::ReadOptions read;
  read.fill_cache = false;  // answers keep their blocks
  read.readahead_size = std::size_t{1} << 20;
  read.iterate_upper_bound = RowsEnd();
  rocksdb::ManagedSnapshot snapshot(handle->db());
  read.snapshot = snapshot.snapshot();
  return Checker(*handle, read, identity_, progress).Run();
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
  if (broken_) return Unavailable(StrCat(options_.directory, ": the store is not open"));
  const std::shared_ptr<RocksHandle> handle = Current();
  FRESHET_TRY(FaultPoint("index_file.before_named"));
  const rocksdb::Status status =
      handle->db()->Put(rocksdb::WriteOptions(), handle->Of(kMeta), kIndexFileKey, EncodeIndexFileRow(row));
  if (!status.ok()) return Broken(status, "index file");
  return FaultPoint("index_file.after_named");
}

}  // namespace freshet
