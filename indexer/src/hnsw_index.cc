#include "hnsw_index.h"

#include <algorithm>
#include <chrono>
#include <exception>

namespace freshet {
namespace {

constexpr std::chrono::seconds kSlotTimeout{30};

// Fresh rows first: what the worker links meanwhile is in the graph by the time that is looked at.
const std::vector<std::uint32_t>& FreshOf(const Segment& segment) {
  thread_local std::vector<std::uint32_t> fresh;
  fresh.clear();
  const std::uint64_t begin = segment.fresh_begin();
  const std::uint64_t end = segment.fresh_end();
  for (std::uint64_t number = begin; number < end; ++number) fresh.push_back(segment.Fresh(number));
  return fresh;
}

}  // namespace

Status Guarded(const char* what, const std::function<void()>& function) {
  try {
    function();
    return Status::Ok();
  } catch (const ScratchError& e) {
    return e.status();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat("no memory ", what));
  } catch (const std::exception& e) {
    return Internal(StrCat("the index, ", what, ": ", e.what()));
  }
}

HnswIndex::HnswIndex(const HnswOptions& options)
    : options_(options), segment_(std::make_shared<Segment>(options)), worker_([this] { Work(); }) {}

HnswIndex::~HnswIndex() {
  {
    const std::lock_guard lock(writer_mu_);
    stop_ = true;
  }
  work_.notify_all();
  worker_.join();
}

Status HnswIndex::Insert(std::span<const Label> labels, std::span<const float> vectors) {
  std::size_t done = 0;
  Status status;
  {
    std::unique_lock lock(writer_mu_);
    for (; done < labels.size() && status.ok(); ++done) {
      status = WaitForRoom(&lock);
      if (status.ok()) status = WaitForSlot(&lock);
      if (!status.ok()) break;
      status = Guarded("for a row of the index", [&] {
        if (const auto known = segment_->SlotOf(labels[done])) segment_->MarkDead(*known);
        auto slot = static_cast<std::uint32_t>(segment_->used());
        const bool again = !free_.empty();
        if (again) slot = free_.back();
        // What may fail comes first: a row is there whole or not at all.
        if (rebuilding_ && added_.size() == added_.capacity()) added_.reserve(2 * added_.size() + 64);
        segment_->Put(slot, labels[done], vectors.data() + done * static_cast<std::size_t>(options_.dim));
        segment_->PushFresh(slot);
        if (again) free_.pop_back();
        if (rebuilding_) added_.push_back(slot);
      });
      if (!status.ok()) break;
    }
  }
  work_.notify_one();
  if (!status.ok()) Tombstone(labels.first(done));  // all or nothing
  return status;
}

// What the worker cannot keep up with waits here: a fresh segment without a bound would slow every search.
Status HnswIndex::WaitForRoom(std::unique_lock<std::mutex>* lock) {
  if (segment_->fresh() >= options_.max_fresh) {
    work_.notify_one();
    progress_.wait(*lock, [&] { return !worker_status_.ok() || segment_->fresh() < options_.max_fresh; });
  }
  return worker_status_;
}

void HnswIndex::Tombstone(std::span<const Label> labels) {
  const std::lock_guard lock(writer_mu_);
  for (const Label label : labels) {
    if (const auto slot = segment_->SlotOf(label)) segment_->MarkDead(*slot);
  }
}

// The room of the dead is room too: it only has to be made. Bounded, since a cut that is held on to keeps it.
Status HnswIndex::WaitForSlot(std::unique_lock<std::mutex>* lock) {
  const auto has_slot = [&] { return !free_.empty() || segment_->used() < segment_->capacity(); };
  if (has_slot()) return Status::Ok();
  const auto full = [&] {
    return ResourceExhausted(StrCat("the index is full: ", segment_->capacity() - segment_->dead(), " of ",
                                    segment_->capacity(), " rows live (index.capacity)"));
  };
  if (segment_->dead() == 0) return full();
  wants_consolidation_ = true;
  work_.notify_one();
  (void)progress_.wait_for(*lock, kSlotTimeout, [&] { return !worker_status_.ok() || has_slot(); });
  if (!worker_status_.ok()) return worker_status_;
  return has_slot() ? Status::Ok() : full();
}

Status HnswIndex::Maintain() {
  std::unique_lock lock(writer_mu_);
  const auto used = static_cast<double>(segment_->used());
  const auto live = used - static_cast<double>(segment_->dead());
  const auto tombstones = static_cast<double>(segment_->dead() - free_.size());
  // Few rows are not worth it, nor is a little dead in many.
  if (tombstones >= 256 && tombstones > (1 - options_.min_live_fraction) * (live + tombstones)) {
    wants_consolidation_ = true;
  }
  if (used >= 4096 && live + static_cast<double>(segment_->fresh()) < 0.5 * used &&
      static_cast<double>(free_.size()) > used / 2) {
    wants_rebuild_ = true;  // to give memory back
  }
  if (HasWork()) work_.notify_one();
  return !worker_status_.ok() ? worker_status_ : std::exchange(maintain_status_, Status::Ok());
}

