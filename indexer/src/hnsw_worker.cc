// What the worker of the streaming index does: one bounded piece of work after the other, so that stopping, and what
// waits in Insert, never wait for long.
#include <algorithm>
#include <system_error>

#include "hnsw_index.h"

namespace freshet {
namespace {

constexpr std::size_t kLinkBatch = 32;            // rows, per linking thread
constexpr std::size_t kConsolidationSlice = 256;  // slots
constexpr std::size_t kRebuildSlice = 64;         // rows
constexpr std::size_t kHurry = 4;                 // times shorter is that of slots while many rows wait to be linked
constexpr std::size_t kLimbo = 1024;              // slots that wait to be freed together

}  // namespace

bool HnswIndex::HasWork() const {
  if (paused_ > 0) return false;
  // While there is a cut, nothing is taken out or freed.
  const bool free = pins_ == 0 && (wants_consolidation_ || consolidating_);
  // The dead that were never linked are freed when nothing else is to be done.
  if (pins_ == 0 && has_limbo_) return true;
  return free || (wants_rebuild_ && !consolidating_) || rebuilding_ || segment_->fresh() > 0 || !relink_.empty();
}

void HnswIndex::Work() {
  std::unique_lock lock(writer_mu_);
  while (true) {
    working_ = false;
    progress_.notify_all();
    work_.wait(lock, [&] { return stop_ || (worker_status_.ok() && HasWork()); });
    if (stop_) return;
    working_ = true;
    const bool pinned = pins_ > 0;
    const bool consolidate = !pinned && std::exchange(wants_consolidation_, false) && !consolidating_ && !rebuilding_;
    // Never both: a rebuild leaves the dead behind anyway.
    const bool rebuild = !consolidate && gone_.empty() && !rebuilding_ && std::exchange(wants_rebuild_, false);
    std::vector<std::uint32_t> relink;
    relink.swap(relink_);
    lock.unlock();
    Status status = Guarded("to link into the graph", [&] {
      LinkFresh();
      for (const std::uint32_t slot : relink) {
        // One that died meanwhile may be on its way out of the graph.
        if (segment_->IsNode(slot) && !segment_->graph().IsDead(slot)) segment_->graph().Relink(slot, segment_->used());
      }
    });
    if (status.ok()) {
      status = Guarded("to take the dead out of the graph", [&] {
        if (consolidate) BeginConsolidation();
        if (!gone_.empty() && !pinned) ConsolidateSlice();
        const bool idle = segment_->fresh() == 0 && gone_.empty() && !limbo_.empty();
        if ((limbo_.size() >= kLimbo || unlinked_ || idle) && !pinned) FreeSlots();
      });
    }
    const Status rebuilt = Guarded("to rebuild the index; the old one keeps serving", [&] {
      if (rebuild) BeginRebuild();
      if (shadow_ != nullptr) RebuildSlice();
    });
    lock.lock();
    // A graph whose change failed half-way is not touched again: it answers, and what it lacks is scanned.
    if (!status.ok()) worker_status_ = status;
    if (!rebuilt.ok()) {
      maintain_status_ = rebuilt;
      shadow_.reset();
      added_.clear();
    }
    consolidating_ = !gone_.empty();
    has_limbo_ = !limbo_.empty();
    rebuilding_ = shadow_ != nullptr;
  }
}

// What is added is waited for, once too much of it is; the dead are waited for only where room is scarce.
bool HnswIndex::IsBehind() {
  const std::lock_guard lock(writer_mu_);
  const std::size_t room = segment_->capacity() - segment_->used() + free_.size();
  return segment_->fresh() > options_.max_fresh / 4 && room > segment_->capacity() / 8;
}

// --- Fresh rows into the graph.

void HnswIndex::LinkFresh() {
  Segment& segment = *segment_;
  const std::uint64_t begin = segment.fresh_begin();
  const auto count = static_cast<std::size_t>(
      std::min<std::uint64_t>(segment.fresh_end() - begin, kLinkBatch * options_.link_threads));
  std::vector<std::uint32_t> nodes;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t slot = segment.Fresh(begin + i);
    if (segment.IsDead(slot)) {
      limbo_.push_back(slot);
    } else if (!segment.Chain(slot)) {
      nodes.push_back(slot);
    }
  }
  LinkAll(&segment, nodes);
  if (!gone_.empty()) linked_meanwhile_.insert(linked_meanwhile_.end(), nodes.begin(), nodes.end());
  segment.PopFresh(count);
}

