// Opening the store: options of RocksDB with their reasons, identity, and opening again after a failed write.
#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/rate_limiter.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>
#include <sys/statvfs.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <limits>

#include "freshet/core/bytes.h"
#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "store_chain.h"
#include "store_rocks.h"
#include "store_tables.h"

namespace freshet {
namespace {

constexpr char kIdentityKey[] = "identity";
constexpr char kStateKey[] = "state";
constexpr char kRestoredKey[] = "restored";
constexpr char kRenumberedKey[] = "renumbered";
constexpr auto kReaderWait = std::chrono::milliseconds(1);

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
    // Its warnings are about its own affairs; what concerns us comes as a status.
    Log(level >= rocksdb::InfoLogLevel::ERROR_LEVEL ? LogLevel::kError : LogLevel::kDebug, "rocksdb", text.data());
  }
  void Logv(const char* format, va_list arguments) override {
    Logv(rocksdb::InfoLogLevel::INFO_LEVEL, format, arguments);
  }
};

rocksdb::Options DatabaseOptions(const StoreOptions& options, bool create) {
  rocksdb::Options db;
  db.create_if_missing = create;
  db.create_missing_column_families = true;
  if (options.env != nullptr) db.env = options.env;
  db.info_log = std::make_shared<InfoLog>();
  // kill -9 may tear the log's tail; everything before the tear is kept (traps.md).
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  db.max_open_files = 512;
  // One flush and one compaction at a time: the engine's own threads want the other cores.
  db.max_background_jobs = 2;
  // A log longer than this flushes the families that hold it: bounds how long an open after a crash takes.
  db.max_total_wal_size = std::size_t{256} << 20;
  db.keep_log_file_num = 1;
  // Writeback in small steps instead of one burst at each fsync, which would stall commits and searches.
  db.bytes_per_sync = std::size_t{1} << 20;
  db.wal_bytes_per_sync = std::size_t{1} << 20;
  if (options.compaction_bytes_per_second > 0) {
    db.rate_limiter.reset(
        rocksdb::NewGenericRateLimiter(static_cast<std::int64_t>(options.compaction_bytes_per_second)));
  }
  return db;
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families(const StoreOptions& options, rocksdb::Options* db) {
  // One cache bounds it all: blocks, their index and filters, and write buffers.
  const auto cache = rocksdb::NewLRUCache(options.cache_bytes);
  db->write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(options.write_buffer_bytes * 2, cache);
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  // As CheckTableFooters() expects them; a RocksDB to come may write newer ones by default.
  table.format_version = kTableFormatVersion;
  table.checksum = rocksdb::kXXH3;
  static_assert(rocksdb::kXXH3 == kTableChecksum);
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // Every item is looked up before it is replaced, most are new: filters answer those without reading a table.
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = options.write_buffer_bytes;
  // Upper levels live shortly: the fast one. The last level holds nine tenths of the bytes: the dense one.
  family.compression = rocksdb::kLZ4Compression;
  family.bottommost_compression = rocksdb::kZSTD;
  // Levels sized from the last one up: at most a tenth of the space is stale versions.
  family.level_compaction_dynamic_level_bytes = true;
  family.merge_operator = ChainOperator();
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  // Floats do not compress, trying costs time. Larger blocks: fewer index entries for half-kilobyte rows. No filter: a
  // label that is looked up is there.
  rocksdb::BlockBasedTableOptions dense = table;
  dense.block_size = std::size_t{16} << 10;
  dense.filter_policy.reset();
  rocksdb::ColumnFamilyOptions vectors = family;
  vectors.compression = rocksdb::kNoCompression;
  vectors.bottommost_compression = rocksdb::kNoCompression;
  vectors.table_factory.reset(rocksdb::NewBlockBasedTableFactory(dense));
  // Written once, read once, deleted: never worth more than the memtable.
  rocksdb::ColumnFamilyOptions outbox = vectors;

  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  descriptors.reserve(kFamilyNames.size());
  for (const char* name : kFamilyNames) descriptors.emplace_back(name, family);
  descriptors[kVectors].options = vectors;
  descriptors[kOutbox].options = outbox;
  return descriptors;
}

// What a damaged directory looks like to RocksDB beside "corruption": files that are not there, families that are not.
Status FromOpen(const rocksdb::Status& status, const std::string& directory) {
  const bool missing = status.IsPathNotFound() || status.IsNotFound() ||
                       (status.IsIOError() && status.subcode() == rocksdb::Status::kPathNotFound);
  if (missing || status.IsInvalidArgument() || status.IsNotSupported()) {
    return Corruption(StrCat(directory, ": ", status.ToString()));
  }
  return FromRocks(status, directory);
}

}  // namespace

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

