// Takes the dead out of a segment's graph, in slices between which rows are linked, and says which slots are free then.
//
// Place in the flow: Begin() says what goes, Slice() leads what leads to it around it; when nothing does, and the
// searches of that time are over, FreeAbove() and freed() give its room back. What is linked meanwhile is told, because
// where all that is near is going it may hang on just that.
// Belongs to the worker thread. Errors: std::bad_alloc; what was called may then be called again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "segment.h"

namespace freshet {

class Consolidation {
 public:
  // `linked_at_once`: nodes that are linked between two slices, at most.
  Consolidation(Segment* segment, std::size_t linked_at_once)
      : segment_(segment), at_the_end_(std::max<std::size_t>(256, 2 * linked_at_once)) {}

  // Something is being taken out, or is out and its slots are not freed.
  [[nodiscard]] bool active() const { return !gone_.empty(); }
  // All of it is out: nothing leads to it.
  [[nodiscard]] bool unlinked() const { return unlinked_; }
  // Slots beside those, to which nothing leads: never linked, or out of their chain.
  [[nodiscard]] std::size_t limbo() const { return limbo_.size(); }

  // Room for so many rows of Linked() and Discard(), which cannot fail then.
  void MakeRoom(std::size_t rows);
  // Nodes that are new.
  void Linked(std::span<const std::uint32_t> nodes);
  // Rows that died before they were linked.
  void Discard(std::span<const std::uint32_t> slots);
  // A node that nothing leads to is linked again, unless it is on its way out.
  void Relink(std::uint32_t slot);

  // REQUIRES: not active.
  void Begin();
  // Looks at `most` slots. REQUIRES: active.
  void Slice(std::size_t most);

  // What is free now, as far as searches and cuts are over that may be at it. First the levels above are given back,
  // then the slots are handed out, and then that is the end of it.
  [[nodiscard]] std::vector<std::uint32_t> Freed() const;
  void FreeAbove() {
    if (unlinked_) segment_->graph().FreeAbove(gone_);
  }
  void Finish();

 private:
  [[nodiscard]] bool IsGone(std::size_t slot) const {
    return slot / 64 < gone_.size() && (gone_[slot / 64] >> (slot % 64) & 1) != 0;
  }
  void Unlink(std::uint32_t slot);
  bool SliceBelow(std::size_t* most);
  void Last();

  Segment* segment_;
  std::size_t at_the_end_;           // of a slice, at least: more than is linked meanwhile, or it would never end
  std::vector<std::uint64_t> gone_;  // by slot: what goes; empty: nothing
  std::size_t cursor_ = 0;           // the next slot to look at
  bool above_ = false;               // the levels above were begun
  bool unlinked_ = false;
  std::vector<std::uint32_t> linked_;    // meanwhile
  std::vector<std::uint32_t> isolated_;  // nodes that led to nothing but what goes
  std::vector<std::uint32_t> limbo_;
};

}  // namespace freshet
