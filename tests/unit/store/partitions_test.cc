// Partitions that come, go, and are read again; and what changes nothing.
#include <optional>

#include "freshet/core/fault.h"
#include "node.h"

namespace freshet {
namespace {

using Ids = std::vector<std::string>;

ApplierOptions Engine() {
  ApplierOptions options;
  options.users_topic = "users";
  return options;
}

EncodedBatch Mark(PartitionMark::Kind kind, bool same_log = false, const std::string& topic = "items") {
  EncodedBatch batch;
  batch.space_id = "s";
  batch.marks.push_back({kind, {topic, 0}, same_log});
  return batch;
}
EncodedBatch Reread(bool same_log = false, const std::string& topic = "items") {
  return Mark(PartitionMark::Kind::kReread, same_log, topic);
}
EncodedBatch CaughtUp(const std::string& topic = "items") { return Mark(PartitionMark::Kind::kCaughtUp, false, topic); }

double Count(Node* node, const char* name, const char* help) { return node->metrics.GetCounter(name, help).Value(); }
double Unchanged(Node* node) {
  return Count(node, "freshet_unchanged_total",
               "Records that changed nothing: the item was as they say, or gone already");
}

TEST(Partitions, ItemsOfAPartitionThatIsGivenUpLeaveAtOnceAndReturnWithIt) {
  const test::TempDir dir;
  Node node(dir / "data");
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", 0).Put("b", 1).Take()));
  ASSERT_OK(node.applier->Apply(BatchBuilder(1).Put("c", 0).Take()));
  node.applier->Own({{"items", 1}, {"interactions", 0}});
  EXPECT_EQ(node.Ids(), (Ids{"c"}));
  EXPECT_EQ(node.applier->catalog().live(), 1U);
  EXPECT_EQ(node.applier->catalog().hidden(), 2U);
  EXPECT_FALSE(*node.applier->GetVector("a"));
  EXPECT_EQ(*node.applier->GetSequence("a"), 1U) << "stored all the same";
  EXPECT_EQ(*node.applier->GetSequence("nobody"), std::nullopt);
  EXPECT_EQ(node.applier->catalog().LabelOf("a"), std::nullopt);
  const auto selection = node.applier->catalog().Select({}, {}, [] { return false; });
  ASSERT_OK(selection);
  EXPECT_EQ(selection->count(), 1U);
  ASSERT_OK(node.applier->Audit());
  // What was in the queue is still applied, and stays out of sight.
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("d", 2).Delete("b", 3).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"c"}));
  node.applier->Own({{"items", 0}, {"items", 1}});
  EXPECT_EQ(node.Ids(), (Ids{"a", "c", "d"}));
  EXPECT_EQ(node.applier->catalog().hidden(), 0U);
  ASSERT_OK(node.applier->Audit());
}

TEST(Partitions, WhatARereadDoesNotMeetIsSweptAndPublishedAsDeletes) {
  const test::TempDir dir;
  Node node(dir / "data");
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("gone", 0).Put("same", 1).Put("new version", 2).Take()));
  ASSERT_OK(node.applier->Apply(BatchBuilder(1).Put("elsewhere", 7).Take()));
  ASSERT_OK(node.applier->Apply(Reread()));
  EXPECT_EQ(node.applier->Stored({{"items", 0}}).begin()->second.next_offset, 0);
  EXPECT_TRUE(node.applier->Stored({{"items", 0}}).begin()->second.rereading);
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("same", 0).Put("new version", 1, -1).Put("new", 2).Take()));
  EXPECT_EQ(Unchanged(&node), 1);
  const std::uint64_t before = node.store->outbox_records();
  ASSERT_OK(node.applier->Apply(CaughtUp()));
  EXPECT_EQ(node.Ids(), (Ids{"elsewhere", "new", "new version", "same"}));
  EXPECT_EQ(node.store->outbox_records(), before + 1);
  const auto outbox = node.store->ReadOutbox(1000, 1 << 20);
  ASSERT_OK(outbox);
  EXPECT_EQ(outbox->back().key, "gone");
  EXPECT_FALSE(outbox->back().value);
  EXPECT_FALSE(node.applier->Stored({{"items", 0}}).begin()->second.rereading);
  ASSERT_OK(node.applier->Audit());
  // Told once more, as after a change of owner: nothing is left to do.
  ASSERT_OK(node.applier->Apply(CaughtUp()));
  EXPECT_EQ(node.Ids().size(), 4U);
}