Result<std::shared_ptr<RocksHandle>> RocksHandle::Open(const StoreOptions& options, bool create, bool read_only,
                                                       const std::shared_ptr<rocksdb::Statistics>& statistics) {
  FRESHET_TRY(CheckTableFooters(options.directory));
  rocksdb::Options db = DatabaseOptions(options, create);
  const auto descriptors = Families(options, &db);
  db.statistics = statistics;
  std::shared_ptr<RocksHandle> handle(new RocksHandle());
  rocksdb::DB* opened = nullptr;
  rocksdb::Status status;
  if (read_only) {
    db.max_open_files = -1;  // every file is held: it stays readable while its successor cleans up
    status = rocksdb::DB::OpenForReadOnly(db, options.directory, descriptors, &handle->families_, &opened);
  } else {
    status = rocksdb::DB::Open(db, options.directory, descriptors, &handle->families_, &opened);
  }
  FRESHET_TRY(FromOpen(status, options.directory));
  handle->db_.reset(opened);
  return handle;
}

RocksHandle::~RocksHandle() {
  for (auto* family : families_) {
    if (family != nullptr) db_->DestroyColumnFamilyHandle(family);
  }
}

RocksStore::~RocksStore() {
  {
    const std::lock_guard lock(sync_mu_);
    sync_stop_ = true;
    sync_wake_.notify_all();
  }
  if (syncer_.joinable()) syncer_.join();
}

Status RocksStore::Initialise() {
  FRESHET_TRY(CreateDirectories(options_.directory));
  FRESHET_TRY(lock_.Acquire(options_.directory));
  statistics_ = rocksdb::CreateDBStatistics();
  statistics_->set_stats_level(rocksdb::StatsLevel::kExceptHistogramOrTimers);
  FRESHET_ASSIGN(current_, RocksHandle::Open(options_, !existing_, /*read_only=*/false, statistics_));
  FRESHET_TRY(LoadIdentity());
  FRESHET_TRY(LoadState());
  if (options_.durability == Durability::kInterval) {
    syncer_ = std::thread([this] { SyncEvery(); });
  }
  return Status::Ok();
}

