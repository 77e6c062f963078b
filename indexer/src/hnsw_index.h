// The streaming index: a fresh segment that is scanned, a graph that is searched, one worker thread between them.
//
// Insert writes rows, which every search that starts later scans: nothing waits for the graph. The worker links them
// into it, which no search ever waits for; and when enough is dead, it goes through the graph in slices, leads what
// leads to the dead around them, and frees their slots for new rows. Where that does not help (most of the slots are
// free, or recall fell), it builds a new segment from the live rows beside the old one, which goes on serving, adding
// and deleting until the new one takes its place.
// Errors: what the worker has no memory for it tries again, later each time, and a rebuild that fails leaves the old
// segment; Stats() tells both. Only what it cannot explain ends it, which Insert, Maintain and Settle return.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "consolidation.h"
#include "filter_memo.h"
#include "freshet/indexer/index.h"
#include "guarded.h"
#include "index_file.h"
#include "read_epoch.h"
#include "rebuild_policy.h"
#include "scoring.h"
#include "segment.h"
#include "throttle.h"

namespace freshet {

// Nodes that the worker links at most before it goes on with taking out the dead.
[[nodiscard]] std::size_t LinkedAtOnce(const HnswOptions& options);

class HnswIndex final : public Index {
 public:
  explicit HnswIndex(const HnswOptions& options) : HnswIndex(options, Throttle::OfShare(options.rebuild_cpu_share)) {}
  // For tests: how long a rebuild rests, and how long at most Insert and cuts wait for the worker.
  HnswIndex(const HnswOptions& options, Throttle::Rule rebuild_rest,
            std::chrono::milliseconds longest_wait = std::chrono::seconds(30));
  ~HnswIndex() override;

  [[nodiscard]] int dim() const override { return options_.dim; }
  [[nodiscard]] Metric metric() const override { return options_.metric; }
  [[nodiscard]] std::size_t attribute_words() const override { return options_.attribute_words; }
  Status Insert(std::span<const Label> labels, std::span<const float> vectors,
                std::span<const std::uint64_t> attributes = {}) override;
  void Tombstone(std::span<const Label> labels) override;
  void Reconsider(std::span<const Label> labels) override;
  [[nodiscard]] std::uint64_t Changes() const override;
  Status Maintain() override;
  Status Settle() override;
  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override;
  [[nodiscard]] Result<std::vector<std::vector<Hit>>> SearchMany(std::span<const float> queries,
                                                                 const SearchOptions& options) const override;
  [[nodiscard]] IndexStats Stats() const override;
  [[nodiscard]] std::vector<Label> LiveLabels() const override;
  [[nodiscard]] std::vector<Label> LiveLabelsFrom(Label from, std::size_t max) const override;
  [[nodiscard]] Result<IndexHealth> Audit(const AuditOptions& options) override;
  // The index outlives the cut.
  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override;
  // REQUIRES: nothing is in it yet; the file was validated whole.
  Status Load(const IndexFile& file);
  void Unpin();  // a cut is gone
  // While one is there, the graph stays as it is, unless rows would wait for room: then they are linked all the same.
  class LinkingPaused {
   public:
    explicit LinkingPaused(HnswIndex* index);
    ~LinkingPaused();
    LinkingPaused(const LinkingPaused&) = delete;
    LinkingPaused& operator=(const LinkingPaused&) = delete;
    // Errors: kDeadlineExceeded, when the worker did not come to the end of what it was at.
    [[nodiscard]] const Status& status() const { return status_; }

   private:
    HnswIndex* const index_;
    Status status_;
  };

 private:
  using Clock = std::chrono::steady_clock;
  // A segment that is being made of the live rows, beside the one that serves. Worker only.
  struct Rebuild {
    std::shared_ptr<Segment> shadow;
    std::vector<std::uint64_t> dead_before;  // by slot: what was no row of the old one when it began
    std::size_t before = 0;                  // its slots then
    std::size_t cursor = 0;                  // the next of them to be copied
    std::vector<std::uint32_t> added;        // slots written since, in order
    std::size_t added_copied = 0;
  };
  // What the worker does in one go, decided under the lock.
  struct Round {
    bool paused = false;
    bool pinned = false;
    bool consolidate = false;  // begins
    bool rebuild = false;      // begins
    bool rests = false;        // the one that is under way does
  };

