// The last stage: one micro-batch, one atomic commit, then visible.
//
// Place in the flow: BoundedQueue<EncodedBatch> -> plan (drop what is stale, number, label) -> Store::Write -> Index ->
// Catalog -> counted as fresh. The commit comes before the index, because RocksDB is the truth: a crash between the two
// loses nothing, since the index is rebuilt from the store. One thread applies; it is also the Replica that queries
// read, from any thread. On the engine it numbers changes and fills the outbox; on a follower the numbers are the
// writer's. Errors: see Store; the first that is not transient stops it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/queue.h"
#include "freshet/encoder/encode_stage.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/indexer/index.h"
#include "freshet/store/catalog.h"
#include "freshet/store/replica.h"
#include "freshet/store/store.h"

namespace freshet {

struct ApplierOptions {
  enum class Role { kEngine, kFollower };
  Role role = Role::kEngine;
  std::string vectors_topic = "vectors";                      // follower: which of its topics holds items
  std::string items_topic = "items";                          // engine: which of its topics holds items ...
  std::string users_topic = "users";                          // ... and which profiles
  std::size_t history = 50;                                   // interactions kept per user
  std::size_t seen = 1024;                                    // item ids remembered per user
  std::size_t rebuild_batch = 1024;                           // rows per insert while the index is rebuilt at start
  PopularityOptions popularity;                               // of items, in memory
  AttributeIndexOptions attributes;                           // of the filters, in memory
  bool outbox = true;                                         // engine: write the changelog's outbox
  std::uint64_t outbox_max_bytes = std::uint64_t{256} << 20;  // above it, applying waits for the publisher
};

// How an audit gives way: after each page it waits, so that it takes at most `share` of the time.
struct AuditPace {
  std::size_t page_rows = 8192;
  double share = 0.1;  // REQUIRES: above 0, at most 1
  // Waits; false: the audit ends, kCancelled. Not set: it goes on at once.
  std::function<bool(std::chrono::microseconds)> wait{};
};

using IndexSource = std::function<Result<std::unique_ptr<Index>>()>;

class Applier final : public Replica, public KnownItems {
 public:
  // `store` outlives the applier.
  Applier(const ApplierOptions& options, const StoreOptions& store_options, Store* store, const Clock* clock,
          Metrics* metrics);
  ~Applier() override;

  // Fills the catalog from the store, and reconciles the index with it: what the index has and the store has not gets
  // a tombstone, what is missing is inserted from the stored vectors. `open_index` brings the index, empty or from a
  // file that the store names (IndexFiles), on a thread of its own meanwhile. `progress` gets 0..1. Called once, before
  // anything else.
  Status Rebuild(const IndexSource& open_index, const std::function<void(double)>& progress = {});

  // Applies one batch on the calling thread. Idempotent: what the stored offsets already cover changes nothing.
  Status Apply(EncodedBatch batch);

  // Or: applies what comes, on a thread of its own, until the queue is closed and drained. `on_stored` is called after
  // each commit, on that thread.
  void Start(BoundedQueue<EncodedBatch>* in, std::function<void(const std::vector<PartitionProgress>&)> on_stored);
  // From now on the changelog's backlog holds nothing back: for a graceful stop while the broker is away.
  void ReleaseBackpressure() { stopping_ = true; }
  void Join();  // REQUIRES: the input queue is, or will be, closed
  // Runs `work` between two batches, on the applying thread (or on this one, where nothing is applied in a thread), and
  // returns what it returned. Nothing is committed meanwhile, and what is committed is visible. Errors also:
  // kUnavailable while the store cannot be written.
  Status AtRest(const std::function<Status()>& work);
  // Why nothing can be committed at the moment: a full disk, a failing one. Empty: all is well. What is stored goes on
  // being answered, nothing is read meanwhile, and applying goes on by itself.
  [[nodiscard]] std::string blocked() const;
  [[nodiscard]] Status status() const;

  // Partitions of any topic that this engine owns: items of others are in no answer from now on, and return with their
  // partition. What is stored of them stays. Thread-safe. Never called: all are owned.
  void Own(const std::vector<TopicPartition>& partitions);

  // What is stored of partitions, for OffsetLookup; and their next offsets alone.
  [[nodiscard]] StoredPositions Stored(const std::vector<TopicPartition>& wanted) const;
  [[nodiscard]] std::map<TopicPartition, std::int64_t> StoredOffsets(const std::vector<TopicPartition>& wanted) const;

