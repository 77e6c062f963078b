// Takes snapshots while the engine runs.
//
// Place in the flow: beside the Applier, on a thread of its own. The memtables are flushed first; then, between two
// micro-batches, the applying thread takes RocksDB's checkpoint and cuts the index, which is the one moment that the
// snapshot shows; writing, checking, hashing, syncing and publishing follow here, at a bounded rate, while everything
// goes on. One snapshot at a time. A failure is logged, counted and told by Create(); the engine goes on, and what was
// due is tried again after a wait that doubles, from a second to five minutes. What is published is a success, whatever
// becomes of removing old ones, which is counted apart.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/store/applier.h"
#include "freshet/store/index_files.h"
#include "freshet/store/snapshot_repository.h"
#include "freshet/store/store.h"

namespace freshet {

struct SnapshotOptions {
  std::string directory;        // of the repository; empty: no snapshots
  int interval_seconds = 600;   // a snapshot is due after so long, if anything was committed; 0: never
  std::uint64_t records = 0;    // or after so many changes; 0: never
  std::uint64_t wal_bytes = 0;  // or after so many bytes of log; 0: never
  bool at_stop = true;          // one more at a graceful stop, if anything was committed since the last
  // Reading and writing together, but for the index's graph, which is written at once and made up for; 0: no limit.
  std::uint64_t bytes_per_second = std::uint64_t{64} << 20;
  Retention keep;
  Status Validate() const;
};

// What a snapshot says beside what store and applier know.
struct SnapshotContext {
  std::string version;
  std::string model;                               // name and version of the package
  std::string model_directory;                     // where its files are, which go along; empty: none
  std::map<std::string, std::string> model_files;  // name -> SHA-256, which it must still have
  std::string vectors_topic;
  std::string user_events_topic;
  // Ends of the changelog's partitions now: asked for before the cut, so that everything newer stands behind them.
  // Null: no changelog.
  std::function<Result<std::vector<PartitionProgress>>()> changelog_ends;
};

class Snapshotter {
 public:
  // All outlive it.
  Snapshotter(const SnapshotOptions& options, SnapshotContext context, SnapshotRepository* repository, Store* store,
              Applier* applier, const Clock* clock, Metrics* metrics);
  ~Snapshotter();

  // Removes what a crash left; then takes snapshots as they become due.
  void Start();
  // Ends a snapshot that is under way. Idempotent.
  void Stop();
  // Takes one now, at full speed if `hurry`. Any thread; waits for one that is under way.
  // Ok: it is published. Errors: kResourceExhausted (no space), kUnavailable (Kafka, or the store is blocked),
  // kCancelled, kCorruption (of our own tables), kIoError.
  [[nodiscard]] Result<SnapshotManifest> Create(bool hurry = false);
  // Whether anything was committed since the last one.
  [[nodiscard]] bool IsBehind() const;
  // Starts one soon, on the snapshotter's thread.
  void Request();

  struct Report {
    std::string last_id;       // empty: none yet
    std::string last_failure;  // empty: the last one succeeded
    std::uint64_t created = 0;
    std::uint64_t failed = 0;
    double retry_seconds = 0;  // how long the next waits after a failure, on request it does not; 0: all is well
    std::uint64_t prune_failures = 0;
    std::string last_prune_failure;  // empty: old ones are removed as they should be
    std::uint64_t paced_bytes = 0;   // of the last one: read and written at the bounded rate
    bool running = false;
    double stall_seconds = 0;  // how long nothing was applied at the last cut
  };
  [[nodiscard]] Report report() const;

 private:
  void Run();
  [[nodiscard]] bool IsDue() const;
  void AnswerRequest();
  Result<SnapshotManifest> Take(const Throttle& throttle);
  Status CheckSpace() const;
  Status Check(const SnapshotSource& source, const Throttle& throttle) const;
  void Failed(const Status& reason);
  void RemoveOld();
  Status Cut(SnapshotManifest* manifest, std::unique_ptr<IndexCut>* index);
  Status Sources(std::vector<SnapshotSource>* sources) const;

  const SnapshotOptions options_;
  const SnapshotContext context_;
  SnapshotRepository* const repository_;
  Store* const store_;
  Applier* const applier_;
  const Clock* const clock_;
  const std::string staging_;
  Counter& created_;
  Counter& failed_;
  Counter& prune_failed_;
  Gauge& retry_seconds_;
  Gauge& last_success_seconds_;
  Gauge& last_bytes_;
  Histogram& seconds_;
  Histogram& stall_seconds_;

  std::atomic<bool> stopping_{false};
  std::thread thread_;
  std::mutex taking_;  // one at a time
  IndexFiles index_files_;
  // Guarded by taking_:
  std::vector<PartitionProgress> changelog_ends_;  // as last heard: an older answer is as right, only longer to read
  std::uint64_t cut_wal_bytes_ = 0;
  mutable std::mutex mu_;
  std::condition_variable wake_;
  // Guarded by mu_:
  Report report_;
  bool requested_ = false;
  std::int64_t last_us_ = 0;
  std::int64_t retry_wait_us_ = 0;  // 0: the last one succeeded
  std::int64_t retry_us_ = 0;       // not before
  std::uint64_t last_sequence_ = 0;
  std::uint64_t last_wal_bytes_ = 0;
};

// Asks the engine that runs on this data directory for a snapshot, by a file in it, and waits for the id. Whoever may
// write there may ask. Errors: kFailedPrecondition (no engine runs there), kDeadlineExceeded, what Create() says as
// kUnavailable.
[[nodiscard]] Result<std::string> AskForSnapshot(const std::string& data_dir, std::chrono::seconds timeout);

}  // namespace freshet