void HnswIndex::LinkAll(Segment* segment, const std::vector<std::uint32_t>& slots) {
  const std::size_t used = segment->used();
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  const auto link = [&] {
    try {
      for (std::size_t i = next++; i < slots.size(); i = next++) {
        segment->graph().Link(slots[i], used);
        segment->SetNode(slots[i], true);
      }
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  others.reserve(options_.link_threads);
  for (std::size_t i = 1; i < options_.link_threads && slots.size() >= kLinkBatch; ++i) {
    try {
      others.emplace_back(link);
    } catch (const std::system_error&) {
      break;  // the system has no more threads for us: those there are do it all
    }
  }
  link();
  for (std::thread& other : others) other.join();
  if (failed) throw std::bad_alloc();
}

// --- Taking out the dead.

void HnswIndex::BeginConsolidation() {
  Segment& segment = *segment_;
  const std::size_t used = segment.used();
  std::vector<std::uint64_t> gone((used + 63) / 64);
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    if (!segment.IsNode(slot)) continue;
    // Dead copies leave their chain; a node goes when it is dead and nothing hangs on it.
    std::uint32_t at = slot;
    for (std::uint32_t next = segment.NextSame(at); next != kNoSlot; next = segment.NextSame(at)) {
      if (segment.IsDead(next)) {
        segment.SetNext(at, segment.NextSame(next));
        limbo_.push_back(next);
      } else {
        at = next;
      }
    }
    if (!segment.IsDead(slot) || segment.NextSame(slot) != kNoSlot) continue;
    segment.Forget(slot);
    gone[slot / 64] |= std::uint64_t{1} << (slot % 64);
  }
  gone_ = std::move(gone);
  cursor_ = 0;
  unlinked_ = false;
  linked_meanwhile_.clear();
}

void HnswIndex::ConsolidateSlice() {
  if (unlinked_) return;
  Segment& segment = *segment_;
  const std::size_t used = segment.used();
  const auto is_gone = [&](std::size_t slot) {
    return slot / 64 < gone_.size() && (gone_[slot / 64] >> (slot % 64) & 1) != 0;
  };
  const auto unlink = [&](std::uint32_t slot) {
    if (!segment.IsNode(slot) || is_gone(slot)) return;
    if (segment.graph().Unlink(slot, gone_)) isolated_.push_back(slot);
  };
  // To where the rows ended when it began, so that it ends whatever is added meanwhile.
  const std::size_t end = std::min(used, gone_.size() * 64);
  const std::size_t to = std::min(end, cursor_ + kConsolidationSlice / (IsBehind() ? kHurry : 1));
  for (; cursor_ < to; ++cursor_) unlink(static_cast<std::uint32_t>(cursor_));
  if (cursor_ < end) return;
  // What was linked meanwhile hung on the dead only if nothing else was near. More at a time than is linked at a time.
  std::size_t most = std::max(kConsolidationSlice, 2 * kLinkBatch * options_.link_threads);
  for (; most > 0 && !linked_meanwhile_.empty(); --most) {
    unlink(linked_meanwhile_.back());
    linked_meanwhile_.pop_back();
  }
  if (!linked_meanwhile_.empty()) return;
  std::uint32_t live = kNoSlot;
  for (std::uint32_t slot = 0; slot < used && live == kNoSlot; ++slot) {
    if (segment.IsNode(slot) && !is_gone(slot)) live = slot;
  }
  segment.graph().UnlinkAbove(gone_, live);
  // Only now does no walk meet the dead, to which they would be linked again.
  for (const std::uint32_t slot : isolated_) segment.graph().Relink(slot, used);
  isolated_.clear();
  for (std::uint32_t slot = 0; slot < gone_.size() * 64; ++slot) {
    if (is_gone(slot)) segment.SetNode(slot, false);
  }
  unlinked_ = true;
}

// When the searches that may still be at them are over, and no cut needs them.
void HnswIndex::FreeSlots() {
  Segment& segment = *segment_;
  segment.epoch().Synchronize();
  const std::lock_guard lock(writer_mu_);
  if (pins_ > 0 || rebuilding_) return;
  free_.insert(free_.end(), limbo_.begin(), limbo_.end());
  limbo_.clear();
  if (!unlinked_) return;
  segment.graph().FreeAbove(gone_);
  for (std::uint32_t slot = 0; slot < gone_.size() * 64; ++slot) {
    if ((gone_[slot / 64] >> (slot % 64) & 1) != 0) free_.push_back(slot);
  }
  gone_.clear();
  unlinked_ = false;
  ++consolidations_;
}

// --- Rebuilding.

void HnswIndex::BeginRebuild() {
  auto shadow = std::make_shared<Segment>(options_);
  const std::lock_guard lock(writer_mu_);
  to_copy_.clear();
  const std::size_t used = segment_->used();
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    if (!segment_->IsDead(slot)) to_copy_.emplace_back(slot, segment_->label(slot));
  }
  added_.clear();
  copied_ = 0;
  rebuilding_ = true;
  shadow_ = std::move(shadow);
}

