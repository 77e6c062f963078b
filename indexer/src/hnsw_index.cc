// The streaming index: a fresh segment that is scanned, a graph that is searched, one worker thread between them.
//
// Insert appends rows to the segment, where every search that starts later scans them: nothing waits for the graph. The
// worker moves them into the graph in short slices, during which searches wait; makes room by copying; and, when too
// much is dead, builds a new segment from the live rows beside the old one, which goes on taking adds and tombstones
// until the new one has caught up and takes its place.
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <shared_mutex>
#include <thread>

#include "freshet/core/file.h"
#include "freshet/indexer/index.h"
#include "scoring.h"
#include "segment.h"
#include "slice_lock.h"

namespace freshet {
namespace {

// A graph search jumps about in memory, a scan does not: beyond this share of the live rows the scan is cheaper.
constexpr std::size_t kScanFactor = 16;
constexpr std::size_t kFilterSamples = 128;
constexpr std::size_t kRescoredAtLeast = 32;

template <typename Function>
Status Guarded(const char* what, const Function& function) {
  try {
    function();
    return Status::Ok();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat("no memory ", what));
  } catch (const std::exception& e) {
    return Internal(StrCat("hnswlib, ", what, ": ", e.what()));
  }
}

class HnswIndex final : public Index {
 public:
  explicit HnswIndex(const HnswOptions& options)
      : options_(options),
        score_(options.metric, options.dim),
        codes_(options.metric, options.dim),
        segment_(std::make_shared<Segment>(&codes_, options, options.initial_capacity)),
        worker_([this] { Work(); }) {}

  ~HnswIndex() override {
    {
      const std::lock_guard lock(writer_mu_);
      stop_ = true;
    }
    work_.notify_all();
    worker_.join();
  }

  [[nodiscard]] int dim() const override { return options_.dim; }
  [[nodiscard]] Metric metric() const override { return options_.metric; }

  Status Insert(std::span<const Label> labels, std::span<const float> vectors) override {
    std::size_t done = 0;
    Status status;
    {
      std::unique_lock lock(writer_mu_);
      while (done < labels.size()) {
        if (segment_->used() == segment_->capacity() && grow_status_.ok()) wants_room_ = true;
        if (wants_room_ || Fresh() >= options_.max_fresh) {
          // What the worker cannot keep up with waits here: a fresh segment without a bound would slow every search.
          work_.notify_one();
          progress_.wait(lock, [&] { return !worker_status_.ok() || (!wants_room_ && Fresh() < options_.max_fresh); });
        }
        status = !worker_status_.ok() ? worker_status_ : std::exchange(grow_status_, Status::Ok());
        if (!status.ok()) break;
        segment_->Append(labels[done], vectors.data() + done * static_cast<std::size_t>(options_.dim));
        ++done;
      }
    }
    work_.notify_one();
    if (!status.ok()) Tombstone(labels.first(done));  // all or nothing
    return status;
  }

  void Tombstone(std::span<const Label> labels) override {
    const std::lock_guard lock(writer_mu_);
    for (const Label label : labels) {
      if (const auto slot = segment_->SlotOf(label)) segment_->MarkDead(*slot);
    }
  }

  Status Maintain() override {
    std::unique_lock lock(writer_mu_);
    const std::size_t used = segment_->used();
    const std::size_t live = used - segment_->dead();
    if (used >= options_.initial_capacity / 4 &&
        static_cast<double>(live) < options_.min_live_fraction * static_cast<double>(used)) {
      wants_rebuild_ = true;
      work_.notify_one();
    }
    return !worker_status_.ok() ? worker_status_ : std::exchange(rebuild_status_, Status::Ok());
  }

  Status Settle() override {
    std::unique_lock lock(writer_mu_);
    progress_.wait(lock, [&] { return !worker_status_.ok() || !HasWork(); });
    return worker_status_;
  }

  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    FRESHET_TRY(CheckQuery(query, options_.dim));
    if (options.k == 0) return std::vector<Hit>{};
    std::vector<Hit> hits;
    FRESHET_TRY(Guarded("to search", [&] { hits = SearchSegment(*Current(), query.data(), options); }));
    return hits;
  }