Status HnswIndex::Settle() {
  std::unique_lock lock(writer_mu_);
  progress_.wait(lock, [&] { return !worker_status_.ok() || (!working_ && !HasWork()); });
  return worker_status_;
}

Result<std::vector<Hit>> HnswIndex::Search(std::span<const float> query, const SearchOptions& options) const {
  FRESHET_TRY(CheckQuery(query, options_.dim));
  if (options.k == 0) return std::vector<Hit>{};
  std::vector<Hit> hits;
  FRESHET_TRY(Guarded("to search", [&] {
    const std::shared_ptr<const Segment> segment = Current();
    const ReadEpoch::Reader reader(segment->epoch());
    const std::vector<std::uint32_t>& fresh = FreshOf(*segment);
    hits = SearchGraph(segment->View(), fresh, query.data(), options);
  }));
  return hits;
}

Result<std::vector<std::vector<Hit>>> HnswIndex::SearchMany(std::span<const float> queries,
                                                            const SearchOptions& options) const {
  FRESHET_TRY(CheckQueries(queries, options_.dim));
  const auto dim = static_cast<std::size_t>(options_.dim);
  if (options.k == 0) return std::vector<std::vector<Hit>>(queries.size() / dim);
  std::vector<std::vector<Hit>> answers;
  FRESHET_TRY(Guarded("to search", [&] {
    const std::shared_ptr<const Segment> segment = Current();
    const ReadEpoch::Reader reader(segment->epoch());
    const std::vector<std::uint32_t>& fresh = FreshOf(*segment);
    answers = SearchGraphMany(segment->View(), fresh, queries, dim, options);
  }));
  return answers;
}

IndexStats HnswIndex::Stats() const {
  const std::lock_guard lock(writer_mu_);
  const Segment* segment = segment_.get();
  IndexStats stats;
  stats.slots = segment->used();
  stats.live = stats.slots - segment->dead();
  stats.tombstones = segment->dead() - free_.size();
  stats.fresh = segment->fresh();
  stats.capacity = segment->capacity();
  stats.memory_bytes = segment->memory_bytes();
  stats.rebuilds = rebuilds_;
  stats.consolidations = consolidations_;
  return stats;
}

std::vector<Label> HnswIndex::LiveLabels() const {
  const std::shared_ptr<const Segment> segment = Current();
  const ReadEpoch::Reader reader(segment->epoch());
  std::vector<Label> labels;
  const std::size_t used = segment->used();
  for (std::size_t slot = 0; slot < used; ++slot) {
    if (!segment->IsDead(slot)) labels.push_back(segment->label(slot));
  }
  std::sort(labels.begin(), labels.end());
  return labels;
}

std::shared_ptr<Segment> HnswIndex::Current() const {
  const std::lock_guard lock(current_mu_);
  return segment_;
}

Status HnswOptions::Validate() const {
  if (dim < 1 || dim > 4096) return ConfigError(StrCat("dim must be 1 to 4096, not ", dim));
  if (m < 2 || m > 128) return ConfigError(StrCat("index.m must be 2 to 128, not ", m));
  if (ef_construction < m || ef_construction > 4096) {
    return ConfigError(StrCat("index.ef_construction must be m to 4096, not ", ef_construction));
  }
  if (capacity < 64 || capacity > 1'000'000'000) return ConfigError("index.capacity must be 64 to 1,000,000,000");
  if (min_live_fraction < 0.1 || min_live_fraction > 0.99) {
    return ConfigError("index.min_live_fraction must be 0.1 to 0.99");
  }
  if (!(min_recall >= 0) || min_recall > 0.99) return ConfigError("index.min_recall must be 0 to 0.99");
  if (max_fresh < 1 || max_fresh > 1'000'000) return ConfigError("index.max_fresh must be 1 to 1,000,000");
  if (link_threads < 1 || link_threads > 256) return ConfigError("index.link_threads must be 1 to 256");
  if (!(slack >= 1) || slack > 4) return ConfigError("index.slack must be 1 to 4");
  return Status::Ok();
}

Result<std::unique_ptr<Index>> MakeHnswIndex(const HnswOptions& options) {
  FRESHET_TRY(options.Validate());
  std::unique_ptr<Index> index;
  FRESHET_TRY(Guarded("for the index", [&] { index = std::make_unique<HnswIndex>(options); }));
  return index;
}

}  // namespace freshet
