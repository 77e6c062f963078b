#include "freshet/store/restore.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "directory_lock.h"
#include "freshet/core/clock.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/changelog.h"
#include "freshet/store/index_files.h"
#include "sequence_floor.h"
#include "snapshot_files.h"

namespace freshet {
namespace {

constexpr char kRestoring[] = "restoring";
constexpr char kDamaged[] = "damaged";
constexpr char kLock[] = "freshet.lock";
constexpr char kNumbers[] = "numbers";
constexpr char kRestored[] = "RESTORED";  // holds the snapshot's id; comes and goes with the store
constexpr std::size_t kFetchThreads = 4;
constexpr std::uint64_t kIndexTag = 1;  // never made by IndexFiles::Save() but for the odds of 2^-63
// What an engine may have numbered since the newest number that is known of it: four months of 100,000 a second.
constexpr std::uint64_t kSequenceMargin = std::uint64_t{1} << 40;

// Of RocksDB's and ours, without what is about restoring itself, what a snapshot that was interrupted left, and the
// model packages that a sidecar keeps there.
bool IsOfStore(const std::string& name) {
  return name != kRestoring && name != kDamaged && name != kLock && name != "LOCK" && !name.starts_with("checkpoint") &&
         !name.starts_with("snapshot.re") && !name.starts_with("model") && !name.starts_with(kNumbers);
}

// The snapshot is at fault, not where it should go: the next one may do.
bool IsOfSnapshot(const Status& status) {
  return status.code() == Code::kCorruption || status.code() == Code::kNotFound ||
         status.code() == Code::kFailedPrecondition || status.code() == Code::kUnavailable;
}

// What the store in the directory has numbered, where it can still be told.
SequenceFloors NumbersOf(const std::string& data) {
  auto floors = ReadSequenceFloors(data + "/" + kNumbers);
  if (!floors.ok()) LogWarning("restore", "not known where numbers began", {{"reason", floors.status().ToString()}});
  SequenceFloors known = floors.ok() ? std::move(*floors) : SequenceFloors();
  if (!FileExists(data + "/CURRENT")) return known;
  if (const auto store = Store::OpenReadOnly(data); store.ok()) {
    std::uint64_t& sequence = known[(*store)->epoch()];
    sequence = std::max({sequence, (*store)->sequence(), (*store)->renumbered()});
  }
  return known;
}

// Where a follower goes on: at the changelog's position, below the snapshot's sequence nothing is new to it.
std::vector<PartitionProgress> FollowerProgress(const SnapshotManifest& manifest) {
  std::vector<PartitionProgress> all;
  for (const PartitionProgress& end : manifest.changelog) {
    PartitionProgress row = end;
    row.epoch = manifest.epoch;
    row.sequence = manifest.sequence;
    // Tombstones that were written before the cut are in it.
    row.complete_ms = manifest.as_of_ms > 0 ? std::min(manifest.as_of_ms, manifest.created_ms) : manifest.created_ms;
    all.push_back(row);
    if (end.partition.topic != manifest.user_events_topic) continue;
    for (const PartitionProgress& source : manifest.offsets) {
      all.push_back(SourceProgress(end.partition, source.partition, source.next_offset, source.last_timestamp_ms,
                                   manifest.epoch));
    }
  }
  return all;
}

class Restorer {
 public:
  // `numbers`: what is known to have been given, by epoch.
  Restorer(SnapshotRepository* repository, const RestoreOptions& options, SequenceFloors numbers)
      : repository_(*repository),
        options_(options),
        restoring_(options.data_dir + "/" + kRestoring),
        numbers_(std::move(numbers)) {}

  Result<Restored> Run() {
    FRESHET_ASSIGN(const std::vector<SnapshotEntry> entries, repository_.List());
    for (const SnapshotEntry& entry : entries) {
      if (!entry.status.ok()) continue;
      std::uint64_t& known = numbers_[entry.manifest.epoch];
      known = std::max(known, entry.manifest.sequence);
    }
    Restored restored;
    bool unreadable = false;
    for (const SnapshotEntry& entry : entries) {
      if (!options_.id.empty() && entry.id != options_.id) continue;
      Status status = entry.status;
      if (status.ok()) status = CheckFits(entry.manifest);
      if (status.ok()) status = Make(entry.manifest);
      if (status.ok()) {
        FRESHET_TRY(MoveIntoPlace());
        restored.manifest = entry.manifest;
        return restored;
      }
      if (!options_.id.empty()) return status.Prefixed(entry.id);
      if (entry.status.ok() && !IsOfSnapshot(status)) return status;
      unreadable |= !entry.status.ok() ? status.code() == Code::kIoError : status.code() == Code::kUnavailable;
      LogWarning("restore", "a snapshot is refused", {{"id", entry.id}, {"reason", status.ToString()}});
      restored.refused.push_back(StrCat(entry.id, ": ", status.message()));
    }
    std::string reasons;
    for (const std::string& reason : restored.refused) reasons += "; " + reason;
    const std::string message = StrCat(repository_.name(), ": holds no snapshot ",
                                       options_.id.empty() ? "that can be used" : options_.id, reasons);
    return unreadable ? Unavailable(message) : NotFound(message);
  }