// A delete stays a delete while the same log is read once more, and nothing goes back in time.
TEST(Partitions, ReadingTheSameLogAgainOnlySaysWhatIsStillThere) {
  const test::TempDir dir;
  Node node(dir / "data");
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", 0, 1).Put("b", 1).Put("c", 2).Take()));
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", 3, -1).Delete("c", 4).Take()));
  ASSERT_OK(node.applier->Apply(Reread(/*same_log=*/true)));
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", 0, 1).Put("c", 2).Take()));
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  EXPECT_EQ((**node.applier->GetVector("a"))[0], -1.0F);
  ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", 3, -1).Delete("c", 4).Put("d", 5).Take()));
  ASSERT_OK(node.applier->Apply(CaughtUp()));
  EXPECT_EQ(node.Ids(), (Ids{"a", "d"})) << "the tombstone of b was compacted away";
  ASSERT_OK(node.applier->Audit());
}

// A partition that is being read again is behind what it brought: that is no difference, at any moment of it.
TEST(Partitions, ARereadIsNoDifference) {
  for (const bool same_log : {true, false}) {
    SCOPED_TRACE(same_log);
    const test::TempDir dir;
    Node node(dir / "data");
    const auto differences = [&] {
      const auto check = node.store->Check({});
      EXPECT_OK(check);
      for (const std::string& example : check->examples) ADD_FAILURE() << example;
      return check->differences;
    };
    ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", 50).Put("b", 51).Put("c", 52).Take()));
    ASSERT_OK(node.applier->Apply(Reread(same_log)));
    EXPECT_EQ(differences(), 0U);
    ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("a", same_log ? 50 : 0).Take()));
    EXPECT_EQ(differences(), 0U);
    ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("b", same_log ? 51 : 1).Put("d", same_log ? 53 : 2).Take()));
    EXPECT_EQ(differences(), 0U);
    ASSERT_OK(node.applier->Apply(CaughtUp()));
    EXPECT_EQ(node.Ids(), (Ids{"a", "b", "d"}));
    EXPECT_EQ(differences(), 0U);
    EXPECT_EQ(node.store->Check({})->covered, 3U);
  }
}

// Killed at every point of it: the next start goes on, and ends with the same.
TEST(Partitions, ARereadSurvivesACrashAnywhere) {
  for (const char* fault : {"store.before_write=stop@1", "store.after_write=stop@1", "applier.after_reread=stop@1",
                            "store.after_write=stop@2", "applier.within_sweep=stop@1", "applier.after_sweep=stop@1",
                            "store.before_write=stop@4", "store.after_write=stop@4"}) {
    SCOPED_TRACE(fault);
    const test::TempDir dir;
    {
      Node node(dir / "data");
      ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("gone", 0).Put("kept", 1).Take()));
      ASSERT_OK(ArmFaults(fault));
      Status status = node.applier->Apply(Reread());
      if (status.ok()) status = node.applier->Apply(BatchBuilder(0).Put("kept", 0).Put("added", 1).Take());
      if (status.ok()) status = node.applier->Apply(CaughtUp());
      EXPECT_FALSE(status.ok());
      ASSERT_OK(ArmFaults(""));
    }
    Node node(dir / "data");
    // As the consumer does it: go on from the stored offset, or begin where the mark was not stored.
    const PartitionProgress stored = node.applier->Stored({{"items", 0}}).begin()->second;
    if (!stored.rereading && stored.generation == 0) ASSERT_OK(node.applier->Apply(Reread()));
    ASSERT_OK(node.applier->Apply(BatchBuilder(0).Put("kept", 0).Put("added", 1).Take()));
    ASSERT_OK(node.applier->Apply(CaughtUp()));
    EXPECT_EQ(node.Ids(), (Ids{"added", "kept"}));
    EXPECT_FALSE(node.applier->Stored({{"items", 0}}).begin()->second.rereading);
    ASSERT_OK(node.applier->Audit());
  }
}