  // What Rebuild() inserted into the index: 0 where a file brought everything.
  [[nodiscard]] std::uint64_t rebuilt_items() const { return rebuilt_items_; }
  // The index, to be cut. REQUIRES: at rest.
  [[nodiscard]] Result<std::unique_ptr<IndexCut>> CutIndex() { return index_->Cut(); }
  // Where index and store differ, the store is right. While batches are applied, from any one thread, a page at a time:
  // it holds no more than that, and stalls them only where something differs. Returns the number of differences found
  // and repaired. Errors: kUnavailable while the store cannot be written; kCancelled; those of reading the store.
  Result<std::uint64_t> AuditAndRepair(const AuditPace& pace = {});
  // The same of the store alone, as far as that is cheap: see Store::CheckNumbers(). Repairs nothing.
  [[nodiscard]] Result<StoreCheck> AuditStore(const AuditPace& pace = {}) const;
  // The index alone: what its searches cannot reach or miss, repaired in the background. Any thread. Errors: also
  // kCancelled.
  Result<IndexHealth> AuditIndex(const AuditPace& pace = {});

  // Index against store: live labels one to one with the store's items. Errors: kCorruption naming the first
  // difference. REQUIRES: nothing is being applied.
  Status Audit() const;

  // KnownItems:
  [[nodiscard]] Result<std::uint64_t> FeaturesHash(std::string_view item_id) const override;
  [[nodiscard]] std::uint64_t applied_batches() const override { return applied_batches_.load(); }

  // Replica:
  [[nodiscard]] const std::string& space_id() const override { return store_options_.space_id; }
  [[nodiscard]] int dim() const override { return store_options_.dim; }
  [[nodiscard]] Metric metric() const override { return store_options_.metric; }
  [[nodiscard]] const Index& index() const override { return *index_; }
  [[nodiscard]] const Catalog& catalog() const override { return catalog_; }
  [[nodiscard]] Result<std::optional<UserState>> GetUser(std::string_view user_id) const override;
  [[nodiscard]] Result<std::optional<Attributes>> GetAttributes(std::string_view item_id) const override;
  [[nodiscard]] Result<std::optional<std::vector<float>>> GetVector(std::string_view item_id) const override;
  [[nodiscard]] std::int64_t as_of_ms() const override { return as_of_ms_.load(); }
  [[nodiscard]] std::uint64_t sequence() const override { return sequence_.load(); }
  [[nodiscard]] std::uint64_t user_count() const override { return users_.load(); }
  [[nodiscard]] OwnedItems owned_items() const override {
    const std::lock_guard lock(mu_);
    return owned_;
  }
  [[nodiscard]] std::shared_ptr<const PopularItems> Popular() const override {
    return popularity_.Top(clock_->MonotonicUs() / 1000);
  }
  [[nodiscard]] std::vector<double> CountsOf(const std::vector<std::string>& item_ids) const override {
    return popularity_.CountsOf(item_ids);
  }
  [[nodiscard]] Result<std::optional<std::uint64_t>> GetSequence(std::string_view item_id) const override;
  [[nodiscard]] Result<std::optional<std::int64_t>> GetChangedMs(std::string_view item_id) const override;
  // Item and user changes made visible since start.
  [[nodiscard]] std::uint64_t applied_records() const { return applied_records_.load(); }

