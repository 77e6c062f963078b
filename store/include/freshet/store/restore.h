// From a snapshot to a data directory.
//
// Place in the flow: before the store is opened, at the start of engine and sidecar, and by `freshet snapshot restore`.
// Everything is fetched and verified into `restoring/` beneath the data directory, made ready there, and then moved
// into place, CURRENT last: a crash at any point leaves a directory that is restored again. What was in the directory
// goes to `damaged/` (one generation is kept). No re-encoding, no building of the graph. An engine's numbers go on
// above every one that may have been given, whatever the clock says: how far a restore went is noted in the data
// directory and in the repository. One thread; the directory's lock is held.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/status.h"
#include "freshet/store/snapshot_repository.h"
#include "freshet/store/store.h"

namespace freshet {

struct RestoreOptions {
  std::string data_dir;
  std::string id;         // empty: the newest that is whole
  bool follower = false;  // a sidecar: goes on at the changelog's position instead of the engine's topics
  // What the vectors must be; an empty space: whatever the snapshot holds.
  std::string space_id;
  int dim = 0;
  std::string metric;
  std::function<void(double)> progress;  // 0..1
  const Clock* clock = nullptr;          // not owned; null: the system's
};

struct Restored {
  SnapshotManifest manifest;
  std::vector<std::string> refused;  // newer snapshots that were not used: id, file and reason
};

// The newest that is whole: one that is damaged or cannot be read is refused with file and reason, and the next is
// tried; what fails at the data directory ends it. Errors: kNotFound (none can be used; the reasons are in the
// message), kUnavailable (likewise, but one at least could not be read: it may be whole), kFailedPrecondition (another
// process holds the directory), kResourceExhausted (no room, which is asked for before anything is fetched), kIoError.
// With an id also what is wrong with that one.
[[nodiscard]] Result<Restored> RestoreSnapshot(SnapshotRepository& repository, const RestoreOptions& options);

// The id of the snapshot that the store in the directory began from, however long ago. Empty: from none, or not known.
[[nodiscard]] std::string RestoredFrom(const std::string& data_dir);

// Moves a store into `damaged/` beneath its directory, which is empty then. Errors: kFailedPrecondition (another
// process holds it), kIoError.
Status SetStoreAside(const std::string& data_dir);

struct OpenedStore {
  std::unique_ptr<Store> store;
  std::optional<Restored> restored;
  bool from_log = false;  // nothing could be restored: everything comes from the log again
};

// Opens the store; restores it first where the directory is empty, where it cannot be read, or where it is behind the
// newest snapshot of itself (a torn log). `damaged`: it was found to be so after opening, do not open it. `repository`
// may be null. `log_is_complete` is asked before a store that held something begins empty; its error is returned then.
[[nodiscard]] Result<OpenedStore> OpenOrRestore(const StoreOptions& options, SnapshotRepository* repository,
                                                bool follower, bool damaged,
                                                const std::function<Status()>& log_is_complete,
                                                const std::function<void(double)>& progress);

}  // namespace freshet
