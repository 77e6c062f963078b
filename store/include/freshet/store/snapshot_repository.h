// Where snapshots are kept: the port, and a local directory behind it.
//
// Place in the flow: the snapshotter puts, a restore fetches, the command line lists, verifies and prunes. A put is
// atomic: a snapshot is listed whole or not at all, whatever happens at any point. In a local directory a snapshot is
// `ID/manifest.json` and the files that it names; what is being put is `.tmp-ID`, what is being removed `.trash-ID`;
// both are garbage after a crash. Files that did not change since the newest snapshot are hard links where the file
// system has them. Thread-safe; one process at a time puts, notes and collects garbage, any number read. Errors:
// kNotFound, kCorruption (file and reason), kResourceExhausted (no space), kIoError (it cannot be told, or done).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/store/manifest.h"

namespace freshet {

// Told of each piece of bytes that was read or written; may wait; an error of it ends the work and is returned.
using Throttle = std::function<Status(std::uint64_t bytes)>;

// A file to put.
struct SnapshotSource {
  std::string name;     // in the snapshot
  std::string path;     // now
  bool stable = false;  // never written again: may be linked instead of copied
};

struct SnapshotEntry {
  std::string id;
  Status status;  // of the manifest; not ok: it cannot be restored
  SnapshotManifest manifest;
};

struct Retention {
  std::size_t max_count = 8;    // at least 1
  std::int64_t max_age_ms = 0;  // 0: no limit
  std::uint64_t max_bytes = 0;  // shared files count once; 0: no limit
};

class SnapshotRepository {
 public:
  virtual ~SnapshotRepository() = default;
  // Newest first (IsNewer), what cannot be read last. An empty list where nothing was ever put.
  [[nodiscard]] virtual Result<std::vector<SnapshotEntry>> List() const = 0;
  [[nodiscard]] virtual Result<SnapshotManifest> Read(const std::string& id) const = 0;
  // Fills in `previous` and `files`. `check` is called for each file that the newest snapshot has not, before it is
  // published. After an error the snapshot is not there: what cannot be made durable is taken back.
  virtual Status Put(SnapshotManifest* manifest, const std::vector<SnapshotSource>& sources,
                     const std::function<Status(const SnapshotSource&)>& check, const Throttle& throttle) = 0;
  // One file to a path that is not there yet, verified against the manifest. `stable`: the copy is never written, so it
  // may be a link. Errors of the snapshot: kNotFound, kCorruption, kUnavailable (it cannot be read); of the path:
  // kResourceExhausted, kIoError.
  virtual Status Fetch(const SnapshotManifest& manifest, const SnapshotFile& file, const std::string& path, bool stable,
                       const Throttle& throttle) const = 0;
  // Whether every file is there with its size; reads none. Errors: kCorruption naming the first that is not; kIoError.
  [[nodiscard]] virtual Status CheckFiles(const SnapshotManifest& manifest) const = 0;
  // Every byte against the manifest. Errors: kCorruption naming the first file that differs.
  virtual Status Verify(const SnapshotManifest& manifest, const Throttle& throttle) const = 0;
  virtual Status Remove(const std::string& id) = 0;
  // The highest number of this epoch that was noted, 0: none. A restore notes from where it numbers, so that a later
  // one is above it although every snapshot is older.
  [[nodiscard]] virtual Result<std::uint64_t> NotedSequence(std::uint64_t epoch) const = 0;
  virtual Status NoteSequence(std::uint64_t epoch, std::uint64_t sequence) = 0;
  // What interrupted puts and removals left. Returns how many.
  virtual Result<std::size_t> CollectGarbage() = 0;
  [[nodiscard]] virtual std::uint64_t free_bytes() const = 0;
  // Whether a file at this path could be shared instead of copied.
  [[nodiscard]] virtual bool SharesWith(const std::string& path) const = 0;
  [[nodiscard]] virtual std::string name() const = 0;
};

// `directory` is created at the first put.
[[nodiscard]] std::unique_ptr<SnapshotRepository> OpenLocalRepository(const std::string& directory);

// Removes what the bounds do not allow, oldest first; all that can go go, whatever happens to one of them. Returns the
// ids. Good is a snapshot whose files are all there with their sizes: only such a one counts, and the newest of them
// stays whatever the bounds. A damaged one (kCorruption) is left for people to look at, until the good ones and the
// bounds have gone past it. Of what cannot be read at the moment, or is of a newer format, nothing is known: it stays.
[[nodiscard]] Result<std::vector<std::string>> Prune(SnapshotRepository* repository, const Retention& retention,
                                                     std::int64_t now_ms, bool dry_run = false);

}  // namespace freshet