 private:
  Status CheckFits(const SnapshotManifest& manifest) const {
    if (!options_.space_id.empty() && (manifest.space_id != options_.space_id || manifest.dim != options_.dim ||
                                       manifest.metric != options_.metric)) {
      return FailedPrecondition(
          StrCat("holds vectors of embedding space ", manifest.space_id, ", not ", options_.space_id));
    }
    if (options_.follower && manifest.changelog.empty()) {
      return FailedPrecondition("was made without a changelog: a follower could not go on from it");
    }
    return Status::Ok();
  }

  // A whole store in `restoring/`.
  Status Make(const SnapshotManifest& manifest) {
    FRESHET_TRY(RemoveTree(restoring_));
    FRESHET_TRY(CheckSpace(manifest));
    FRESHET_TRY(CreateDirectories(restoring_ + "/index"));
    FRESHET_TRY(FetchAll(manifest));
    FRESHET_TRY(MakeReady(manifest, manifest.Find("index") != nullptr));
    FRESHET_TRY(WriteFileAtomically(restoring_ + "/" + kRestored, manifest.id));
    FRESHET_TRY(FaultPoint("restore.before_sync"));
    FRESHET_TRY(SyncDirectory(restoring_ + "/index"));
    return SyncDirectory(restoring_);
  }

  Status CheckSpace(const SnapshotManifest& manifest) const {
    const bool shared = repository_.SharesWith(options_.data_dir);
    std::uint64_t wanted = kSpareBytes;
    for (const SnapshotFile& file : manifest.files) {
      if (IsFetched(file) && !(shared && IsStable(file))) wanted += file.bytes;
    }
    const std::uint64_t free = FreeBytes(options_.data_dir);
    if (free >= wanted) return Status::Ok();
    return ResourceExhausted(
        StrCat(options_.data_dir, ": ", free, " bytes are free, restoring ", manifest.id, " needs ", wanted));
  }

  static bool IsFetched(const SnapshotFile& file) { return !file.name.starts_with("model/"); }
  // Never written by the store that is made of it.
  static bool IsStable(const SnapshotFile& file) { return file.name.ends_with(".sst") || file.name == "index"; }

  // A few files at a time: one reader waits for the disk, or for its own hashing, most of the time.
  Status FetchAll(const SnapshotManifest& manifest) const {
    std::atomic<std::size_t> next{0};
    std::mutex mu;
    std::uint64_t done = 0;
    Status failed;
    const auto progress = [&](std::uint64_t bytes) {
      const std::lock_guard lock(mu);
      done += bytes;
      if (options_.progress) {
        options_.progress(static_cast<double>(done) / static_cast<double>(manifest.bytes() + 1));
      }
      return failed;
    };
    const auto fetch_some = [&] {
      for (std::size_t at = next++; at < manifest.files.size(); at = next++) {
        const SnapshotFile& file = manifest.files[at];
        if (!IsFetched(file)) continue;
        const std::string path = file.name == "index" ? IndexFiles::PathOf(restoring_, kIndexTag)
                                                      : restoring_ + file.name.substr(file.name.find('/'));
        Status status = FaultPoint("restore.before_file");
        if (status.ok()) status = repository_.Fetch(manifest, file, path, IsStable(file), progress);
        if (status.ok()) continue;
        const std::lock_guard lock(mu);
        if (failed.ok()) failed = std::move(status);
        next = manifest.files.size();
      }
    };
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < std::min(kFetchThreads, manifest.files.size()); ++i) others.emplace_back(fetch_some);
    fetch_some();
    for (std::thread& other : others) other.join();
    return failed;
  }

  Status MakeReady(const SnapshotManifest& manifest, bool has_index) {
    FRESHET_ASSIGN(const std::unique_ptr<Store> store, Store::OpenExisting(restoring_));
    if (store->sequence() != manifest.sequence || store->epoch() != manifest.epoch) {
      return Corruption(
          StrCat("its store is at sequence ", store->sequence(), ", the manifest says ", manifest.sequence));
    }
    RestoredAs as;
    if (options_.follower) {
      as.follow = FollowerProgress(manifest);
    } else {
      FRESHET_ASSIGN(as.sequence_at_least, SequenceAbove(manifest));
    }
    if (has_index) as.index_file = IndexFileRow{kIndexTag, manifest.sequence};
    FRESHET_TRY(FaultPoint("restore.before_ready"));
    FRESHET_TRY(store->BecomeRestored(as));
    return FaultPoint("restore.after_ready");
  }

