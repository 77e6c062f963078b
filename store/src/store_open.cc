// Opening the store: options of RocksDB with their reasons, and opening again after a failed write.
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
  db.avoid_flush_during_recovery = false;  // what was read of the log is in synced tables when the store is open
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
  // As CheckTables() expects them; a RocksDB to come may write newer ones by default.
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

// What a damaged directory looks like to RocksDB beside "corruption": files that are not there, families that are not.
Status FromOpen(const rocksdb::Status& status, std::string_view what) {
  const bool missing = status.IsPathNotFound() || status.IsNotFound() ||
                       (status.IsIOError() && status.subcode() == rocksdb::Status::kPathNotFound);
  if (missing || status.IsInvalidArgument() || status.IsNotSupported()) {
    return Corruption(StrCat(what, ": ", status.ToString()));
  }
  return FromRocks(status, what);
}

namespace {

// What a newer freshet wrote may hold families that this one does not know: that is no damage, and must not be taken
// for it (a damaged store is set aside, and another takes its place). 0: it does not say.
std::uint32_t FormatOf(const StoreOptions& options) {
  rocksdb::Options db = DatabaseOptions(options, /*create=*/false);
  auto descriptors = Families(options, &db);
  descriptors.resize(kMeta + 1);  // RocksDB lets readers leave families out
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  rocksdb::DB* opened = nullptr;
  if (!rocksdb::DB::OpenForReadOnly(db, options.directory, descriptors, &families, &opened).ok()) return 0;
  const std::unique_ptr<rocksdb::DB> closing(opened);
  std::string bytes;
  const rocksdb::Status found = opened->Get(rocksdb::ReadOptions(), families[kMeta], kIdentityKey, &bytes);
  for (auto* family : families) opened->DestroyColumnFamilyHandle(family);
  if (!found.ok()) return 0;
  const auto identity = DecodeIdentity(bytes);
  return identity.ok() ? identity->format : 0;
}

}  // namespace

Result<std::shared_ptr<RocksHandle>> RocksHandle::Open(const StoreOptions& options, bool create, bool read_only,
                                                       const std::shared_ptr<rocksdb::Statistics>& statistics) {
  FRESHET_TRY(CheckTables(options.directory));
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
  if (status.IsInvalidArgument()) FRESHET_TRY(CheckFormat(FormatOf(options), options.directory));
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
  const bool read_only = mode_ == Mode::kReadOnly;
  if (read_only) {
    FRESHET_TRY(lock_.Share(options_.directory));
  } else {
    FRESHET_TRY(CreateDirectories(options_.directory));
    FRESHET_TRY(lock_.Acquire(options_.directory));
  }
  statistics_ = rocksdb::CreateDBStatistics();
  statistics_->set_stats_level(rocksdb::StatsLevel::kExceptHistogramOrTimers);
  FRESHET_ASSIGN(current_, RocksHandle::Open(options_, mode_ == Mode::kAsConfigured, read_only, statistics_));
  FRESHET_TRY(LoadIdentity());
  FRESHET_TRY(LoadState());
  if (read_only) return Status::Ok();
  if (options_.durability == Durability::kInterval) {
    syncer_ = std::thread([this] { SyncEvery(); });
  }
  return Status::Ok();
}

// Writes through a handle that failed are never tried again (traps.md). Readers go on: first with the failed handle,
// then with a read-only view, which holds every commit that was acknowledged, then with the new one.
Status RocksStore::Reopen() {
  if (mode_ == Mode::kReadOnly) return CheckWritable();
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
  {
    const std::lock_guard lock(log_sync_mu_);
    log_sync_failed_ = false;
  }
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
    const Status status = SyncCurrent();
    lock.lock();
    if (status.ok()) {
      synced = written;
    } else if (status.code() != Code::kUnavailable) {
      LogError("store", "the log cannot be synced", {{"reason", status.ToString()}});
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

Result<std::unique_ptr<Store>> OpenStore(const StoreOptions& options, RocksStore::Mode mode) {
  try {
    auto store = std::make_unique<RocksStore>(options, mode);
    FRESHET_TRY(store->Initialise());
    return std::unique_ptr<Store>(std::move(store));
  } catch (const std::exception& e) {
    return Internal(StrCat(options.directory, ": ", e.what()));
  }
}

Result<std::unique_ptr<Store>> OpenAny(const std::string& directory, RocksStore::Mode mode) {
  if (!FileExists(directory + "/CURRENT")) return NotFound(StrCat(directory, ": holds no store"));
  StoreOptions options;
  options.directory = directory;
  return OpenStore(options, mode);
}

}  // namespace

Result<std::unique_ptr<Store>> Store::Open(const StoreOptions& options) {
  FRESHET_TRY(options.Validate());
  return OpenStore(options, RocksStore::Mode::kAsConfigured);
}

Result<std::unique_ptr<Store>> Store::OpenExisting(const std::string& directory) {
  return OpenAny(directory, RocksStore::Mode::kExisting);
}

Result<std::unique_ptr<Store>> Store::OpenReadOnly(const std::string& directory) {
  return OpenAny(directory, RocksStore::Mode::kReadOnly);
}

}  // namespace freshet