TEST(Partitions, AProfileThatIsInTheTopicNoMoreForgetsItsUser) {
  const test::TempDir dir;
  Node node(dir / "data", Engine());
  const auto profile = [](const std::string& user, std::int64_t offset) {
    UserChange change;
    change.body = UserUpdate{user, false, {{"age", 33.0}}};
    change.position = {0, offset};
    EncodedBatch batch = BatchBuilder(0, "users").Take();
    batch.users.push_back(std::move(change));
    batch.progress[0].next_offset = offset + 1;
    return batch;
  };
  ASSERT_OK(node.applier->Apply(profile("kept", 0)));
  ASSERT_OK(node.applier->Apply(profile("forgotten", 1)));
  ASSERT_OK(node.applier->Apply(
      BatchBuilder(0, "interactions").Buy("forgotten", "a", 0).Buy("nameless", "b", 1).Buy("kept", "c", 2).Take()));
  ASSERT_OK(node.applier->Apply(Reread(/*same_log=*/true, "users")));
  ASSERT_OK(node.applier->Apply(profile("kept", 0)));
  ASSERT_OK(node.applier->Apply(CaughtUp("users")));
  EXPECT_FALSE(*node.applier->GetUser("forgotten"));
  EXPECT_TRUE(*node.applier->GetUser("kept"));
  EXPECT_TRUE(*node.applier->GetUser("nameless")) << "of whom the topic never said anything";
  EXPECT_EQ(node.applier->user_count(), 2U);
  EXPECT_EQ(node.applier->Popular()->size(), 2U) << "what the forgotten user did is not counted any more";
}

// More partitions move keys: what is left of them in the old ones is older, whichever is read first.
TEST(Partitions, AnOlderRecordOfAnItemThatMovedToAnotherPartitionIsDropped) {
  const test::TempDir dir;
  Node node(dir / "data", Engine());
  const auto apply = [&](EncodedBatch batch, std::int64_t at_ms) {
    batch.items[0].record_timestamp_ms = at_ms;
    EXPECT_OK(node.applier->Apply(std::move(batch)));
  };
  const auto x = [&] { return (**node.applier->GetVector("a"))[0]; };
  apply(BatchBuilder(3).Put("a", 0, 5).Take(), 200);
  apply(BatchBuilder(0).Put("a", 0, 2).Take(), 100);
  EXPECT_EQ(x(), 5) << "the older one was read later";
  apply(BatchBuilder(0).Delete("a", 1).Take(), 150);
  EXPECT_EQ(node.Ids(), Ids{"a"});
  apply(BatchBuilder(0).Put("a", 2, 6).Take(), 300);
  EXPECT_EQ(x(), 6);
  apply(BatchBuilder(0).Put("a", 3, 7).Take(), 250);
  EXPECT_EQ(x(), 7) << "within a partition its order counts, whatever the clocks say";
  // The topic was made anew, and all of it is older: what a partition that is read again says is what there is.
  ASSERT_OK(node.applier->Apply(Reread(/*same_log=*/false)));
  apply(BatchBuilder(3).Put("a", 5, 8).Take(), 240);
  EXPECT_EQ(x(), 8);
}

// The topic with the users is read to its end long before that with the events: from the beginning, all of them are
// older than the forgetting.
TEST(Partitions, WhatAForgottenUserDidBeforeIsDroppedWhenItIsReadLater) {
  const test::TempDir dir;
  std::optional<Node> node;
  node.emplace(dir / "data", Engine());
  constexpr std::int64_t kForgottenMs = 100;
  UserChange forget;
  forget.body = UserUpdate{"u", true, {}};
  forget.position = {0, 0};
  forget.record_timestamp_ms = kForgottenMs;
  EncodedBatch batch = BatchBuilder(0, "users").Take();
  batch.users.push_back(forget);
  batch.progress[0].next_offset = 1;
  ASSERT_OK(node->applier->Apply(std::move(batch)));
  // An event's time is its offset here.
  ASSERT_OK(node->applier->Apply(BatchBuilder(0, "interactions")
                                     .Buy("u", "before", 7)
                                     .Buy("other", "before", 8)
                                     .Buy("u", "at", kForgottenMs)
                                     .Take()));
  EXPECT_FALSE(*node->applier->GetUser("u"));
  EXPECT_TRUE(*node->applier->GetUser("other"));
  EXPECT_EQ(node->applier->user_count(), 1U);
  EXPECT_EQ(node->applier->Popular()->size(), 1U);
  // Started again it still knows; who comes back is known by what is new.
  node.reset();
  node.emplace(dir / "data", Engine());
  ASSERT_OK(node->applier->Apply(BatchBuilder(0, "interactions").Buy("u", "after", kForgottenMs + 1).Take()));
  ASSERT_OK(node->applier->Apply(BatchBuilder(1, "interactions").Buy("u", "late", 9).Take()));
  const auto user = *node->applier->GetUser("u");
  ASSERT_TRUE(user);
  ASSERT_EQ(user->history.size(), 1U);
  EXPECT_EQ(user->history[0].item_id, "after");
  EXPECT_EQ(user->seen, std::vector<std::string>{"after"});
  // The note stays for as long as it may be needed.
  const std::int64_t noted_ms = node->clock.WallMs();
  EXPECT_EQ(*node->store->TrimForgotten(noted_ms), 1U);
  EXPECT_EQ(*node->store->TrimForgotten(noted_ms + 1), 0U);
  EXPECT_FALSE(*node->store->GetForgotten("u"));
}

