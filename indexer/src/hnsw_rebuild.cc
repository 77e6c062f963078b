// A new segment of the live rows beside the old one, which goes on serving, adding and deleting meanwhile. What is
// added and what dies is told (added_, died_), in that order of importance: a death is taken before the rows that came
// with it are copied, because a label may have died as one row and come again as another.
#include <algorithm>
#include <new>

#include "hnsw_index.h"

namespace freshet {
namespace {

constexpr std::size_t kRebuildSlice = 64;  // rows, per linking thread
constexpr int kChangesOfSegment = 44;      // bits of their numbers: years of a million a second
constexpr std::size_t kLastDeaths = 4096;  // that are taken at the end, while the writer waits

bool Bit(const std::vector<std::uint64_t>& bits, std::size_t i) { return (bits[i / 64] >> (i % 64) & 1) != 0; }

}  // namespace

// A failure leaves everything as it was, and is told.
void HnswIndex::RebuildPart(bool begin) {
  const Clock::time_point began = Clock::now();
  Status status = Guarded("to rebuild the index; the old one keeps serving", [&] {
    if (begin) BeginRebuild();
    RebuildSlice();
  });
  if (status.ok()) {
    // What was added since is copied as fast as it can be, once it is much: resting, it might never catch up.
    const bool behind = rebuild_ && rebuild_->added.size() - rebuild_->added_copied > options_.max_fresh;
    const std::lock_guard lock(writer_mu_);
    if (rebuilding_ && throttle_.Worked(began, Clock::now(), behind)) ++told_.rebuild_rests;
    return;
  }
  rebuild_.reset();  // without the lock: much memory is given back
  const std::lock_guard lock(writer_mu_);
  rebuilding_ = false;
  added_.clear();
  died_.clear();
  lost_deaths_ = false;
  ++told_.rebuild_failures;
  rebuild_failure_ = std::move(status);
  policy_.Failed(Clock::now());
}

void HnswIndex::BeginRebuild() {
  {
    const std::lock_guard lock(writer_mu_);
    ++told_.rebuilds_begun;
    told_.rebuild_reason.swap(wanted_because_);
    policy_.Begun(Clock::now(), wanted_for_quality_);
  }
  // Not emplace(): clang asks too early whether a nested struct with initialisers can be made of nothing.
  Rebuild& rebuild = rebuild_.emplace(Rebuild{});
  // What was remembered of filters before is of other slots: its numbers are none of the new segment.
  const std::uint64_t changes_before = ((segment_->changes().last() >> kChangesOfSegment) + 1) << kChangesOfSegment;
  rebuild.shadow = std::make_shared<Segment>(options_, changes_before);
  const std::lock_guard lock(writer_mu_);
  rebuild.before = segment_->used();
  rebuild.dead_before = segment_->DeadBits(rebuild.before);
  added_.clear();
  died_.clear();
  lost_deaths_ = false;
  rebuilding_ = true;
}

void HnswIndex::CopyRow(std::uint32_t slot) {
  Segment& shadow = *rebuild_->shadow;
  const auto to = static_cast<std::uint32_t>(shadow.used());
  shadow.PutRow(to, segment_->label(slot), segment_->CodesOf(slot), segment_->HeadOf(slot), segment_->RerankRow(slot),
                segment_->AttributesOf(slot));
  shadow.PushFresh(to);
}

void HnswIndex::TakeDeaths(const std::vector<Label>& died) {
  Segment& shadow = *rebuild_->shadow;
  for (const Label label : died) {
    if (const auto slot = shadow.SlotOf(label)) shadow.MarkDead(*slot);
  }
}

void HnswIndex::RebuildSlice() {
  Rebuild& rebuild = *rebuild_;
  Segment& shadow = *rebuild.shadow;
  {
    std::vector<std::uint32_t> added;
    std::vector<Label> died;
    {
      const std::lock_guard lock(writer_mu_);
      if (lost_deaths_) throw std::bad_alloc();
      added.swap(added_);
      died.swap(died_);
    }
    TakeDeaths(died);
    rebuild.added.insert(rebuild.added.end(), added.begin(), added.end());
  }
  // No more than its fresh segment has room for.
  const std::size_t most = std::min(kRebuildSlice * options_.link_threads, options_.max_fresh);
  const auto has_room = [&] { return shadow.fresh() < most; };
  for (; has_room() && rebuild.cursor < rebuild.before; ++rebuild.cursor) {
    const auto slot = static_cast<std::uint32_t>(rebuild.cursor);
    // A slot that was free then and holds a row now is among those that were added.
    if (!Bit(rebuild.dead_before, slot) && !segment_->IsDead(slot)) CopyRow(slot);
  }
  for (; has_room() && rebuild.added_copied < rebuild.added.size(); ++rebuild.added_copied) {
    const std::uint32_t slot = rebuild.added[rebuild.added_copied];
    if (!segment_->IsDead(slot)) CopyRow(slot);
  }
  std::vector<std::uint32_t> nodes;
  const std::size_t fresh = shadow.fresh();
  for (std::size_t i = 0; i < fresh; ++i) {
    const std::uint32_t slot = shadow.Fresh(shadow.fresh_begin() + i);
    if (!shadow.Chain(slot)) nodes.push_back(slot);
  }
  LinkAll(&shadow, nodes);
  shadow.PopFresh(fresh);
  if (rebuild.cursor < rebuild.before || rebuild.added_copied < rebuild.added.size()) return;
  // What it held is given back without the lock, when the searches that may be at it are over.
  const std::shared_ptr<Segment> old = FinishRebuild();
  if (old != nullptr) epoch_.Synchronize();
}

// The new segment takes the place of the old one, which is returned; nothing where too much is left to be copied.
std::shared_ptr<Segment> HnswIndex::FinishRebuild() {
  const std::lock_guard lock(writer_mu_);
  if (lost_deaths_) throw std::bad_alloc();
  if (added_.size() > options_.max_fresh / 2 || died_.size() > kLastDeaths) return nullptr;
  TakeDeaths(died_);
  // The rest is copied without being linked: it is the new segment's fresh part.
  for (const std::uint32_t slot : added_) {
    if (!segment_->IsDead(slot)) CopyRow(slot);
  }
  std::shared_ptr<Segment> old = std::move(segment_);
  segment_ = std::move(rebuild_->shadow);
  current_.store(segment_.get(), std::memory_order_release);
  consolidation_ = Consolidation(segment_.get(), LinkedAtOnce(options_));
  batch_ = {};
  relinking_.clear();
  relink_.clear();
  free_.clear();
  added_.clear();
  died_.clear();
  rebuild_.reset();
  rebuilding_ = false;
  ++told_.rebuilds;
  told_.unreachable = 0;  // of the old one
  policy_.Done(Clock::now());
  return old;
}

}  // namespace freshet
