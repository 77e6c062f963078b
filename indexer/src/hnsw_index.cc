#include "hnsw_index.h"

#include <algorithm>
#include <exception>

#include "freshet/core/file.h"

namespace freshet {
namespace {

// A graph search jumps about in memory, a scan does not: beyond this share of the live rows the scan is cheaper.
constexpr std::size_t kScanFactor = 16;
constexpr std::size_t kFilterSamples = 128;
constexpr std::size_t kRescoredAtLeast = 32;

// What a search needs, kept by its thread: a search allocates little once this is warm.
struct Scratch {
  GraphWalk walk;
  std::vector<std::int8_t> query;
  std::vector<std::uint32_t> fresh;
  std::vector<std::uint32_t> matching;
};

// About how many of the graph's nodes may be returned, from a sample.
double MatchingShare(const Segment& segment, const LabelFilter* filter) {
  if (filter == nullptr && segment.dead() == 0) return 1;
  const std::size_t used = segment.used();
  const std::size_t samples = std::min(used, kFilterSamples);
  std::size_t nodes = 0;
  std::size_t matching = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    const std::size_t slot = i * used / samples;
    if (!segment.IsNode(slot)) continue;
    ++nodes;
    if (!segment.IsDead(slot) && (filter == nullptr || filter->Allows(segment.label(slot)))) ++matching;
  }
  return static_cast<double>(matching) / static_cast<double>(std::max<std::size_t>(nodes, 1));
}

void Prefetch(const Segment& segment, std::size_t slot) {
  const auto* row = reinterpret_cast<const char*>(segment.RerankRow(slot));
  const std::size_t bytes = std::min<std::size_t>(segment.reranker().row_bytes(), 512);
  for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
}

void ScanAll(const Segment& segment, const float* query, TopK* top) {
  const std::size_t used = segment.used();
  for (std::size_t slot = 0; slot < used; ++slot) {
    if (!segment.IsDead(slot)) top->Offer(segment.label(slot), segment.Score(query, slot));
  }
}

// The best of what the graph holds, exactly scored, but for what is in scratch->fresh; nothing where a scan is cheaper.
std::optional<std::vector<Hit>> GraphHits(const Segment& segment, const float* query, const SearchOptions& options,
                                          Scratch* scratch) {
  const std::size_t wanted =
      options.ef > 0 ? std::max(options.ef, options.k) : std::max(options.k + options.k / 2, std::size_t{64});
  const auto live = static_cast<double>(segment.used() - segment.dead());
  auto width = static_cast<double>(wanted) / std::max(MatchingShare(segment, options.filter), 1e-9);
  // The codes put nearly everything in its place: a few more than k are enough to score exactly.
  const std::size_t rescored = std::min(wanted, options.k + std::max(options.k / 4, kRescoredAtLeast));
  scratch->query.resize(segment.codes().row_bytes());
  const CodeHead head = segment.codes().Encode(query, scratch->query.data(), nullptr);
  std::vector<std::uint32_t>& matching = scratch->matching;
  for (;; width *= 2) {
    if (width * kScanFactor > live) return std::nullopt;
    matching.clear();
    const GraphView view = segment.View();
    GraphWalk& walk = scratch->walk;
    if (!view.Begin(scratch->query.data(), head, static_cast<std::size_t>(width), &walk)) return std::nullopt;
    while (walk.Step(view.base)) {
    }
    for (std::size_t i = 0; i < walk.size() && matching.size() < rescored; ++i) {
      for (std::uint32_t slot = NodeOf(walk.pool()[i]); slot != kNoSlot; slot = segment.NextSame(slot)) {
        if (segment.IsDead(slot)) continue;
        if (options.filter == nullptr || options.filter->Allows(segment.label(slot))) matching.push_back(slot);
      }
    }
    // Dead or excluded ones gather where the query looks: then the search widens.
    if (matching.size() >= options.k + (rescored - options.k) / 2) break;
  }
  if (!scratch->fresh.empty()) {
    std::erase_if(matching, [&](std::uint32_t slot) {
      return std::binary_search(scratch->fresh.begin(), scratch->fresh.end(), slot);
    });
  }
  constexpr std::size_t kAhead = 8;
  for (std::size_t i = 0; i < std::min(kAhead, matching.size()); ++i) Prefetch(segment, matching[i]);
  std::vector<Hit> hits;
  hits.reserve(matching.size());
  for (std::size_t i = 0; i < matching.size(); ++i) {
    if (i + kAhead < matching.size()) Prefetch(segment, matching[i + kAhead]);
    hits.push_back({segment.label(matching[i]), segment.Score(query, matching[i])});
  }
  return hits;
}

std::vector<Hit> SearchSegment(const Segment& segment, const float* query, const SearchOptions& options) {
  thread_local Scratch scratch;
  const ReadEpoch::Reader reader(segment.epoch());
  TopK top(options);
  // Fresh rows first: what the worker links meanwhile is in the graph by the time that is searched.
  scratch.fresh.clear();
  const std::uint64_t end = segment.fresh_end();
  for (std::uint64_t number = segment.fresh_begin(); number < end; ++number) {
    scratch.fresh.push_back(segment.Fresh(number));
  }
  std::sort(scratch.fresh.begin(), scratch.fresh.end());
  std::optional<std::vector<Hit>> hits;
  if (!options.exact) hits = GraphHits(segment, query, options, &scratch);
  if (!hits) {
    ScanAll(segment, query, &top);
    return top.Take();
  }
  top.Fill(std::move(*hits));
  for (const std::uint32_t slot : scratch.fresh) {
    if (!segment.IsDead(slot)) top.Offer(segment.label(slot), segment.Score(query, slot));
  }
  return top.Take();
}

}  // namespace

