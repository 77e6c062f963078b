#include "consolidation.h"

#include <algorithm>
#include <array>
#include <bit>

namespace freshet {
namespace {

// One more, without growing by one each time.
void MakeRoomIn(std::vector<std::uint32_t>* slots, std::size_t more) {
  if (slots->capacity() - slots->size() < more) slots->reserve(std::max(slots->size() + more, 2 * slots->size()));
}

template <typename Use>
void ForEachBit(const std::vector<std::uint64_t>& bits, const Use& use) {
  for (std::size_t i = 0; i < bits.size(); ++i) {
    for (std::uint64_t word = bits[i]; word != 0; word &= word - 1) {
      use(static_cast<std::uint32_t>(64 * i) + static_cast<std::uint32_t>(std::countr_zero(word)));
    }
  }
}

}  // namespace

void Consolidation::MakeRoom(std::size_t rows) {
  MakeRoomIn(&linked_, rows);
  MakeRoomIn(&limbo_, rows);
}

void Consolidation::Linked(std::span<const std::uint32_t> nodes) {
  if (active() && !unlinked_) linked_.insert(linked_.end(), nodes.begin(), nodes.end());
}

void Consolidation::Discard(std::span<const std::uint32_t> slots) {
  limbo_.insert(limbo_.end(), slots.begin(), slots.end());
}

void Consolidation::Relink(std::uint32_t slot) {
  if (!segment_->IsNode(slot) || segment_->graph().IsDead(slot)) return;
  MakeRoomIn(&linked_, 1);
  segment_->graph().Relink(slot, segment_->used());
  Linked({&slot, 1});
}

void Consolidation::Begin() {
  Segment& segment = *segment_;
  const std::size_t used = segment.used();
  std::vector<std::uint64_t> gone((used + 63) / 64);
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    if (!segment.IsNode(slot)) continue;
    // Dead copies leave their chain; a node goes when it is dead and nothing hangs on it.
    std::uint32_t at = slot;
    for (std::uint32_t next = segment.NextSame(at); next != kNoSlot; next = segment.NextSame(at)) {
      if (segment.IsDead(next)) {
        MakeRoomIn(&limbo_, 1);
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
  above_ = unlinked_ = false;
  linked_.clear();
  isolated_.clear();
}

void Consolidation::Unlink(std::uint32_t slot) {
  if (!segment_->IsNode(slot) || IsGone(slot)) return;
  MakeRoomIn(&isolated_, 1);
  if (segment_->graph().Unlink(slot, gone_)) isolated_.push_back(slot);
}

// Level 0: what was there when it began, so that it ends whatever is added meanwhile, and then what was linked
// meanwhile. False: there is more.
bool Consolidation::SliceBelow(std::size_t* most) {
  const std::size_t end = std::min(segment_->used(), gone_.size() * 64);
  for (; *most > 0 && cursor_ < end; --*most) {
    Unlink(static_cast<std::uint32_t>(cursor_));
    ++cursor_;
  }
  if (cursor_ < end) return false;
  *most = std::max(*most, at_the_end_);
  for (; *most > 0 && !linked_.empty(); --*most) {
    Unlink(linked_.back());
    linked_.pop_back();
  }
  return linked_.empty();
}

void Consolidation::Slice(std::size_t most) {
  if (unlinked_ || !SliceBelow(&most)) return;
  if (!above_) {
    segment_->graph().BeginUnlinkAbove();
    above_ = true;
  }
  if (segment_->graph().UnlinkAbove(gone_, most)) return;
  Last();
}

void Consolidation::Last() {
  Segment& segment = *segment_;
  const std::size_t used = segment.used();
  std::array<std::uint32_t, 2> live = {kNoSlot, kNoSlot};
  for (std::uint32_t slot = 0; slot < used && live[1] == kNoSlot; ++slot) {
    if (segment.IsNode(slot) && !IsGone(slot)) live[live[0] == kNoSlot ? 0 : 1] = slot;
  }
  segment.graph().FinishUnlinkAbove(gone_, live[0]);
  // Only now does no walk meet the dead, to which they would be linked again.
  for (; !isolated_.empty(); isolated_.pop_back()) {
    const std::uint32_t slot = isolated_.back();
    segment.graph().Relink(slot, used, live[live[0] == slot ? 1 : 0]);
  }
  ForEachBit(gone_, [&](std::uint32_t slot) { segment.SetNode(slot, false); });
  unlinked_ = true;
}

std::vector<std::uint32_t> Consolidation::Freed() const {
  std::vector<std::uint32_t> freed = limbo_;
  if (unlinked_) ForEachBit(gone_, [&](std::uint32_t slot) { freed.push_back(slot); });
  return freed;
}

void Consolidation::Finish() {
  limbo_.clear();
  if (!unlinked_) return;
  gone_.clear();
  unlinked_ = false;
}

}  // namespace freshet