  [[nodiscard]] IndexStats Stats() const override {
    const std::shared_ptr<const Segment> segment = Current();
    IndexStats stats;
    const std::size_t linked = segment->linked();
    stats.tombstones = segment->dead();
    const std::size_t used = segment->used();
    stats.live = used - stats.tombstones;
    stats.fresh = used - linked;
    stats.capacity = segment->capacity();
    stats.memory_bytes = segment->memory_bytes();
    stats.rebuilds = rebuilds_;
    return stats;
  }

  [[nodiscard]] Result<std::unique_ptr<IndexCut>> Cut() override {
    return FailedPrecondition("this kind of index has no file format yet: it is rebuilt from the store");
  }

  [[nodiscard]] std::vector<Label> LiveLabels() const override {
    const std::shared_ptr<const Segment> segment = Current();
    std::vector<Label> labels;
    const std::size_t used = segment->used();
    for (std::size_t slot = 0; slot < used; ++slot) {
      if (!segment->IsDead(slot)) labels.push_back(segment->label(slot));
    }
    std::sort(labels.begin(), labels.end());
    return labels;
  }

 private:
  [[nodiscard]] std::shared_ptr<const Segment> Current() const {
    const std::lock_guard lock(current_mu_);
    return segment_;
  }

  // --- Searching.

  [[nodiscard]] std::vector<Hit> SearchSegment(const Segment& segment, const float* query,
                                               const SearchOptions& options) const {
    const std::size_t wanted =
        options.ef > 0 ? std::max(options.ef, options.k) : std::max(options.k + options.k / 2, std::size_t{64});
    TopK top(options);
    // What is not in the graph is scanned: all that came after the graph was searched, or everything.
    const std::size_t begin = options.exact ? 0 : OfferGraph(segment, wanted, query, options, &top);
    Scan(segment, begin, segment.used(), query, &top);
    return top.Take();
  }

  void Scan(const Segment& segment, std::size_t begin, std::size_t end, const float* query, TopK* top) const {
    for (std::size_t slot = begin; slot < end; ++slot) {
      if (!segment.IsDead(slot)) top->Offer(segment.label(slot), score_(query, segment.Vector(slot)));
    }
  }

  // Offers the best of what the graph holds, exactly scored, and returns the first slot that is not in it; or offers
  // nothing and returns 0, where a scan is cheaper.
  std::size_t OfferGraph(const Segment& segment, std::size_t wanted, const float* query, const SearchOptions& options,
                         TopK* top) const {
    const auto live = static_cast<double>(segment.used() - segment.dead());
    const double share = MatchingShare(segment, options.filter);
    auto width = static_cast<double>(wanted) / std::max(share, 1e-9);
    // The codes put nearly everything in its place: a few more than k are enough to score exactly.
    const std::size_t rescored = std::min(wanted, options.k + std::max(options.k / 4, kRescoredAtLeast));
    std::size_t linked = 0;
    thread_local std::vector<std::uint32_t> matching;
    for (;; width *= 2) {
      if (width * kScanFactor > live) return 0;
      matching.clear();
      const std::shared_lock lock(graph_lock_);
      linked = segment.linked();
      for (const Candidate& candidate : segment.graph().Search(query, static_cast<std::size_t>(width))) {
        for (std::uint32_t slot = candidate.slot; slot != kNoSlot; slot = segment.NextSame(slot)) {
          if (segment.IsDead(slot)) continue;
          if (options.filter == nullptr || options.filter->Allows(segment.label(slot))) matching.push_back(slot);
        }
        if (matching.size() >= rescored) break;
      }
      // Dead or excluded ones gather where the query looks: then the search widens.
      if (matching.size() >= options.k + (rescored - options.k) / 2) break;
    }
    std::vector<Hit> hits;
    hits.reserve(matching.size());
    for (std::size_t i = 0; i < matching.size(); ++i) {
      if (i + kAhead < matching.size()) Prefetch(segment, matching[i + kAhead]);
      hits.push_back({segment.label(matching[i]), score_(query, segment.Vector(matching[i]))});
    }
    top->Fill(std::move(hits));
    return linked;
  }