void HnswIndex::RebuildSlice() {
  {
    const std::lock_guard lock(writer_mu_);
    for (const std::uint32_t slot : added_) to_copy_.emplace_back(slot, segment_->label(slot));
    added_.clear();
  }
  const auto copy = [&] {
    const auto [slot, label] = to_copy_[copied_++];
    if (segment_->IsDead(slot)) return;
    const auto to = static_cast<std::uint32_t>(shadow_->used());
    shadow_->PutRow(to, label, segment_->CodesOf(slot), segment_->HeadOf(slot), segment_->RerankRow(slot));
    shadow_->PushFresh(to);
  };
  // No more than its fresh segment has room for.
  const std::size_t slice = std::min(kRebuildSlice * options_.link_threads, options_.max_fresh);
  const std::size_t end = std::min(to_copy_.size(), copied_ + slice);
  std::vector<std::uint32_t> nodes;
  while (copied_ < end) copy();
  const std::size_t fresh = shadow_->fresh();
  for (std::size_t i = 0; i < fresh; ++i) {
    const std::uint32_t slot = shadow_->Fresh(shadow_->fresh_begin() + i);
    if (!shadow_->Chain(slot)) nodes.push_back(slot);
  }
  LinkAll(shadow_.get(), nodes);
  shadow_->PopFresh(fresh);
  if (copied_ < to_copy_.size()) return;
  const std::lock_guard lock(writer_mu_);
  if (added_.size() > options_.max_fresh / 2) return;
  // The rest is copied without being linked: it is the new segment's fresh part.
  for (const std::uint32_t slot : added_) to_copy_.emplace_back(slot, segment_->label(slot));
  while (copied_ < to_copy_.size()) copy();
  const std::size_t used = shadow_->used();
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    if (!segment_->SlotOf(shadow_->label(slot))) shadow_->MarkDead(slot);
  }
  {
    const std::lock_guard current(current_mu_);
    segment_.swap(shadow_);
  }
  free_.clear();
  limbo_.clear();
  relink_.clear();
  added_.clear();
  to_copy_ = {};
  shadow_ = nullptr;
  ++rebuilds_;
}

}  // namespace freshet
