// The dead out of a graph, slice by slice, on this thread alone: what is linked between slices is under the test's
// hand.
#include "consolidation.h"

#include <algorithm>
#include <memory>
#include <set>

#include "failing_allocations.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"

namespace freshet {
namespace {

constexpr int kDim = 16;
constexpr std::size_t kAtOnce = 32;

class ConsolidationTest : public ::testing::Test {
 protected:
  ConsolidationTest() {
    HnswOptions options;
    options.dim = kDim;
    options.m = 4;
    options.ef_construction = 20;
    options.capacity = 4000;
    segment_ = std::make_unique<Segment>(options);
    work_ = std::make_unique<Consolidation>(segment_.get(), kAtOnce);
  }
  void Put(std::uint32_t slot, Label label) { segment_->Put(slot, label, set_.Row(label)); }
  void Link(std::uint32_t slot) {
    ASSERT_FALSE(segment_->Chain(slot));
    work_->MakeRoom(1);
    segment_->graph().Link(slot, segment_->used());
    segment_->SetNode(slot, true);
    work_->Linked({&slot, 1});
  }
  void Fill(std::uint32_t rows) {
    for (std::uint32_t slot = 0; slot < rows; ++slot) {
      Put(slot, slot);
      Link(slot);
    }
  }
  [[nodiscard]] bool IsAbove(std::uint32_t slot) const {
    GraphEntry entry;
    const std::vector<Graph::Upper> uppers = segment_->graph().Uppers(&entry);
    return std::any_of(uppers.begin(), uppers.end(), [&](const Graph::Upper& upper) { return upper.slot == slot; });
  }
  // What was taken out; nothing may lead to it, on any level.
  std::vector<std::uint32_t> End() {
    for (int slices = 0; !work_->unlinked() && slices < 100'000; ++slices) work_->Slice(16);
    EXPECT_TRUE(work_->unlinked());
    const std::vector<std::uint32_t> freed = work_->Freed();
    const std::set<std::uint32_t> gone(freed.begin(), freed.end());
    Graph& graph = segment_->graph();
    for (std::uint32_t slot = 0; slot < segment_->used(); ++slot) {
      if (!segment_->IsNode(slot)) continue;
      EXPECT_FALSE(gone.contains(slot));
      const std::uint32_t* list = graph.Links(slot);
      for (std::uint32_t i = 1; i <= list[0]; ++i) EXPECT_FALSE(gone.contains(list[i])) << slot << " to " << list[i];
    }
    GraphEntry entry;
    const std::vector<Graph::Upper> uppers = graph.Uppers(&entry);
    for (std::uint32_t id = 0; id < uppers.size(); ++id) {
      if (uppers[id].slot == kNoSlot || gone.contains(uppers[id].slot)) continue;
      for (std::uint32_t level = 1; level <= uppers[id].level; ++level) {
        const std::uint32_t* list = graph.UpperLinks(id, level);
        for (std::uint32_t i = 1; i <= list[0]; ++i) EXPECT_FALSE(gone.contains(uppers[list[i]].slot));
      }
    }
    if (entry.upper != kNoSlot) {
      EXPECT_FALSE(gone.contains(uppers[entry.upper].slot));
    }
    work_->FreeAbove();
    work_->Finish();
    EXPECT_FALSE(work_->active());
    return freed;
  }

  const test::VectorSet set_ = test::ClusteredVectors(test::TestSeed(), 0, 4000, kDim, 8);
  std::unique_ptr<Segment> segment_;
  std::unique_ptr<Consolidation> work_;
};

// All that is near is going: a node that is linked again, behind where the slices have come to, hangs on just that.
TEST_F(ConsolidationTest, WhatIsLinkedAgainMeanwhileLeadsToNothingThatGoes) {
  Fill(1000);
  // Not one that is above, too: it would be where its own search begins.
  std::uint32_t stays = 0;
  while (IsAbove(stays)) ++stays;
  for (std::uint32_t slot = 0; slot < 1000; ++slot) {
    if (slot != stays) segment_->MarkDead(slot);
  }
  work_->Begin();
  work_->Slice(500);
  ASSERT_FALSE(work_->unlinked());
  work_->Relink(stays);
  const std::uint32_t* list = segment_->graph().Links(stays);
  ASSERT_GE(list[0], 1U) << "it was meant to hang on the dead";
  EXPECT_EQ(End().size(), 999U);
}

// Between all slices: new nodes, in slots that the slices have passed and in new ones, and old ones linked again.
TEST_F(ConsolidationTest, WhatIsLinkedBetweenSlicesLeadsToNothingThatGoes) {
  Fill(2000);
  for (std::uint32_t slot = 0; slot < 2000; ++slot) {
    if (slot % 50 != 0) segment_->MarkDead(slot);
  }
  work_->Begin();
  const std::vector<std::uint32_t> first = End();
  ASSERT_EQ(first.size(), 1960U);
  Label next = 2000;
  for (std::size_t i = 0; i < 900; ++i, ++next) {
    Put(first[i], next);
    Link(first[i]);
  }
  // Again, most of all, while the rest of the room is taken.
  for (std::uint32_t slot = 0; slot < 2000; ++slot) {
    if (segment_->IsNode(slot) && slot % 40 != 1) segment_->MarkDead(slot);
  }
  work_->Begin();
  for (std::size_t i = 900; i < first.size() && !work_->unlinked(); ++i, ++next) {
    work_->Slice(4);
    Put(first[i], next);
    Link(first[i]);
    work_->Relink(first[i - 1]);
    const auto slot = static_cast<std::uint32_t>(segment_->used());
    Put(slot, ++next);
    Link(slot);
  }
  EXPECT_GT(next, 3000U);
  EXPECT_GT(End().size(), 800U);
}

TEST_F(ConsolidationTest, OfAllButOneTheLastIsTheEntry) {
  Fill(800);
  for (std::uint32_t slot = 0; slot < 800; ++slot) {
    if (slot != 400) segment_->MarkDead(slot);
  }
  work_->Begin();
  EXPECT_EQ(End().size(), 799U);
  GraphEntry entry;
  const std::vector<Graph::Upper> uppers = segment_->graph().Uppers(&entry);
  ASSERT_LT(entry.upper, uppers.size());
  EXPECT_EQ(uppers[entry.upper].slot, 400U);
}

// Two that are above, far from each other: a search for either begins at itself, which leads nowhere any more.
TEST_F(ConsolidationTest, WhatIsLeftOfAllIsLinkedAgain) {
  Fill(1500);
  std::vector<std::uint32_t> stay;
  for (std::uint32_t slot = 100; slot < 1500 && stay.size() < 3; slot += 200) {
    while (!IsAbove(slot)) ++slot;
    stay.push_back(slot);
  }
  for (std::uint32_t slot = 0; slot < 1500; ++slot) {
    if (std::find(stay.begin(), stay.end(), slot) == stay.end()) segment_->MarkDead(slot);
  }
  work_->Begin();
  EXPECT_EQ(End().size(), 1497U);
  const auto led_to = [&] {
    std::set<std::uint32_t> slots;
    for (const std::uint32_t slot : stay) {
      const std::uint32_t* list = segment_->graph().Links(slot);
      EXPECT_GT(list[0], 0U);
      slots.insert(list + 1, list + 1 + list[0]);
    }
    return slots;
  };
  // One that leads to others, but to which nothing leads, is an audit's to find.
  for (const std::uint32_t slot : stay) {
    if (!led_to().contains(slot)) work_->Relink(slot);
  }
  EXPECT_EQ(led_to().size(), stay.size());
}

// Every allocation of it fails once, wherever it is: what is tried again then ends as if nothing had been.
TEST_F(ConsolidationTest, WithoutMemoryItIsTriedAgain) {
  using test::FailAllocations;
  Fill(1500);
  std::uint32_t next = 1500;
  std::vector<std::uint32_t> room;
  std::size_t failures = 0;
  for (std::size_t after = 0; after < 60; ++after) {
    for (std::uint32_t slot = 0; slot < segment_->used(); ++slot) {
      if (segment_->IsNode(slot) && !segment_->IsDead(slot) && (slot + after) % 6 == 0) segment_->MarkDead(slot);
    }
    const auto again = [&](const auto& step) {
      const FailAllocations failing(FailAllocations::Of::kThisThread, after, FailAllocations::Times::kOnce);
      for (int tries = 0; tries < 2; ++tries) {
        try {
          step();
          return;
        } catch (const std::bad_alloc&) {
          ++failures;
        }
      }
    };
    again([&] { work_->Begin(); });
    ASSERT_TRUE(work_->active());
    again([&] {
      while (!work_->unlinked()) work_->Slice(64);
    });
    for (const std::uint32_t slot : End()) room.push_back(slot);
    for (int i = 0; i < 30 && !room.empty(); ++i, room.pop_back()) {
      Put(room.back(), next++ % 4000);
      again([&] {
        if (!segment_->Chain(room.back())) segment_->graph().Link(room.back(), segment_->used());
      });
      segment_->SetNode(room.back(), true);
    }
  }
  EXPECT_GT(failures, 20U) << "it was meant to fail";
}

}  // namespace
}  // namespace freshet
