// What the worker of the streaming index does: one bounded piece of work after the other, so that stopping, and what
// waits in Insert, never wait for long.
#include <algorithm>
#include <exception>

#include "hnsw_index.h"

namespace freshet {
namespace {

constexpr std::size_t kLinkBatch = 32;            // rows, per linking thread
constexpr std::size_t kRelinkBatch = 32;          // nodes
constexpr std::size_t kConsolidationSlice = 256;  // slots
constexpr std::size_t kHurry = 4;                 // times shorter is that of slots while many rows wait to be linked
constexpr std::size_t kLimbo = 1024;              // slots that wait to be freed together
constexpr std::size_t kFreeSlice = 4096;          // slots that are freed under one lock
constexpr std::chrono::milliseconds kFirstRetry{10};
constexpr std::chrono::seconds kLongestRetry{5};

}  // namespace

std::size_t LinkedAtOnce(const HnswOptions& options) { return kLinkBatch * options.link_threads + kRelinkBatch; }

bool HnswIndex::HasWork() const {
  // The graph stays as it is for the cut that is being written, but not so long that rows have to wait for it.
  if (paused_ > 0) return segment_->fresh() >= options_.max_fresh;
  // While there is a cut, nothing is taken out or freed.
  const bool free = pins_ == 0 && (wants_consolidation_ || consolidating_);
  // The dead that were never linked are freed when nothing else is to be done.
  if (pins_ == 0 && has_limbo_) return true;
  return free || (wants_rebuild_ && !consolidating_) || rebuilding_ || segment_->fresh() > 0 || !relink_.empty() ||
         has_relinks_;
}

// Inserts wait, or the fresh segment that takes them is full: whatever gives them room is urgent.
bool HnswIndex::IsWaitedFor() const { return slot_waits_ > 0 || segment_->fresh() >= options_.max_fresh; }

// Not while more comes than it would ever catch up with.
bool HnswIndex::RebuildRests() const {
  return rebuilding_ && Clock::now() < throttle_.until() && !IsWaitedFor() && added_.size() <= options_.max_fresh;
}

// REQUIRES: HasWork().
bool HnswIndex::OnlyRests() const {
  return paused_ == 0 && segment_->fresh() == 0 && relink_.empty() && !has_relinks_ && RebuildRests();
}

void HnswIndex::WaitForWork(std::unique_lock<std::mutex>* lock) {
  while (!stop_) {
    if (!worker_status_.ok() || !HasWork()) {
      work_.wait(*lock);
    } else if (!trouble_.ok() && Clock::now() < retry_at_) {
      work_.wait_until(*lock, retry_at_);
    } else if (OnlyRests()) {
      work_.wait_until(*lock, throttle_.until());
    } else {
      return;
    }
  }
}

HnswIndex::Round HnswIndex::NextRound() {
  Round round;
  round.paused = paused_ > 0;
  round.pinned = pins_ > 0;
  if (round.paused) return round;
  round.rests = RebuildRests();
  if (relinking_.empty()) relinking_.swap(relink_);
  has_relinks_ = !relinking_.empty();
  round.consolidate = !round.pinned && !consolidating_ && !rebuilding_ && std::exchange(wants_consolidation_, false);
  // Never both: a rebuild leaves the dead behind anyway.
  round.rebuild = !round.consolidate && !consolidating_ && !rebuilding_ && std::exchange(wants_rebuild_, false);
  return round;
}

void HnswIndex::Work() {
  std::unique_lock lock(writer_mu_);
  while (true) {
    working_ = changing_ = false;
    progress_.notify_all();
    WaitForWork(&lock);
    if (stop_) return;
    const Round round = NextRound();
    working_ = true;
    changing_ = !round.paused;
    lock.unlock();
    Status status = DoRound(round);
    if (!round.paused && (round.rebuild || (rebuild_ && !round.rests))) RebuildPart(round.rebuild);
    lock.lock();
    NoteRound(round, std::move(status));
  }
}

// What failed for want of memory has changed nothing, and is tried again, after a wait that grows. Anything else nobody
// knows the cause of: the graph is not touched again; it answers, and what it lacks is scanned.
void HnswIndex::NoteRound(const Round& round, Status status) {
  consolidating_ = consolidation_.active();
  has_limbo_ = consolidation_.limbo() > 0;
  has_relinks_ = !relinking_.empty();
  if (round.consolidate && !consolidating_ && !status.ok()) wants_consolidation_ = true;
  if (!trouble_.ok()) last_trouble_ = std::exchange(trouble_, Status::Ok());
  if (status.ok()) {
    retry_wait_ = Clock::duration::zero();
  } else if (status.category() == Category::kTransient) {
    trouble_ = std::move(status);
    ++told_.failures;
    retry_wait_ = retry_wait_ == Clock::duration::zero() ? Clock::duration(kFirstRetry)
                                                         : std::min<Clock::duration>(2 * retry_wait_, kLongestRetry);
    retry_at_ = Clock::now() + retry_wait_;
  } else {
    worker_status_ = std::move(status);
  }
}

Status HnswIndex::DoRound(const Round& round) {
  return Guarded("to change the graph", [&] {
    LinkFresh();
    if (round.paused) return;
    for (std::size_t i = 0; i < kRelinkBatch && !relinking_.empty(); ++i) {
      consolidation_.Relink(relinking_.back());
      relinking_.pop_back();
    }
    if (round.consolidate) consolidation_.Begin();
    if (round.pinned) return;
    if (consolidation_.active()) consolidation_.Slice(kConsolidationSlice / (IsBehind() ? kHurry : 1));
    const bool idle = segment_->fresh() == 0 && !consolidation_.active() && consolidation_.limbo() > 0;
    if (consolidation_.limbo() >= kLimbo || consolidation_.unlinked() || idle) FreeSlots();
  });
}

// What is added is waited for, once too much of it is; the dead are waited for only where room is scarce.
bool HnswIndex::IsBehind() {
  const std::lock_guard lock(writer_mu_);
  const std::size_t room = segment_->capacity() - segment_->used() + free_.size();
  return segment_->fresh() > options_.max_fresh / 4 && room > segment_->capacity() / 8;
}

// --- Fresh rows into the graph.

// In steps that are each done once, so that after an error the rest of the same rows is gone on with.
void HnswIndex::LinkFresh() {
  Segment& segment = *segment_;
  const std::uint64_t begin = segment.fresh_begin();
  if (batch_.count == 0) {
    const auto count = static_cast<std::size_t>(
        std::min<std::uint64_t>(segment.fresh_end() - begin, kLinkBatch * options_.link_threads));
    batch_.nodes.reserve(count);
    batch_.dead.reserve(count);
    batch_.count = count;
  }
  consolidation_.MakeRoom(batch_.count);
  for (; batch_.looked_at < batch_.count; ++batch_.looked_at) {
    const std::uint32_t slot = segment.Fresh(begin + batch_.looked_at);
    if (segment.IsDead(slot)) {
      batch_.dead.push_back(slot);
    } else if (!segment.Chain(slot)) {
      batch_.nodes.push_back(slot);
    }
  }
  LinkAll(&segment, batch_.nodes);
  consolidation_.Linked(batch_.nodes);
  consolidation_.Discard(batch_.dead);
  segment.PopFresh(batch_.count);
  batch_.count = batch_.looked_at = 0;
  batch_.nodes.clear();
  batch_.dead.clear();
}

// Those that are not yet.
void HnswIndex::LinkAll(Segment* segment, const std::vector<std::uint32_t>& slots) {
  const std::size_t used = segment->used();
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;  // of the thread that failed first
  const auto link = [&] {
    try {
      for (std::size_t i = next++; i < slots.size() && !failed; i = next++) {
        if (segment->IsNode(slots[i])) continue;
        segment->graph().Link(slots[i], used);
        segment->SetNode(slots[i], true);
      }
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  try {
    for (std::size_t i = 1; i < options_.link_threads && slots.size() >= kLinkBatch; ++i) others.emplace_back(link);
  } catch (const std::exception&) {
    // The system has no more threads for us, or no memory for one: those there are do it all.
  }
  link();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

// When the searches that may still be at them are over, and no cut needs them.
void HnswIndex::FreeSlots() {
  epoch_.Synchronize();
  const std::vector<std::uint32_t> freed = consolidation_.Freed();
  {
    const std::lock_guard lock(writer_mu_);
    // A cut that comes later knows nothing of them.
    if (pins_ > 0 || rebuilding_) return;
    const std::size_t room = free_.size() + freed.size();
    if (room > free_.capacity()) free_.reserve(std::max(room, 2 * free_.capacity()));
  }
  consolidation_.FreeAbove();
  for (std::size_t at = 0; at < freed.size(); at += kFreeSlice) {
    const std::span<const std::uint32_t> slice = std::span(freed).subspan(at, std::min(kFreeSlice, freed.size() - at));
    const std::lock_guard lock(writer_mu_);
    free_.insert(free_.end(), slice.begin(), slice.end());
  }
  if (consolidation_.unlinked()) {
    const std::lock_guard lock(writer_mu_);
    ++told_.consolidations;
  }
  consolidation_.Finish();
}

}  // namespace freshet