 private:
  struct Plan;
  [[nodiscard]] bool is_engine() const { return options_.role == ApplierOptions::Role::kEngine; }
  // For the catalog: a follower's partitions are those of the changelog, all of which it reads.
  [[nodiscard]] std::int32_t PartitionOf(const ItemRow& row) const {
    return is_engine() ? row.position.partition : row.source_partition;
  }
  void Show(OwnedItems owned);
  Status PlanItems(EncodedBatch* batch, Plan* plan);
  Status PlanItem(const PartitionProgress& source, ItemChange* change, Plan* plan);
  Status PlanUsers(EncodedBatch* batch, Plan* plan);
  [[nodiscard]] bool IsNewToFollower(const UserChange& change, const PartitionProgress& from,
                                     std::map<TopicPartition, PartitionProgress>* sources) const;
  Status PlanEpochs(EncodedBatch* batch, Plan* plan);
  [[nodiscard]] bool IsOlderElsewhere(const PartitionProgress& source, const ItemChange& change,
                                      const ItemRow& old) const;
  Status PlanUser(const PartitionProgress& source, const UserChange& change, Plan* plan);
  Result<bool> WasForgotten(const std::string& id, const UserChange& change, Plan* plan);
  void TrimForgotten();
  void PlanProgress(const EncodedBatch& batch, Plan* plan) const;
  void PlanSeen(const ItemRow& old, Commit::Item item, bool seen_before, Plan* plan) const;
  static void PlanRemoval(const std::string& item_id, Label label, Plan* plan);
  Result<bool> SameVector(const ItemChange& change, const ItemRow& old, std::uint64_t features_hash) const;
  Status Write(Plan* plan, std::int64_t as_of_ms);
  Status ApplyMark(const PartitionMark& mark);
  Status Sweep(const PartitionProgress& swept);
  Status SweepItems(const PartitionProgress& swept, std::size_t* removed);
  Status SweepUsers(const PartitionProgress& swept, std::size_t* removed);
  Status MakeVisible(const Plan& plan);
  Status InsertStored(const std::vector<Label>& labels, const std::function<void(double)>& progress);
  Status WriteOrWait(const Commit& commit);
  Status RetryReads(const std::function<Status()>& read);
  Status ReopenWhenDue();
  Status TryReopen(const Status& reason);
  void SetBlocked(const std::string& why);
  void WorkAtRest();
  Status WaitForPublisher();
  Result<std::uint64_t> RepairAtRest(Label from, Label to, std::size_t max);
  void Run(BoundedQueue<EncodedBatch>* in, const std::function<void(const std::vector<PartitionProgress>&)>& on_stored);
  void Report();
  void TellOfIndex(const IndexStats& index);
  void ReportWhenDue();
  [[nodiscard]] bool IsStale(const PartitionProgress& source, std::int64_t offset, std::uint64_t sequence) const;

  // Constant after construction:
  const ApplierOptions options_;
  const StoreOptions store_options_;
  Store* const store_;
  const Clock* const clock_;
  Metrics* const metrics_;
  Counter& applied_items_;
  Counter& applied_deletes_;
  Counter& applied_users_;
  Counter& stale_;
  Counter& unchanged_;
  Counter& attributes_only_;
  Counter& swept_;
  Counter& commits_;
  Gauge& live_items_;
  Gauge& hidden_items_;
  Gauge& blocked_gauge_;
  Counter& reopened_;
  Counter& reopen_failures_;
  Counter& read_retries_;
  Counter& audit_differences_;
  Histogram& commit_seconds_;
  Histogram& visible_seconds_;
  Histogram& freshness_seconds_;

  std::unique_ptr<Index> index_;  // since Rebuild()
  Catalog catalog_;
  Popularity popularity_;
  // Applying thread only, but progress_ is read under mu_ by StoredOffsets():
  std::map<TopicPartition, PartitionProgress> progress_;
  std::uint64_t next_label_ = 1;
  std::uint64_t next_sequence_ = 1;
  bool any_forgotten_ = false;  // users, as far as it is noted
  std::int64_t forgotten_trimmed_us_ = 0;
  std::int64_t labels_forgotten_us_ = 0;
  std::int64_t reported_us_ = 0;
  IndexStats told_index_;  // when it was last reported
  // Of opening the store again; applying thread only:
  std::chrono::steady_clock::time_point reopen_due_{};
  std::chrono::steady_clock::time_point reopen_tried_{};
  std::chrono::milliseconds reopen_wait_{0};
  bool told_blocked_ = false;
  std::uint64_t rebuilt_items_ = 0;

  std::atomic<bool> stopping_{false};
  std::atomic<std::int64_t> as_of_ms_{0};
  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<std::uint64_t> users_{0};
  std::atomic<std::uint64_t> applied_records_{0};
  std::atomic<std::uint64_t> applied_batches_{0};
  std::thread thread_;
  mutable std::mutex mu_;
  Status status_;        // guarded by mu_
  OwnedItems owned_;     // guarded by mu_
  std::string blocked_;  // guarded by mu_

  std::mutex rest_mu_;
  std::condition_variable rested_;
  // Guarded by rest_mu_:
  bool applying_ = false;
  const std::function<Status()>* rest_work_ = nullptr;
  Status rest_result_;
};

}  // namespace freshet