  // The numbers that the engine gave after the snapshot are never given again: followers order by them. The newest that
  // is known of any snapshot, of the store that was here and of restores before, with a margin for what was given since
  // then; and a store gives fewer than one a microsecond of its life, so its age, where the clock is right, is above
  // them all. Noted before anybody can see a number above it, for the restore after this one.
  Result<std::uint64_t> SequenceAbove(const SnapshotManifest& manifest) {
    const SystemClock system;
    const Clock& clock = options_.clock == nullptr ? system : *options_.clock;
    const auto now_us = static_cast<std::uint64_t>(std::max<std::int64_t>(0, clock.WallMs())) * 1000;
    const auto noted = repository_.NotedSequence(manifest.epoch);
    const std::uint64_t above = std::max({numbers_[manifest.epoch], noted.ok() ? *noted : 0,
                                          now_us > manifest.epoch ? now_us - manifest.epoch : 0}) +
                                kSequenceMargin;
    FRESHET_TRY(FaultPoint("restore.before_note"));
    FRESHET_TRY(RaiseSequenceFloor(options_.data_dir + "/" + kNumbers, manifest.epoch, above));
    // A repository that can only be read will do: the other note is there.
    Status there = repository_.NoteSequence(manifest.epoch, above);
    if (there.ok() && !noted.ok()) there = noted.status();
    if (!there.ok()) {
      LogWarning("restore", "the snapshots do not say where numbers go on", {{"reason", there.ToString()}});
    }
    FRESHET_TRY(FaultPoint("restore.after_note"));
    return above;
  }

  Status MoveIntoPlace() {
    const std::string& data = options_.data_dir;
    FRESHET_TRY(FaultPoint("restore.before_move"));
    FRESHET_TRY(SetAside(data));
    FRESHET_ASSIGN(const std::vector<std::string> names, ListDirectory(restoring_));
    for (const std::string& name : names) {
      if (!IsOfStore(name) || name == "CURRENT") continue;
      FRESHET_TRY(FaultPoint("restore.within_move"));
      FRESHET_TRY(RenamePath(restoring_ + "/" + name, data + "/" + name));
    }
    FRESHET_TRY(SyncDirectory(data));
    FRESHET_TRY(FaultPoint("restore.before_current"));
    FRESHET_TRY(RenamePath(restoring_ + "/CURRENT", data + "/CURRENT"));
    FRESHET_TRY(SyncDirectory(data));
    FRESHET_TRY(FaultPoint("restore.after_current"));
    return RemoveTree(restoring_);
  }

 public:
  // CURRENT goes first: without it the directory holds no store.
  static Status SetAside(const std::string& data) {
    FRESHET_ASSIGN(const std::vector<std::string> names, ListDirectory(data));
    if (std::none_of(names.begin(), names.end(), &IsOfStore)) return Status::Ok();
    const std::string aside = data + "/" + kDamaged;
    // Only a store that was whole is worth keeping; what a restore that was interrupted left is not.
    const bool keep = std::find(names.begin(), names.end(), "CURRENT") != names.end();
    if (keep) {
      FRESHET_TRY(RemoveTree(aside));
      FRESHET_TRY(CreateDirectories(aside));
      FRESHET_TRY(RenamePath(data + "/CURRENT", aside + "/CURRENT"));
      FRESHET_TRY(SyncDirectory(data));
    }
    for (const std::string& name : names) {
      if (!IsOfStore(name) || name == "CURRENT") continue;
      FRESHET_TRY(FaultPoint("restore.within_aside"));
      FRESHET_TRY(keep ? RenamePath(data + "/" + name, aside + "/" + name) : RemoveTree(data + "/" + name));
    }
    return SyncDirectory(data);
  }

 private:
  SnapshotRepository& repository_;
  const RestoreOptions& options_;
  const std::string restoring_;
  SequenceFloors numbers_;
};

// Whether anything of a store is there.
Result<bool> HoldsAnything(const std::string& data) {
  const auto names = ListDirectory(data);
  if (names.status().code() == Code::kNotFound) return false;
  if (!names.ok()) return names.status();
  return std::any_of(names->begin(), names->end(), &IsOfStore);
}

// Behind the newest snapshot of itself: the end of its log was lost.
Status CheckNotTorn(const Store& store, const SnapshotRepository& repository) {
  FRESHET_ASSIGN(const std::vector<SnapshotEntry> entries, repository.List());
  for (const SnapshotEntry& entry : entries) {
    if (!entry.status.ok() || entry.manifest.epoch != store.epoch()) continue;
    if (store.sequence() >= entry.manifest.sequence) return Status::Ok();
    return Corruption(StrCat(store.options().directory, ": is at sequence ", store.sequence(), ", its snapshot ",
                             entry.id, " at ", entry.manifest.sequence, ": the end of its log is lost"));
  }
  return Status::Ok();
}

}  // namespace