TEST(Unchanged, ARecordThatSaysWhatIsStoredCostsOnlyItsOffset) {
  const test::TempDir dir;
  Node node(dir / "data");
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 0).Take()));
  const auto row = **node.store->GetItem("a");
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 1).Delete("never there", 2).Take()));
  EXPECT_EQ(Unchanged(&node), 2);
  EXPECT_EQ((**node.store->GetItem("a")).label, row.label);
  EXPECT_EQ(node.applier->sequence(), 1U);
  EXPECT_EQ(node.store->outbox_records(), 1U);
  EXPECT_EQ(node.applier->StoredOffsets({{"items", 0}}).begin()->second, 3);
}

TEST(Unchanged, AttributesAloneChangeWithoutANewVector) {
  const test::TempDir dir;
  Node node(dir / "data");
  ASSERT_OK(node.applier->Apply(BatchBuilder().Put("a", 0).Take()));
  const auto row = **node.store->GetItem("a");
  EncodedBatch batch = BatchBuilder().Put("a", 1).Take();
  batch.items[0].same_features = true;
  batch.items[0].update.vector.clear();
  batch.items[0].update.attributes = {{"title", std::string("x")}};
  ASSERT_OK(node.applier->Apply(std::move(batch)));
  const auto changed = **node.store->GetItem("a");
  EXPECT_EQ(changed.label, row.label);
  EXPECT_GT(changed.sequence, row.sequence);
  EXPECT_EQ((**node.applier->GetAttributes("a")).size(), 1U);
  EXPECT_EQ((**node.applier->GetVector("a"))[0], (**node.store->GetVector(row.label))[0]);
  EXPECT_EQ(node.applier->catalog().ValuesOf({"a"}, "title")[0].size(), 1U);
  const auto outbox = node.store->ReadOutbox(10, 1 << 20);
  ASSERT_OK(outbox);
  ASSERT_EQ(outbox->size(), 2U) << "followers learn it, with the vector";
  EXPECT_GT(outbox->back().value->size(), kDim * sizeof(float));
  ASSERT_OK(node.applier->Audit());
}

TEST(Unchanged, AVectorThatIsSaidToBeStoredAndIsNotStopsUs) {
  const test::TempDir dir;
  Node node(dir / "data");
  EncodedBatch batch = BatchBuilder().Put("a", 0).Take();
  batch.items[0].same_features = true;
  batch.items[0].update.vector.clear();
  EXPECT_EQ(node.applier->Apply(std::move(batch)).code(), Code::kInternal);
  EXPECT_TRUE(node.applier->StoredOffsets({{"items", 0}}).empty());
}

TEST(Popular, CountsAreThoseOfTheHistoriesWhateverComesAgain) {
  const test::TempDir dir;
  ApplierOptions options;
  options.history = 2;
  const auto counts = [](const Node& node) {
    std::map<std::string, int> all;
    for (const auto& [id, count] : *node.applier->Popular()) all[id] = static_cast<int>(count * 1000 + 0.5);
    return all;
  };
  std::map<std::string, int> before;
  {
    Node node(dir / "data", options);
    ASSERT_OK(node.applier->Apply(
        BatchBuilder(0, "interactions").Buy("u", "a", 0).Buy("u", "b", 1).Buy("u", "b", 2).Buy("v", "a", 3).Take()));
    before = counts(node);
    EXPECT_EQ(before.at("b"), 2000);
    EXPECT_EQ(before.at("a"), 1000) << "u's first left its history";
    // The producer sends them once more: other offsets, the same events.
    EncodedBatch again = BatchBuilder(0, "interactions").Buy("u", "a", 4).Buy("u", "b", 5).Buy("v", "a", 6).Take();
    std::get<Interaction>(again.users[0].body).timestamp_ms = 0;
    std::get<Interaction>(again.users[1].body).timestamp_ms = 1;
    std::get<Interaction>(again.users[2].body).timestamp_ms = 3;
    ASSERT_OK(node.applier->Apply(std::move(again)));
    EXPECT_EQ(counts(node), before);
  }
  EXPECT_EQ(counts(Node(dir / "data", options)), before);
}

}  // namespace
}  // namespace freshet