Status Guarded(const char* what, const std::function<void()>& function) {
  try {
    function();
    return Status::Ok();
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
      if (segment_->fresh() >= options_.max_fresh) {
        // What the worker cannot keep up with waits here: a fresh segment without a bound would slow every search.
        work_.notify_one();
        progress_.wait(lock, [&] { return !worker_status_.ok() || segment_->fresh() < options_.max_fresh; });
      }
      if (!worker_status_.ok()) {
        status = worker_status_;
        break;
      }
      status = Guarded("for a row of the index", [&] {
        if (const auto known = segment_->SlotOf(labels[done])) segment_->MarkDead(*known);
        auto slot = static_cast<std::uint32_t>(segment_->used());
        if (!free_.empty()) {
          slot = free_.back();
          free_.pop_back();
        } else if (slot == segment_->capacity()) {
          throw std::bad_alloc();
        }
        segment_->Put(slot, labels[done], vectors.data() + done * static_cast<std::size_t>(options_.dim));
        segment_->PushFresh(slot);
        if (rebuilding_) added_.push_back(slot);
      });
      if (!status.ok()) break;
    }
  }
  work_.notify_one();
  if (!status.ok()) Tombstone(labels.first(done));  // all or nothing
  return status;
}

void HnswIndex::Tombstone(std::span<const Label> labels) {
  const std::lock_guard lock(writer_mu_);
  for (const Label label : labels) {
    if (const auto slot = segment_->SlotOf(label)) segment_->MarkDead(*slot);
  }
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
  FRESHET_TRY(Guarded("to search", [&] { hits = SearchSegment(*Current(), query.data(), options); }));
  return hits;
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

Result<std::unique_ptr<IndexCut>> HnswIndex::Cut() {
  return FailedPrecondition("this kind of index has no file format yet: it is rebuilt from the store");
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

Result<std::unique_ptr<Index>> OpenHnswIndex(const std::string& path, const HnswOptions& /*options*/) {
  if (!FileExists(path)) return NotFound(path + ": no such file");
  return FailedPrecondition(path + ": this kind of index has no file format yet");
}

}  // namespace freshet
