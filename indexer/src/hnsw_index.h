// The streaming index: a fresh segment that is scanned, a graph that is searched, one worker thread between them.
//
// Insert writes rows, which every search that starts later scans: nothing waits for the graph. The worker links them
// into it, which no search ever waits for; and when enough is dead, it goes through the graph in slices, leads what
// leads to the dead around them, and frees their slots for new rows. Where that does not help (most of the slots are
// free, or recall fell), it builds a new segment from the live rows beside the old one, which goes on serving, adding
// and deleting until the new one takes its place.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "freshet/indexer/index.h"
#include "index_file.h"
#include "scoring.h"
#include "segment.h"

namespace freshet {

// Exceptions of the allocator as values.
Status Guarded(const char* what, const std::function<void()>& function);

class HnswIndex final : public Index {
 public:
  explicit HnswIndex(const HnswOptions& options);
  ~HnswIndex() override;

  [[nodiscard]] int dim() const override { return options_.dim; }
  [[nodiscard]] Metric metric() const override { return options_.metric; }
  Status Insert(std::span<const Label> labels, std::span<const float> vectors) override;
  void Tombstone(std::span<const Label> labels) override;
  Status Maintain() override;
  Status Settle() override;
  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override;
  [[nodiscard]] Result<std::vector<std::vector<Hit>>> SearchMany(std::span<const float> queries,
                                                                 const SearchOptions& options) const override;
  [[nodiscard]] IndexStats Stats() const override;
  [[nodiscard]] std::vector<Label> LiveLabels() const override;
  [[nodiscard]] Result<IndexHealth> Audit(const AuditOptions& options) override;
  // The index outlives the cut.
  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override;
  // REQUIRES: nothing is in it yet; the file was validated whole.
  Status Load(const IndexFile& file);
  void Unpin();  // a cut is gone
  // While one is there, the graph stays as it is.
  class LinkingPaused {
   public:
    explicit LinkingPaused(HnswIndex* index);
    ~LinkingPaused();
    LinkingPaused(const LinkingPaused&) = delete;
    LinkingPaused& operator=(const LinkingPaused&) = delete;

   private:
    HnswIndex* const index_;
  };

 private:
  [[nodiscard]] std::shared_ptr<Segment> Current() const;
  Status WaitForRoom(std::unique_lock<std::mutex>* lock);
  Status WaitForSlot(std::unique_lock<std::mutex>* lock);

  // --- The worker (hnsw_worker.cc).
  void Work();
  [[nodiscard]] bool IsBehind();
  void LinkFresh();
  void LinkAll(Segment* segment, const std::vector<std::uint32_t>& slots);
  void BeginConsolidation();
  void ConsolidateSlice();
  void FreeSlots();
  void BeginRebuild();
  void RebuildSlice();
  // REQUIRES: writer_mu_.
  [[nodiscard]] bool HasWork() const;

  const HnswOptions options_;
  // Replaced by the worker under writer_mu_ and current_mu_; so the worker may read it without, the writer with
  // writer_mu_, searches with current_mu_.
  std::shared_ptr<Segment> segment_;
  mutable std::mutex current_mu_;

  mutable std::mutex writer_mu_;
  std::condition_variable work_;
  std::condition_variable progress_;
  // Guarded by writer_mu_:
  bool stop_ = false;
  bool working_ = false;  // the worker is at something
  bool wants_consolidation_ = false;
  bool wants_rebuild_ = false;
  bool consolidating_ = false;
  bool rebuilding_ = false;
  bool has_limbo_ = false;
  std::size_t pins_ = 0;               // cuts under way: no slot is freed
  std::size_t paused_ = 0;             // cuts whose graph is being written: nothing is linked or unlinked
  std::vector<std::uint32_t> free_;    // slots for new rows
  std::vector<std::uint32_t> added_;   // slots that were written since the rebuild began
  std::vector<std::uint32_t> relink_;  // nodes that an audit could not reach
  Status worker_status_;               // not ok: the worker has given up
  Status maintain_status_;             // of the last rebuild, until Maintain has told it

  // Worker only:
  std::vector<std::uint64_t> gone_;   // by slot: what the consolidation takes out; empty: none is under way
  std::size_t cursor_ = 0;            // the next slot it looks at
  bool unlinked_ = false;             // all of gone_ is out of the graph, and its slots wait to be freed
  std::vector<std::uint32_t> limbo_;  // slots to be freed beside gone_
  std::vector<std::uint32_t> linked_meanwhile_;
  std::vector<std::uint32_t> isolated_;  // nodes that led to nothing but gone_
  std::shared_ptr<Segment> shadow_;      // the rebuild's
  std::vector<std::pair<std::uint32_t, Label>> to_copy_;
  std::size_t copied_ = 0;

  std::atomic<std::size_t> rebuilds_{0};
  std::atomic<std::size_t> consolidations_{0};
  std::thread worker_;
};

}  // namespace freshet
