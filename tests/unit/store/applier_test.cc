#include "freshet/store/applier.h"

#include <random>

#include "freshet/core/fault.h"
#include "freshet_test/test_support.h"
#include "node.h"

namespace freshet {
namespace {

using Ids = std::vector<std::string>;

TEST(Applier, AddsReplacesDeletesAndReAdds) {
  const test::TempDir dir;
  Node node(dir / "data");
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 0).Put("b", 1).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 2, -1).Delete("b", 3).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"a"}));
  EXPECT_EQ((**node.applier->GetVector("a"))[0], -1.0F);
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("b", 4).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  ASSERT_OK(node.applier->Audit());
  EXPECT_EQ(node.applier->sequence(), 5U);
}

TEST(Applier, KnowsWhenAnItemLastChanged) {
  const test::TempDir dir;
  Node node(dir / "data");
  const auto put = [](std::int64_t offset, float x, std::int64_t at_ms) {
    EncodedBatch batch = BatchBuilder().Put("a", offset, x).Take();
    batch.items[0].record_timestamp_ms = at_ms;
    return batch;
  };
  EXPECT_EQ(*node.applier->GetChangedMs("a"), std::nullopt);
  ASSERT_OK(node.applier->Apply(put(0, 1, 1'000)));
  EXPECT_EQ(*node.applier->GetChangedMs("a"), 1'000);
  ASSERT_OK(node.applier->Apply(put(1, 2, 2'000)));
  EXPECT_EQ(*node.applier->GetChangedMs("a"), 2'000);
  ASSERT_OK(node.applier->Apply(put(2, 2, 3'000)));
  EXPECT_EQ(*node.applier->GetChangedMs("a"), 2'000) << "the record said what was stored";
}

// Invariant 2: replaying any suffix changes nothing, nor does a delivery from before a rebalance.
TEST(Applier, AnyReplayedSuffixChangesNothing) {
  const test::TempDir dir;
  Node node(dir / "data");
  const auto log = [](std::int64_t from) {
    BatchBuilder builder;
    if (from <= 0) builder.Put("a", 0, 1);
    if (from <= 1) builder.Put("b", 1, 1);
    if (from <= 2) builder.Delete("a", 2);
    if (from <= 3) builder.Put("b", 3, -2);
    return builder.Take();
  };
  // A batch holds the last write of an item only, as the encode stage makes it.
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 0, 1).Put("b", 1, 1).Take()));
  ASSERT_OK(node.applier->Apply(BatchBuilder().Delete("a", 2).Put("b", 3, -2).Take()));
  const auto row = **node.store->GetItem("b");
  const std::uint64_t outbox = node.store->outbox_records();
  for (std::int64_t from = 0; from <= 3; ++from) {
    ASSERT_OK(node.applier->Apply(log(from)));
    EXPECT_EQ(node.Ids(), (Ids{"b"}));
    EXPECT_EQ((**node.store->GetItem("b")).sequence, row.sequence);
    EXPECT_EQ(node.store->outbox_records(), outbox);
  }
}

TEST(Applier, InteractionsAreAppliedOnceHoweverOftenTheyCome) {
  const test::TempDir dir;
  Node node(dir / "data");
  const auto batch = [] { return BatchBuilder(0, "interactions").Buy("u", "a", 0).Buy("u", "b", 1).Take(); };
  ASSERT_OK(node.applier->Apply(batch()));
  ASSERT_OK(node.applier->Apply(batch()));
  EXPECT_EQ((**node.applier->GetUser("u")).history.size(), 2U);
  // The same delivery twice within one batch: a partition was taken away and given back.
  ASSERT_OK(node.applier->Apply(BatchBuilder(0, "interactions").Buy("u", "c", 2).Buy("u", "c", 2).Take()));
  EXPECT_EQ((**node.applier->GetUser("u")).history.size(), 3U);
  EXPECT_EQ(node.applier->user_count(), 1U);
}

TEST(Applier, CountsInteractionsOnceAndAgainFromHistoriesAfterReopening) {
  const test::TempDir dir;
  const auto popular = [](const Node& node) {
    std::vector<std::string> ids;
    for (const auto& [id, count] : *node.applier->Popular()) ids.push_back(id);
    return ids;
  };
  {
    Node node(dir / "data");
    const auto batch = [] {
      return BatchBuilder(0, "interactions").Buy("u", "a", 0).Buy("u", "b", 1).Buy("v", "b", 2).Take();
    };
    ASSERT_OK(node.applier->Apply(batch()));
    ASSERT_OK(node.applier->Apply(batch()));
    EXPECT_EQ(popular(node), (std::vector<std::string>{"b", "a"}));
    EXPECT_NEAR((*node.applier->Popular())[0].second, 2.0, 1e-6);
    EXPECT_NEAR(node.applier->CountsOf({"b"})[0], 2.0, 1e-6);
  }
  EXPECT_EQ(popular(Node(dir / "data")), (std::vector<std::string>{"b", "a"}));
}

TEST(Applier, AttributesAreFilterableAtOnceAndAfterReopening) {
  const test::TempDir dir;
  Filter films;
  films.condition = AnyCondition("category", {std::string("film")});
  const auto matching = [&](const Node& node) {
    const auto selection = node.applier->catalog().Select(films, {}, [] { return false; });
    EXPECT_OK(selection);
    return node.applier->catalog().IdsOf(*selection);
  };
  {
    Node node(dir / "data");
    EncodedBatch batch = BatchBuilder().Put("a", 0).Put("b", 1).Take();
    batch.items[0].update.attributes = {{"category", std::string("film")}};
    ASSERT_OK(node.applier->Apply(std::move(batch)));
    EXPECT_EQ(matching(node), std::vector<std::string>{"a"});
    batch = BatchBuilder().Put("b", 2).Delete("a", 3).Take();
    batch.items[0].update.attributes = {{"category", std::string("film")}};
    ASSERT_OK(node.applier->Apply(std::move(batch)));
    EXPECT_EQ(matching(node), std::vector<std::string>{"b"});
  }
  EXPECT_EQ(matching(Node(dir / "data")), std::vector<std::string>{"b"});
}

TEST(Applier, ContinuesAfterReopeningWithTheSameLabelsSequenceAndOffsets) {
  const test::TempDir dir;
  std::uint64_t sequence = 0;
  {
    Node node(dir / "data");
    ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 0).Put("b", 1).Delete("c", 2).Take()));
    sequence = node.applier->sequence();
  }
  Node node(dir / "data");
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  EXPECT_EQ(node.applier->sequence(), sequence);
  ASSERT_OK(node.applier->Audit());
  const auto offsets = node.applier->StoredOffsets({{"items", 0}, {"items", 1}});
  ASSERT_EQ(offsets.size(), 1U);
  EXPECT_EQ(offsets.begin()->second, 3);
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("d", 3).Take()));
  ASSERT_OK(node.applier->Audit());
  EXPECT_GT(node.applier->sequence(), sequence);
}

// A crash between commit and index: the index is rebuilt from the store, which has the change.
TEST(Applier, WhatWasCommittedIsThereAfterAFailureBeforeItBecameVisible) {
  const test::TempDir dir;
  {
    Node node(dir / "data");
    ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 0).Take()));
    ASSERT_OK(ArmFaults("store.after_write=stop@1"));
    EXPECT_FALSE(node.applier->Apply(BatchBuilder().Delete("a", 1).Put("b", 2).Take()).ok());
    ASSERT_OK(ArmFaults(""));
  }
  Node node(dir / "data");
  EXPECT_EQ(node.Ids(), (Ids{"b"}));
  ASSERT_OK(node.applier->Audit());
}

TEST(Applier, NothingOfABatchIsThereAfterAFailureBeforeTheCommit) {
  const test::TempDir dir;
  {
    Node node(dir / "data");
    ASSERT_OK(ArmFaults("store.before_write=stop@1"));
    EXPECT_FALSE(node.applier->Apply(BatchBuilder().Put("a", 0).Take()).ok());
    ASSERT_OK(ArmFaults(""));
  }
  Node node(dir / "data");
  EXPECT_TRUE(node.Ids().empty());
  EXPECT_TRUE(node.applier->StoredOffsets({{"items", 0}}).empty());
}

TEST(Applier, RefusesAnotherEmbeddingSpace) {
  const test::TempDir dir;
  Node node(dir / "data");
  EncodedBatch batch = BatchBuilder().Put("a", 0).Take();
  batch.space_id = "other";
  EXPECT_EQ(node.applier->Apply(std::move(batch)).code(), Code::kFailedPrecondition);
  EXPECT_TRUE(node.Ids().empty());
}

TEST(Applier, SkippedRecordsAdvanceTheOffsetAlone) {
  const test::TempDir dir;
  Node node(dir / "data");
  EncodedBatch batch = BatchBuilder().Put("a", 0).Take();
  batch.progress[0].next_offset = 10;  // nine poison records behind it
  ASSERT_OK(node.applier->Apply(std::move(batch)));
  EXPECT_EQ(node.applier->StoredOffsets({{"items", 0}}).begin()->second, 10);
}

ApplierOptions Follower() {
  ApplierOptions options;
  options.role = ApplierOptions::Role::kFollower;
  options.outbox = false;
  return options;
}

// What its engine gave up is another engine's to say: it may be deleted by now.
TEST(Follower, HidesWhatItsEngineDoesNotOwn) {
  const test::TempDir dir;
  const auto tell = [](std::int64_t offset, std::optional<std::vector<std::int32_t>> partitions) {
    EncodedBatch batch = BatchBuilder(0, "vectors").Epoch(5).Take();
    batch.progress[0].next_offset = offset + 1;
    batch.owned = OwnedItems{std::move(partitions)};
    return batch;
  };
  std::optional<Node> node;
  node.emplace(dir / "data", Follower());
  EncodedBatch items =
      BatchBuilder(1, "vectors").Epoch(5).Put("a", 0, 1, 10).Put("b", 1, 2, 11).Put("old", 2, 3, 12).Take();
  items.items[0].source_partition = 3;
  items.items[1].source_partition = 4;  // and of the last it is not known
  ASSERT_OK(node->applier->Apply(std::move(items)));
  EXPECT_EQ(node->Ids(), (Ids{"a", "b", "old"}));
  ASSERT_OK(node->applier->Apply(tell(0, std::vector<std::int32_t>{4})));
  EXPECT_EQ(node->Ids(), (Ids{"b", "old"}));
  node.reset();  // also where the engine says nothing for long
  node.emplace(dir / "data", Follower());
  EXPECT_EQ(node->Ids(), (Ids{"b", "old"}));
  ASSERT_OK(node->applier->Apply(tell(1, std::vector<std::int32_t>())));
  EXPECT_EQ(node->Ids(), (Ids{"old"}));
  ASSERT_OK(node->applier->Apply(tell(2, std::nullopt)));
  EXPECT_EQ(node->Ids(), (Ids{"a", "b", "old"}));
  node.reset();
  node.emplace(dir / "data", Follower());
  EXPECT_EQ(node->Ids(), (Ids{"a", "b", "old"}));
}

TEST(Follower, DropsWhatThePublisherSendsAgain) {
  const test::TempDir dir;
  Node node(dir / "data", Follower());
  const auto run = [](std::int64_t offset) {
    return BatchBuilder(2, "vectors").Epoch(5).Put("a", offset, 1, 11).Delete("b", offset + 1, 12).Take();
  };
  ASSERT_OK(node.applier->Apply(BatchBuilder(2, "vectors").Epoch(5).Put("b", 0, 1, 10).Take()));
  ASSERT_OK(node.applier->Apply(run(1)));
  ASSERT_OK(node.applier->Apply(BatchBuilder(2, "vectors").Epoch(5).Put("b", 3, 1, 13).Take()));
  ASSERT_OK(node.applier->Apply(run(4)));  // the publisher crashed before it trimmed
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  EXPECT_EQ(node.applier->sequence(), 13U);
  EXPECT_EQ(node.store->outbox_records(), 0U);
}

TEST(Follower, ANewWritersEpochReplacesWhatTheOldOneSaidOfThePartition) {
  const test::TempDir dir;
  Node node(dir / "data", Follower());
  ASSERT_OK(node.applier->Apply(BatchBuilder(0, "vectors").Epoch(5).Put("a", 0, 1, 100).Put("b", 1, 1, 101).Take()));
  ASSERT_OK(node.applier->Apply(BatchBuilder(1, "vectors").Epoch(5).Put("c", 0, 1, 102).Take()));
  ASSERT_OK(node.applier->Apply(BatchBuilder(0, "vectors").Epoch(6).Put("b", 2, -1, 1).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"b", "c"}));
  EXPECT_EQ((**node.applier->GetVector("b"))[0], -1.0F);
  ASSERT_OK(node.applier->Audit());
  // A straggler of the old epoch is nobody's word any more.
  ASSERT_OK(node.applier->Apply(BatchBuilder(0, "vectors").Epoch(5).Put("a", 3, 1, 200).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"b", "c"}));
}

TEST(Follower, ANewEpochForgetsTheUsersOfThePartitionToo) {
  const test::TempDir dir;
  Node node(dir / "data", Follower());
  const auto buy = [](std::uint64_t epoch, std::int64_t offset, std::uint64_t sequence, const char* user) {
    EncodedBatch batch = BatchBuilder(0, "user-events").Epoch(epoch).Buy(user, "a", offset).Take();
    batch.users[0].sequence = sequence;
    batch.progress[0].sequence = sequence;
    return batch;
  };
  ASSERT_OK(node.applier->Apply(buy(5, 0, 10, "u")));
  ASSERT_OK(node.applier->Apply(buy(5, 1, 11, "v")));
  ASSERT_OK(node.applier->Apply(buy(6, 2, 1, "u")));
  EXPECT_EQ((**node.applier->GetUser("u")).history.size(), 1U);
  EXPECT_FALSE(*node.applier->GetUser("v"));
  EXPECT_EQ(node.applier->user_count(), 1U);
}

}  // namespace
}  // namespace freshet