Status RocksStore::LoadIdentity() {
  std::string bytes;
  rocksdb::DB* const db = current_->db();
  const rocksdb::Status found = db->Get(rocksdb::ReadOptions(), current_->Of(kMeta), kIdentityKey, &bytes);
  if (found.IsNotFound() && db->GetLatestSequenceNumber() == 0) {
    identity_.epoch = static_cast<std::uint64_t>(SystemClock().WallMs()) * 1000;
    identity_.epoch = std::max(identity_.epoch, options_.epoch_above + 1);
    identity_.dim = static_cast<std::uint32_t>(options_.dim);
    identity_.metric = MetricName(options_.metric);
    identity_.space_id = options_.space_id;
    identity_.vectors = options_.vectors;
    return WriteIdentity();
  }
  if (found.IsNotFound()) return Corruption(StrCat(options_.directory, ": a database without an identity row"));
  FRESHET_TRY(FromRocks(found, options_.directory));
  FRESHET_ASSIGN(identity_, DecodeIdentity(bytes));
  if (identity_.format > StoreIdentity{}.format || identity_.format < 1) {
    return FailedPrecondition(StrCat(options_.directory, ": store format ", identity_.format,
                                     ", this freshet reads formats 1 to ", StoreIdentity{}.format));
  }
  if (existing_) {
    options_.dim = static_cast<int>(identity_.dim);
    options_.space_id = identity_.space_id;
    FRESHET_ASSIGN(options_.metric, ParseMetric(identity_.metric));
    options_.vectors = identity_.vectors;
  }
  if (identity_.space_id != options_.space_id || identity_.dim != static_cast<std::uint32_t>(options_.dim) ||
      identity_.metric != MetricName(options_.metric)) {
    return FailedPrecondition(StrCat(options_.directory, ": holds vectors of embedding space ", identity_.space_id,
                                     " (", identity_.dim, "-d ", identity_.metric, "), the configured model makes ",
                                     options_.space_id, " (", options_.dim, "-d ", MetricName(options_.metric),
                                     "): use the model it was made with, or an empty data_dir to embed all again"));
  }
  if (identity_.vectors != options_.vectors) {
    LogWarning("store", "`store.vectors` is of another type than this store's; what the store was made with counts");
    options_.vectors = identity_.vectors;
  }
  if (identity_.format < StoreIdentity{}.format) {
    const std::uint32_t was = std::exchange(identity_.format, StoreIdentity{}.format);
    FRESHET_TRY(WriteIdentity());
    LogInfo("store", StrCat("migrated from format ", was, " to ", identity_.format),
            {{"directory", options_.directory}});
  }
  if (db->Get(rocksdb::ReadOptions(), current_->Of(kMeta), kRestoredKey, &bytes).ok()) {
    ByteReader in(bytes);
    restored_epoch_ = in.Get<std::uint64_t>();
  }
  if (db->Get(rocksdb::ReadOptions(), current_->Of(kMeta), kRenumberedKey, &bytes).ok()) {
    ByteReader in(bytes);
    renumbered_ = in.Get<std::uint64_t>();
  }
  return Status::Ok();
}

// With the beginning of the chain of commits, which formats 1 and 2 had not.
Status RocksStore::WriteIdentity() {
  rocksdb::WriteBatch batch;
  batch.Put(current_->Of(kMeta), kIdentityKey, EncodeIdentity(identity_));
  for (std::size_t family = kMeta; family < kFamilies; ++family) {
    batch.Put(current_->families()[family], kChainKey, EncodeLink(0));
  }
  rocksdb::WriteOptions write;
  write.sync = true;
  return FromRocks(current_->db()->Write(write, &batch), options_.directory + ": identity");
}

Status RocksStore::CheckChain(const RocksHandle& handle) const {
  for (std::size_t family = kMeta; family < kFamilies; ++family) {
    const std::string where = StrCat(options_.directory, ": ", kFamilyNames[family]);
    std::string bytes;
    FRESHET_TRY(
        FromOpen(handle.db()->Get(rocksdb::ReadOptions(), handle.families()[family], kChainKey, &bytes), where));
    const Result<std::uint64_t> last = DecodeChain(bytes);
    if (!last.ok()) return last.status().Prefixed(where);
    const std::uint64_t known = family < state_.links.size() ? state_.links[family] : 0;
    if (*last != known) return Corruption(StrCat(where, " ends at commit ", *last, " of ", known));
  }
  return Status::Ok();
}

void RocksStore::PutState(const RocksHandle& handle, std::initializer_list<std::pair<Family, bool>> touched,
                          StoreState* state, rocksdb::WriteBatch* batch) {
  state->links.resize(kFamilies);
  for (const auto& [family, is] : touched) {
    if (is) batch->Merge(handle.Of(family), kChainKey, EncodeLink(++state->links[family]));
  }
  batch->Put(handle.Of(kMeta), kStateKey, EncodeState(*state));
}