  static constexpr std::size_t kAhead = 4;
  void Prefetch(const Segment& segment, std::size_t slot) const {
    const auto* row = reinterpret_cast<const char*>(segment.Vector(slot));
    const std::size_t bytes = std::min<std::size_t>(static_cast<std::size_t>(options_.dim) * sizeof(float), 512);
    for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
  }

  // About how many of the graph's slots may be returned, from a sample.
  static double MatchingShare(const Segment& segment, const LabelFilter* filter) {
    const std::size_t linked = segment.linked();
    if (linked == 0) return 0;
    if (filter == nullptr && segment.dead() == 0) return 1;
    const std::size_t samples = std::min(linked, kFilterSamples);
    std::size_t matching = 0;
    for (std::size_t i = 0; i < samples; ++i) {
      const std::size_t slot = i * linked / samples;
      if (!segment.IsDead(slot) && (filter == nullptr || filter->Allows(segment.label(slot)))) ++matching;
    }
    return static_cast<double>(matching) / static_cast<double>(samples);
  }

  // --- The worker.

  // REQUIRES: writer_mu_.
  [[nodiscard]] std::size_t Fresh() const { return segment_->used() - segment_->linked(); }
  [[nodiscard]] bool HasWork() const { return wants_room_ || wants_rebuild_ || rebuilding_ || Fresh() > 0; }

  // One bounded piece of work after the other, so that stopping and making room never wait for long.
  void Work() {
    std::unique_lock lock(writer_mu_);
    while (true) {
      work_.wait(lock, [&] { return stop_ || (worker_status_.ok() && HasWork()); });
      if (stop_) return;
      const bool room = wants_room_;
      if (wants_rebuild_ && shadow_ == nullptr) {
        rebuild_status_ = Guarded("to rebuild the index; the old one keeps serving", [&] {
          const std::size_t live = segment_->used() - segment_->dead();
          shadow_ = std::make_shared<Segment>(&codes_, options_, std::max(options_.initial_capacity, 2 * live));
          origins_.clear();
          copied_ = 0;
        });
      }
      wants_rebuild_ = false;
      rebuilding_ = shadow_ != nullptr;
      lock.unlock();
      const Status grown = room ? Guarded("for the index to grow", [&] { Grow(); }) : Status::Ok();
      const Status linked = Guarded("to link into the graph", [&] { LinkSlice(); });
      const Status rebuilt = shadow_ == nullptr
                                 ? Status::Ok()
                                 : Guarded("to rebuild the index; the old one keeps serving", [&] { ShadowSlice(); });
      lock.lock();
      if (room) {
        wants_room_ = false;
        grow_status_ = grown;
      }
      // A graph whose insert failed half-way is not touched again: it answers, and what it lacks is scanned.
      if (!linked.ok()) worker_status_ = linked;
      if (!rebuilt.ok()) {
        rebuild_status_ = rebuilt;
        shadow_.reset();
      }
      rebuilding_ = shadow_ != nullptr;
      progress_.notify_all();
    }
  }

  // Twice the room, by copying. Nothing is appended meanwhile: the one writer waits for it in Insert.
  void Grow() {
    auto larger = std::make_shared<Segment>(options_, *segment_, 2 * segment_->capacity());
    const std::lock_guard lock(writer_mu_);
    Replace(std::move(larger));
  }

  // REQUIRES: writer_mu_. Searches that are under way keep what they have.
  void Replace(std::shared_ptr<Segment> segment) {
    const std::lock_guard lock(current_mu_);
    segment_.swap(segment);
  }

  void LinkSlice() {
    if (segment_->linked() == segment_->used()) return;
    const std::unique_lock lock(graph_lock_);
    for (std::size_t i = 0; i < options_.write_slice && segment_->linked() < segment_->used(); ++i) {
      segment_->LinkNext();
    }
  }