  // REQUIRES for these five: writer_mu_.
  void PutRow(Label label, const float* vector, std::span<const std::uint64_t> attributes);
  void Kill(std::uint32_t slot);
  Status WaitForRoom(std::unique_lock<std::mutex>* lock);
  Status WaitForSlot(std::unique_lock<std::mutex>* lock);
  [[nodiscard]] Status Full() const;
  // What is remembered of the filter goes into the view, for this thread's search.
  [[nodiscard]] SearchView ViewFor(const Segment& segment, const SearchOptions& options) const;
  void KeepToMemory();
  void WantRebuild(bool for_quality, std::string because);
  Status AuditInto(const AuditOptions& options, IndexHealth* health);
  class Pieces;
  Status FindUnreachable(const Segment& segment, Pieces* pieces, std::vector<std::uint32_t>* live,
                         std::vector<std::uint32_t>* unreachable);
  Status BestOfAll(const Segment& segment, const std::vector<float>& probe, std::size_t k, Pieces* pieces,
                   std::vector<float>* scores) const;
  Status ProbeRecall(const Segment& segment, const AuditOptions& options, std::span<const std::vector<float>> probes,
                     Pieces* pieces, std::vector<double>* recalls) const;

  // --- The worker (hnsw_worker.cc, hnsw_rebuild.cc).
  void Work();
  // REQUIRES for all seven: writer_mu_.
  [[nodiscard]] bool HasWork() const;
  [[nodiscard]] bool IsWaitedFor() const;
  [[nodiscard]] bool RebuildRests() const;
  [[nodiscard]] bool OnlyRests() const;
  void WaitForWork(std::unique_lock<std::mutex>* lock);
  [[nodiscard]] Round NextRound();
  void NoteRound(const Round& round, Status status);
  Status DoRound(const Round& round);
  [[nodiscard]] bool IsBehind();
  void LinkFresh();
  void LinkAll(Segment* segment, const std::vector<std::uint32_t>& slots);
  void FreeSlots();
  void RebuildPart(bool begin);
  void BeginRebuild();
  void RebuildSlice();
  void CopyRow(std::uint32_t slot);
  void TakeDeaths(const std::vector<Label>& died);
  [[nodiscard]] std::shared_ptr<Segment> FinishRebuild();

  const HnswOptions options_;
  const std::chrono::milliseconds longest_wait_;
  // Replaced by the worker, under writer_mu_; so the worker may read it without. Searches read current_, within epoch_.
  std::shared_ptr<Segment> segment_;
  std::atomic<const Segment*> current_;
  // Held by each search: meanwhile no slot is freed, and no segment.
  mutable ReadEpoch epoch_;
  mutable FilterMemo filter_memo_;

  mutable std::mutex writer_mu_;
  std::condition_variable work_;
  std::condition_variable progress_;
  // Guarded by writer_mu_:
  bool stop_ = false;
  bool working_ = false;   // the worker is at something
  bool changing_ = false;  // at something that is not done during a pause
  bool wants_consolidation_ = false;
  bool wants_rebuild_ = false;
  bool consolidating_ = false;
  bool rebuilding_ = false;
  bool has_limbo_ = false;
  bool has_relinks_ = false;           // of relinking_
  std::size_t slot_waits_ = 0;         // inserts that wait for a slot
  std::size_t pins_ = 0;               // cuts under way: no slot is freed
  std::size_t paused_ = 0;             // cuts whose graph is being written
  std::vector<std::uint32_t> free_;    // slots for new rows
  std::vector<std::uint32_t> added_;   // slots that were written since the rebuild last looked
  std::vector<Label> died_;            // labels whose row died since then
  bool lost_deaths_ = false;           // there was no memory for one: the rebuild is void
  std::vector<std::uint32_t> relink_;  // nodes that the last audit could not reach
  Status worker_status_;               // not ok: the worker has given up
  Status trouble_;                     // not ok: what there was no memory for, and is tried again at retry_at_
  Status last_trouble_;                // of before
  Clock::time_point retry_at_{};
  Clock::duration retry_wait_{0};
  RebuildPolicy policy_;
  Throttle throttle_;                // of a rebuild
  bool wanted_for_quality_ = false;  // the rebuild that is wanted
  std::string wanted_because_;
  Status rebuild_failure_;
  IndexStats told_;  // of its fields those that count what happened

  // Worker only:
  Consolidation consolidation_;
  // Fresh rows that are on their way into the graph, until all of them are: what fails is gone on with.
  struct {
    std::size_t count = 0;
    std::size_t looked_at = 0;
    std::vector<std::uint32_t> nodes;
    std::vector<std::uint32_t> dead;
  } batch_;
  std::vector<std::uint32_t> relinking_;  // of relink_, those that are left
  std::optional<Rebuild> rebuild_;

  std::thread worker_;
};

}  // namespace freshet