Status RocksStore::LoadState() {
  std::string bytes;
  const std::shared_ptr<RocksHandle> handle = Current();
  const rocksdb::Status state = handle->db()->Get(rocksdb::ReadOptions(), handle->Of(kMeta), kStateKey, &bytes);
  if (!state.IsNotFound()) {
    FRESHET_TRY(FromRocks(state, options_.directory));
    FRESHET_ASSIGN(state_, DecodeState(bytes));
  }
  FRESHET_TRY(CheckChain(*handle));
  std::uint64_t records = 0;
  std::uint64_t total = 0;
  std::uint64_t first = state_.sequence + 1;
  FRESHET_TRY(Scan(kOutbox, "", [&](std::string_view key, std::string_view value) -> Result<bool> {
    if (key.size() != 8) return Corruption("outbox key does not decode");
    if (records++ == 0) first = FromOrderedKey(key);
    total += value.size();
    return true;
  }));
  outbox_first_ = first;
  outbox_records_ = records;
  outbox_bytes_ = total;
  return Status::Ok();
}

// Writes through a handle that failed are never tried again (traps.md). Readers go on: first with the failed handle,
// then with a read-only view, which holds every commit that was acknowledged, then with the new one.
Status RocksStore::Reopen() {
  struct statvfs disk {};
  const std::uint64_t wanted = options_.write_buffer_bytes * 4;
  if (::statvfs(options_.directory.c_str(), &disk) == 0 && std::uint64_t{disk.f_bavail} * disk.f_frsize < wanted) {
    return ResourceExhausted(StrCat(options_.directory, ": the disk has ", std::uint64_t{disk.f_bavail} * disk.f_frsize,
                                    " bytes left, ", wanted, " are needed to go on"));
  }
  const std::lock_guard trimming(trim_mu_);
  FRESHET_TRY(FaultPoint("store.before_reopen"));
  FRESHET_ASSIGN(std::shared_ptr<RocksHandle> view, RocksHandle::Open(options_, false, /*read_only=*/true, nullptr));
  std::shared_ptr<RocksHandle> old = Current();
  SetCurrent(std::move(view));
  while (old.use_count() > 1) std::this_thread::sleep_for(kReaderWait);
  old.reset();
  FRESHET_ASSIGN(std::shared_ptr<RocksHandle> opened, RocksHandle::Open(options_, false, false, statistics_));
  SetCurrent(std::move(opened));
  FRESHET_TRY(LoadState());
  broken_ = false;
  return Status::Ok();
}

void RocksStore::SyncEvery() {
  std::uint64_t synced = 0;
  std::unique_lock lock(sync_mu_);
  while (!sync_stop_) {
    sync_wake_.wait_for(lock, std::chrono::milliseconds(options_.sync_interval_ms), [this] { return sync_stop_; });
    const std::uint64_t written = wal_bytes_;
    if (written == synced || broken_) continue;
    lock.unlock();
    const rocksdb::Status status = Current()->db()->SyncWAL();
    lock.lock();
    if (status.ok()) {
      synced = written;
    } else if (!status.IsNotSupported()) {
      LogError("store", "the log cannot be synced", {{"reason", Broken(status, "sync").ToString()}});
    }
  }
}

Status StoreOptions::Validate() const {
  if (directory.empty()) return ConfigError("data_dir is empty");
  if (space_id.empty()) return ConfigError("the embedding space has no id");
  if (dim < 1 || dim > 4096) return ConfigError(StrCat("dim must be 1 to 4096, not ", dim));
  if (cache_bytes < (std::size_t{8} << 20)) return ConfigError("store.cache_bytes must be at least 8388608");
  if (write_buffer_bytes < (std::size_t{1} << 20))
    return ConfigError("store.write_buffer_bytes must be at least 1048576");
  if (sync_interval_ms < 1) return ConfigError("store.interval_ms must be at least 1");
  if (compaction_bytes_per_second > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return ConfigError("store.compaction_bytes_per_second is too large");
  }
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