Result<Restored> RestoreSnapshot(SnapshotRepository& repository, const RestoreOptions& options) {
  FRESHET_TRY(CreateDirectories(options.data_dir));
  // Before the lock, which opening the store takes as well. A follower gives no numbers.
  SequenceFloors numbers = options.follower ? SequenceFloors() : NumbersOf(options.data_dir);
  DirectoryLock lock;
  FRESHET_TRY(lock.Acquire(options.data_dir));
  return Restorer(&repository, options, std::move(numbers)).Run();
}

std::string RestoredFrom(const std::string& data_dir) {
  const auto id = ReadFile(data_dir + "/" + kRestored, 64);
  return id.ok() && IsValidSnapshotId(*id) ? *id : "";
}

Status SetStoreAside(const std::string& data_dir) {
  DirectoryLock lock;
  FRESHET_TRY(lock.Acquire(data_dir));
  FRESHET_TRY(Restorer::SetAside(data_dir));
  return RemoveTree(data_dir + "/" + kRestoring);
}

Result<OpenedStore> OpenOrRestore(const StoreOptions& options, SnapshotRepository* repository, bool follower,
                                  bool damaged, const std::function<Status()>& log_is_complete,
                                  const std::function<void(double)>& progress) {
  OpenedStore opened;
  Status wrong = damaged ? Corruption(options.directory + ": its rows cannot be read") : Status::Ok();
  FRESHET_ASSIGN(const bool holds, HoldsAnything(options.directory));
  if (!damaged && FileExists(options.directory + "/CURRENT")) {
    auto store = Store::Open(options);
    if (store.ok()) {
      wrong = repository == nullptr || follower ? Status::Ok() : CheckNotTorn(**store, *repository);
      if (wrong.ok()) {
        opened.store = std::move(*store);
        return opened;
      }
    } else {
      wrong = store.status();
    }
    if (wrong.code() != Code::kCorruption) return wrong;
  } else if (!damaged && holds) {
    wrong = Corruption(options.directory + ": holds a part of a store");
  }
  if (!wrong.ok()) LogError("restore", "the store cannot be used", {{"reason", wrong.ToString()}});
  StoreOptions fresh = options;
  if (repository != nullptr) {
    RestoreOptions restore;
    restore.data_dir = options.directory;
    restore.follower = follower;
    restore.space_id = options.space_id;
    restore.dim = options.dim;
    restore.metric = MetricName(options.metric);
    restore.progress = progress;
    auto restored = RestoreSnapshot(*repository, restore);
    if (restored.ok()) {
      LogInfo("restore", "restored; what came since is read from the log",
              {{"snapshot", restored->manifest.id},
               {"items", StrCat(restored->manifest.items)},
               {"sequence", StrCat(restored->manifest.sequence)}});
      opened.restored = std::move(*restored);
      FRESHET_ASSIGN(opened.store, Store::Open(options));
      return opened;
    }
    if (restored.status().code() != Code::kNotFound) return restored.status();
    if (holds || restored.status().message().find(';') != std::string::npos) {
      LogWarning("restore", "no snapshot can be used", {{"reason", restored.status().message()}});
    }
    FRESHET_ASSIGN(const std::vector<SnapshotEntry> entries, repository->List());
    for (const SnapshotEntry& entry : entries) {
      if (entry.status.ok()) fresh.epoch_above = std::max(fresh.epoch_above, entry.manifest.epoch);
    }
  }
  if (const SequenceFloors numbers = NumbersOf(options.directory); !numbers.empty()) {
    fresh.epoch_above = std::max(fresh.epoch_above, numbers.rbegin()->first);
  }
  if (holds) {
    if (log_is_complete) {
      if (const Status complete = log_is_complete(); !complete.ok()) return complete.Prefixed(wrong.message());
    }
    LogWarning("restore", "begins empty, everything comes from the log again; the old store is kept in `damaged`",
               {{"directory", options.directory}});
    FRESHET_TRY(SetStoreAside(options.directory));
  }
  opened.from_log = true;
  FRESHET_ASSIGN(opened.store, Store::Open(fresh));
  return opened;
}

}  // namespace freshet
