#include "hnsw_index.h"

#include <algorithm>
#include <chrono>
#include <new>

namespace freshet {
namespace {

constexpr double kFewDead = 256;              // are not worth taking out, nor is a little dead in many
constexpr double kLiveWhenOverMemory = 0.95;  // the live fraction that is kept to then, if the bound of it is lower

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

HnswIndex::HnswIndex(const HnswOptions& options, Throttle::Rule rebuild_rest, std::chrono::milliseconds longest_wait)
    : options_(options),
      longest_wait_(longest_wait),
      segment_(std::make_shared<Segment>(options)),
      current_(segment_.get()),
      filter_memo_(options.filter_memo_bytes),
      throttle_(std::move(rebuild_rest)),
      consolidation_(segment_.get(), LinkedAtOnce(options)),
      worker_([this] { Work(); }) {}

HnswIndex::~HnswIndex() {
  {
    const std::lock_guard lock(writer_mu_);
    stop_ = true;
  }
  work_.notify_all();
  worker_.join();
}

Status HnswIndex::Insert(std::span<const Label> labels, std::span<const float> vectors,
                         std::span<const std::uint64_t> attributes) {
  const std::size_t words = attributes.empty() ? 0 : options_.attribute_words;
  FRESHET_TRY(CheckAttributes(attributes, labels.size(), options_.attribute_words));
  std::size_t done = 0;
  // Labels that are live already, which the port rules out: each keeps a row, its old or its new one, whatever happens.
  std::vector<Label> replaced;
  Status status;
  {
    std::unique_lock lock(writer_mu_);
    for (; done < labels.size() && status.ok(); done += status.ok() ? 1 : 0) {
      status = Guarded("for a row of the index", [&] {
        FRESHET_TRY(WaitForRoom(&lock));
        FRESHET_TRY(WaitForSlot(&lock));
        const Label label = labels[done];
        const bool is_new = !segment_->SlotOf(label).has_value();
        if (!is_new && std::count(labels.begin(), labels.begin() + static_cast<std::ptrdiff_t>(done), label) == 0) {
          replaced.push_back(label);
        }
        PutRow(label, vectors.data() + done * static_cast<std::size_t>(options_.dim),
               attributes.subspan(done * words, words));
        return Status::Ok();
      });
    }
    // All or nothing.
    for (std::size_t i = 0; i < done && !status.ok(); ++i) {
      if (std::find(replaced.begin(), replaced.end(), labels[i]) != replaced.end()) continue;
      if (const auto slot = segment_->SlotOf(labels[i])) Kill(*slot);
    }
  }
  work_.notify_one();
  return status;
}

void HnswIndex::PutRow(Label label, const float* vector, std::span<const std::uint64_t> attributes) {
  const bool again = !free_.empty();
  const auto slot = again ? free_.back() : static_cast<std::uint32_t>(segment_->used());
  // What may fail comes first: a row is there whole or not at all, and the one it replaces until then.
  segment_->MakeRoom(slot, label);
  if (rebuilding_ && added_.size() == added_.capacity()) added_.reserve(2 * added_.size() + 64);
  if (const auto known = segment_->SlotOf(label)) Kill(*known);
  segment_->Put(slot, label, vector, attributes);
  segment_->PushFresh(slot);
  if (again) free_.pop_back();
  if (rebuilding_) added_.push_back(slot);
}

void HnswIndex::Kill(std::uint32_t slot) {
  const Label label = segment_->label(slot);
  segment_->MarkDead(slot);
  if (!rebuilding_ || lost_deaths_) return;
  try {
    died_.push_back(label);
  } catch (const std::bad_alloc&) {
    lost_deaths_ = true;
  }
}

// What the worker cannot keep up with waits here: a fresh segment without a bound would slow every search. Where the
// worker is not linking for want of memory, there is nothing to wait for. It makes room within milliseconds, unless it
// waits for a search that does not end (read_epoch.h).
Status HnswIndex::WaitForRoom(std::unique_lock<std::mutex>* lock) {
  const auto has_room = [&] { return segment_->fresh() < options_.max_fresh; };
  if (!has_room()) {
    work_.notify_one();
    if (!progress_.wait_for(*lock, longest_wait_,
                            [&] { return !worker_status_.ok() || !trouble_.ok() || has_room(); })) {
      ++told_.wait_timeouts;
      return ResourceExhausted(StrCat(segment_->fresh(), " rows wait to be linked, and none was for ",
                                      longest_wait_.count(), " ms: is there a search that does not end?"));
    }
  }
  return !worker_status_.ok() ? worker_status_ : has_room() ? Status::Ok() : trouble_;
}

void HnswIndex::Tombstone(std::span<const Label> labels) {
  const std::lock_guard lock(writer_mu_);
  for (const Label label : labels) {
    if (const auto slot = segment_->SlotOf(label)) Kill(*slot);
  }
}

// The room of the dead is room too: it only has to be made. Bounded, since a cut that is held on to keeps it.
Status HnswIndex::WaitForSlot(std::unique_lock<std::mutex>* lock) {
  const auto has_slot = [&] { return !free_.empty() || segment_->used() < segment_->capacity(); };
  if (has_slot()) return Status::Ok();
  if (segment_->dead() == 0) return Full();
  wants_consolidation_ = true;
  ++slot_waits_;
  work_.notify_one();
  const bool ended =
      progress_.wait_for(*lock, longest_wait_, [&] { return !worker_status_.ok() || !trouble_.ok() || has_slot(); });
  --slot_waits_;
  if (!ended) ++told_.wait_timeouts;
  if (!worker_status_.ok()) return worker_status_;
  return has_slot() ? Status::Ok() : !trouble_.ok() ? trouble_ : Full();
}

// With what keeps the room of the dead from being used, where there are any.
Status HnswIndex::Full() const {
  const std::size_t dead = segment_->dead();
  const char* const why = dead == 0   ? ""
                          : pins_ > 0 ? "; no room of dead ones is used again while a cut is written or an audit looks"
                          : rebuilding_ ? "; the room of dead ones comes with the rebuild that is under way"
                                        : "; the room of dead ones was not free in time";
  return ResourceExhausted(StrCat("the index is full: ", segment_->capacity() - dead, " of ", segment_->capacity(),
                                  " rows live (index.capacity)", why));
}

Status HnswIndex::Maintain() {
  const std::lock_guard lock(writer_mu_);
  const auto used = static_cast<double>(segment_->used());
  const auto live = used - static_cast<double>(segment_->dead());
  const auto tombstones = static_cast<double>(segment_->dead() - free_.size());
  if (tombstones >= kFewDead && tombstones > (1 - options_.min_live_fraction) * (live + tombstones)) {
    wants_consolidation_ = true;
  }
  if (used >= 4096 && live + static_cast<double>(segment_->fresh()) < 0.5 * used &&
      static_cast<double>(free_.size()) > used / 2 && !wants_rebuild_ && !rebuilding_ &&
      policy_.MayBegin(Clock::now())) {
    (void)Guarded("", [&] { WantRebuild(false, "most slots are free"); });  // to give memory back
  }
  KeepToMemory();
  if (HasWork()) work_.notify_one();
  return Guarded("to tell what is wrong", [&]() -> Status { return worker_status_; });
}

void HnswIndex::WantRebuild(bool for_quality, std::string because) {
  wants_rebuild_ = true;
  wanted_for_quality_ = for_quality;
  wanted_because_ = std::move(because);
}

// First the room of the dead is made to be used again, so that it grows no more; where free slots are what is too much,
// a rebuild gives them back. Where the living alone need more than the bound, neither helps and neither is tried: a
// rebuild needs room of its own. Rows go on being taken: to refuse what the store holds would make answers wrong.
void HnswIndex::KeepToMemory() {
  told_.over_memory = told_.live_over_memory = false;
  if (options_.max_memory_bytes == 0) return;
  const auto used = static_cast<double>(segment_->used());
  const double live = used - static_cast<double>(segment_->dead());
  const auto tombstones = static_cast<double>(segment_->dead() - free_.size());
  const auto bound = static_cast<double>(options_.max_memory_bytes);
  const auto bytes = static_cast<double>(segment_->memory_bytes());
  const double needed = used > 0 ? bytes * live / used : 0;
  told_.over_memory = bytes > bound;
  told_.live_over_memory = needed > bound;
  if (bytes <= bound || needed > bound) return;
  if (tombstones >= kFewDead && tombstones > (1 - kLiveWhenOverMemory) * (live + tombstones)) {
    wants_consolidation_ = true;
    return;
  }
  if (wants_rebuild_ || rebuilding_ || wants_consolidation_ || consolidating_) return;
  if (policy_.IsWorthItForMemory(Clock::now(), bytes, needed, bound)) {
    (void)Guarded("", [&] {
      WantRebuild(false, StrCat("it takes ", segment_->memory_bytes(), " bytes, more than index.max_memory_bytes"));
    });
  }
}

Status HnswIndex::Settle() {
  std::unique_lock lock(writer_mu_);
  progress_.wait(lock, [&] { return !worker_status_.ok() || !trouble_.ok() || (!working_ && !HasWork()); });
  return Guarded("to tell what is wrong", [&]() -> Status { return worker_status_.ok() ? trouble_ : worker_status_; });
}

void HnswIndex::Reconsider(std::span<const Label> labels) {
  const std::lock_guard lock(writer_mu_);
  for (const Label label : labels) {
    if (const auto slot = segment_->SlotOf(label)) segment_->NoteChange(*slot);
  }
}

std::uint64_t HnswIndex::Changes() const {
  const ReadEpoch::Reader reader(epoch_);
  return current_.load(std::memory_order_acquire)->changes().last();
}

SearchView HnswIndex::ViewFor(const Segment& segment, const SearchOptions& options) const {
  SearchView view = segment.View();
  const LastingFilter* lasting = options.filter == nullptr ? nullptr : options.filter->lasting();
  if (lasting != nullptr) view.allowed = filter_memo_.BitsOf(segment, *lasting, view.used);
  return view;
}

Result<std::vector<Hit>> HnswIndex::Search(std::span<const float> query, const SearchOptions& options) const {
  FRESHET_TRY(CheckQuery(query, options_.dim));
  FRESHET_TRY(CheckMasks(options.attributes, options_.attribute_words));
  if (options.k == 0) return std::vector<Hit>{};
  return Guarded("to search", [&]() -> Result<std::vector<Hit>> {
    const ReadEpoch::Reader reader(epoch_);
    const Segment& segment = *current_.load(std::memory_order_acquire);
    const std::vector<std::uint32_t>& fresh = FreshOf(segment);
    return SearchGraph(ViewFor(segment, options), fresh, query.data(), options);
  });
}

Result<std::vector<std::vector<Hit>>> HnswIndex::SearchMany(std::span<const float> queries,
                                                            const SearchOptions& options) const {
  FRESHET_TRY(CheckQueries(queries, options_.dim));
  FRESHET_TRY(CheckMasks(options.attributes, options_.attribute_words));
  const auto dim = static_cast<std::size_t>(options_.dim);
  return Guarded("to search", [&]() -> Result<std::vector<std::vector<Hit>>> {
    if (options.k == 0) return std::vector<std::vector<Hit>>(queries.size() / dim);
    const ReadEpoch::Reader reader(epoch_);
    const Segment& segment = *current_.load(std::memory_order_acquire);
    const std::vector<std::uint32_t>& fresh = FreshOf(segment);
    return SearchGraphMany(ViewFor(segment, options), fresh, queries, dim, options);
  });
}

IndexStats HnswIndex::Stats() const {
  const std::lock_guard lock(writer_mu_);
  const Segment* segment = segment_.get();
  IndexStats stats = told_;
  stats.slots = segment->used();
  stats.live = stats.slots - segment->dead();
  stats.tombstones = segment->dead() - free_.size();
  stats.fresh = segment->fresh();
  stats.capacity = segment->capacity();
  stats.memory_bytes = segment->memory_bytes();
  stats.filter_bytes = filter_memo_.bytes();
  stats.rebuilding = rebuilding_;
  stats.rebuild_failure = rebuild_failure_.message();
  stats.failure = (trouble_.ok() ? last_trouble_ : trouble_).message();
  return stats;
}

std::vector<Label> HnswIndex::LiveLabels() const {
  const ReadEpoch::Reader reader(epoch_);
  const Segment& segment = *current_.load(std::memory_order_acquire);
  std::vector<Label> labels;
  const std::size_t used = segment.used();
  for (std::size_t slot = 0; slot < used; ++slot) {
    if (!segment.IsDead(slot)) labels.push_back(segment.label(slot));
  }
  std::sort(labels.begin(), labels.end());
  return labels;
}

std::vector<Label> HnswIndex::LiveLabelsFrom(Label from, std::size_t max) const {
  constexpr std::size_t kPiece = 65'536;  // slots, so that what waits for searches to be over never waits for long
  const Segment* of = nullptr;
  std::vector<Label> lowest;  // a heap, the highest of them first
  for (std::size_t slot = 0; max > 0;) {
    const ReadEpoch::Reader reader(epoch_);
    const Segment& segment = *current_.load(std::memory_order_acquire);
    if (of != &segment) {  // the first piece, or it was replaced: all over
      of = &segment;
      slot = 0;
      lowest.clear();
    }
    const std::size_t used = segment.used();
    if (slot >= used) break;
    for (const std::size_t end = std::min(slot + kPiece, used); slot < end; ++slot) {
      // Whether it lives comes first: the label of a free slot may be being written.
      if (segment.IsDead(slot)) continue;
      const Label label = segment.label(slot);
      if (label < from) continue;
      if (lowest.size() == max) {
        if (label >= lowest.front()) continue;
        std::pop_heap(lowest.begin(), lowest.end());
        lowest.pop_back();
      }
      lowest.push_back(label);
      std::push_heap(lowest.begin(), lowest.end());
    }
  }
  std::sort_heap(lowest.begin(), lowest.end());
  return lowest;
}

Status HnswOptions::Validate() const {
  if (dim < 1 || dim > 4096) return ConfigError(StrCat("dim must be 1 to 4096, not ", dim));
  if (m < 2 || m > 128) return ConfigError(StrCat("index.m must be 2 to 128, not ", m));
  if (ef_construction < m || ef_construction > 4096) {
    return ConfigError(StrCat("index.ef_construction must be m to 4096, not ", ef_construction));
  }
  if (attribute_words > kMaxAttributeWords) {
    return ConfigError(StrCat("attribute_words must be 0 to ", kMaxAttributeWords, ", not ", attribute_words));
  }
  if (capacity < 64 || capacity > 1'000'000'000) return ConfigError("index.capacity must be 64 to 1,000,000,000");
  if (min_live_fraction < 0.1 || min_live_fraction > 0.99) {
    return ConfigError("index.min_live_fraction must be 0.1 to 0.99");
  }
  if (!(min_recall >= 0) || min_recall > 0.99) return ConfigError("index.min_recall must be 0 to 0.99");
  if (!(max_unreachable >= 0) || max_unreachable > 1) return ConfigError("index.max_unreachable must be 0 to 1");
  if (!(rebuild_cpu_share >= 0.05) || rebuild_cpu_share > 1) {
    return ConfigError("index.rebuild_cpu_share must be 0.05 to 1");
  }
  if (max_fresh < 1 || max_fresh > 1'000'000) return ConfigError("index.max_fresh must be 1 to 1,000,000");
  if (link_threads < 1 || link_threads > 256) return ConfigError("index.link_threads must be 1 to 256");
  if (!(slack >= 1) || slack > 4) return ConfigError("index.slack must be 1 to 4");
  return Status::Ok();
}

Result<std::unique_ptr<Index>> MakeHnswIndex(const HnswOptions& options) {
  FRESHET_TRY(options.Validate());
  return Guarded("for the index", [&]() -> Result<std::unique_ptr<Index>> {
    return std::unique_ptr<Index>(std::make_unique<HnswIndex>(options));
  });
}

}  // namespace freshet