  // A few live rows of the segment into the shadow; at the end, the swap.
  void ShadowSlice() {
    for (std::size_t i = 0; i < options_.write_slice && copied_ < segment_->used(); ++i) {
      CopyToShadow();
      while (shadow_->linked() < shadow_->used()) shadow_->LinkNext();
    }
    if (copied_ + options_.max_fresh / 2 < segment_->used()) return;
    const std::lock_guard lock(writer_mu_);
    // The rest is copied without being linked: it is the new segment's fresh part.
    while (copied_ < segment_->used()) CopyToShadow();
    for (std::size_t slot = 0; slot < origins_.size(); ++slot) {
      if (segment_->IsDead(origins_[slot])) shadow_->MarkDead(slot);
    }
    Replace(std::move(shadow_));
    shadow_ = nullptr;
    ++rebuilds_;
  }

  void CopyToShadow() {
    const std::size_t slot = copied_;
    if (!segment_->IsDead(slot)) {
      if (shadow_->used() == shadow_->capacity()) {
        shadow_ = std::make_shared<Segment>(options_, *shadow_, 2 * shadow_->capacity());
      }
      origins_.push_back(static_cast<std::uint32_t>(slot));
      shadow_->Append(segment_->label(slot), segment_->Vector(slot));
    }
    ++copied_;
  }

  const HnswOptions options_;
  const Scorer score_;
  const Int8Codes codes_;

  // Shared: a search of a graph. Exclusive: a write slice of the worker.
  mutable SliceLock graph_lock_;
  // Replaced by the worker under writer_mu_ and current_mu_; so the worker may read it without, the writer with
  // writer_mu_, searches with current_mu_.
  std::shared_ptr<Segment> segment_;
  mutable std::mutex current_mu_;

  std::mutex writer_mu_;
  std::condition_variable work_;
  std::condition_variable progress_;
  // Guarded by writer_mu_:
  bool stop_ = false;
  bool wants_room_ = false;
  bool wants_rebuild_ = false;
  bool rebuilding_ = false;
  Status worker_status_;   // not ok: the worker has given up
  Status grow_status_;     // of the last growth, until Insert has told it
  Status rebuild_status_;  // of the last rebuild, until Maintain has told it
  // Worker only:
  std::shared_ptr<Segment> shadow_;
  std::vector<std::uint32_t> origins_;  // by slot of the shadow: the slot in the segment
  std::size_t copied_ = 0;              // slots of the segment that the shadow has or needs not

  std::atomic<std::size_t> rebuilds_{0};
  std::thread worker_;
};

}  // namespace

Status HnswOptions::Validate() const {
  if (dim < 1 || dim > 4096) return ConfigError(StrCat("dim must be 1 to 4096, not ", dim));
  if (m < 2 || m > 128) return ConfigError(StrCat("index.m must be 2 to 128, not ", m));
  if (ef_construction < m || ef_construction > 4096) {
    return ConfigError(StrCat("index.ef_construction must be m to 4096, not ", ef_construction));
  }
  if (initial_capacity < 64) return ConfigError("index.initial_capacity must be at least 64");
  if (min_live_fraction < 0.1 || min_live_fraction > 0.95) {
    return ConfigError("index.min_live_fraction must be 0.1 to 0.95");
  }
  if (write_slice < 1) return ConfigError("index.write_slice must be at least 1");
  if (max_fresh < 1) return ConfigError("index.max_fresh must be at least 1");
  return Status::Ok();
}

Result<std::unique_ptr<Index>> MakeHnswIndex(const HnswOptions& options) {
  FRESHET_TRY(options.Validate());
  std::unique_ptr<Index> index;
  FRESHET_TRY(Guarded("for the index", [&] { index = std::make_unique<HnswIndex>(options); }));
  return index;
}

Result<std::unique_ptr<Index>> OpenHnswIndex(const std::string& path, const HnswOptions&) {
  if (!FileExists(path)) return NotFound(path + ": no such file");
  return FailedPrecondition(path + ": this kind of index has no file format yet");
}

}  // namespace freshet
