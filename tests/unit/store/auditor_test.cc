// The audit beside everything else: a page at a time, at its pace, counted whatever comes of it.
#include "freshet/store/auditor.h"

#include "freshet/core/fault.h"
#include "node.h"

namespace freshet {
namespace {

class AuditTest : public ::testing::Test {
 protected:
  ~AuditTest() override { EXPECT_OK(ArmFaults("")); }
  void Put(int from, int to) {
    BatchBuilder batch;
    for (int i = from; i < to; ++i) batch.Put(std::to_string(i), i, static_cast<float>(i + 1));
    ASSERT_OK(node_.applier->Apply(batch.Take()));
  }
  // Every third item out of the index, and ghosts behind, between and after what is there.
  std::uint64_t Damage() {
    auto* index = const_cast<Index*>(&node_.applier->index());
    std::uint64_t differences = 0;
    for (const std::string& id : node_.Ids()) {
      if (std::stoi(id) % 3 != 0) continue;
      index->Tombstone(std::vector<Label>{*node_.applier->catalog().LabelOf(id)});
      ++differences;
    }
    for (const Label ghost : {Label{0}, Label{1'000}, Label{1'001}}) {
      EXPECT_OK(index->Insert(std::vector<Label>{ghost}, std::vector<float>{1, 0, 0}));
      ++differences;
    }
    return differences;
  }
  double Counted(const char* name) { return node_.metrics.GetCounter(name, "").Value(); }

  test::TempDir dir_;
  Node node_{dir_ / "data"};
};

TEST_F(AuditTest, FindsEveryDifferenceWhateverThePage) {
  Put(0, 50);
  for (const std::size_t rows : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{50}, std::size_t{1'000}}) {
    SCOPED_TRACE(rows);
    const std::uint64_t differences = Damage();
    EXPECT_FALSE(node_.applier->Audit().ok());
    AuditPace pace;
    pace.page_rows = rows;
    const auto found = node_.applier->AuditAndRepair(pace);
    ASSERT_OK(found);
    EXPECT_EQ(*found, differences);
    EXPECT_OK(node_.applier->Audit());
    EXPECT_EQ(*node_.applier->AuditAndRepair(pace), 0U);
  }
}

TEST_F(AuditTest, GivesWayBetweenPages) {
  Put(0, 50);
  std::vector<std::chrono::microseconds> waits;
  AuditPace pace;
  pace.page_rows = 10;
  pace.wait = [&](std::chrono::microseconds time) {
    waits.push_back(time);
    return true;
  };
  ASSERT_OK(node_.applier->AuditAndRepair(pace));
  EXPECT_GE(waits.size(), 4U);
  const std::size_t before = waits.size();
  ASSERT_OK(node_.applier->AuditStore(pace));
  EXPECT_GE(waits.size(), before + 4);
  for (const auto wait : waits) EXPECT_GT(wait.count(), 0);
  pace.wait = [](std::chrono::microseconds) { return false; };
  EXPECT_EQ(node_.applier->AuditAndRepair(pace).status().code(), Code::kCancelled);
  EXPECT_EQ(node_.applier->AuditStore(pace).status().code(), Code::kCancelled);
}

// Which is the index's own to divide into pieces.
TEST_F(AuditTest, GivesWayWhileTheIndexIsAsked) {
  Node node(dir_ / "hnsw", {}, [] {
    HnswOptions options;
    options.dim = kDim;
    options.capacity = 10'000;
    return MakeHnswIndex(options);
  });
  BatchBuilder batch;
  for (int i = 0; i < 5000; ++i) batch.Put(std::to_string(i), i, static_cast<float>(i + 1));
  ASSERT_OK(node.applier->Apply(batch.Take()));
  std::size_t waits = 0;
  AuditPace pace;
  pace.wait = [&](std::chrono::microseconds) {
    ++waits;
    return true;
  };
  ASSERT_OK(node.applier->AuditIndex(pace));
  EXPECT_GE(waits, 2U);
  pace.wait = [](std::chrono::microseconds) { return false; };
  EXPECT_EQ(node.applier->AuditIndex(pace).status().code(), Code::kCancelled);
}

TEST_F(AuditTest, WhatComesAndGoesMeanwhileIsNoDifference) {
  Put(0, 50);
  BoundedQueue<EncodedBatch> queue(4, std::size_t{1} << 20);
  node_.applier->Start(&queue, {});
  AuditPace pace;
  pace.page_rows = 8;
  std::int64_t offset = 50;
  pace.wait = [&](std::chrono::microseconds) {  // between pages everything is replaced
    BatchBuilder batch;
    for (int i = 0; i < 50; ++i, ++offset) batch.Put(std::to_string(i), offset, static_cast<float>(offset));
    return queue.Push(batch.Take(), 1) && offset < 5'000;
  };
  const auto found = node_.applier->AuditAndRepair(pace);
  EXPECT_TRUE(found.ok() ? *found == 0 : found.status().code() == Code::kCancelled);
  EXPECT_EQ(Counted("freshet_audit_differences_total"), 0);
  queue.Close();
  node_.applier->Join();
  EXPECT_OK(node_.applier->Audit());
}

TEST_F(AuditTest, TheStoresOwnNumbersAreCompared) {
  Put(0, 30);
  EXPECT_EQ(node_.applier->AuditStore()->differences, 0U);
  EXPECT_EQ(node_.applier->AuditStore()->covered, 30U);
  EncodedBatch gap = BatchBuilder().Put("x", 30).Put("y", 31).Take();
  gap.progress[0].next_offset = 31;
  ASSERT_OK(node_.applier->Apply(std::move(gap)));
  AuditPace pace;
  pace.page_rows = 4;
  const auto check = node_.applier->AuditStore(pace);
  ASSERT_OK(check);
  EXPECT_EQ(check->differences, 1U);
  EXPECT_EQ(check->examples.at(0), "items `y` comes from an offset that is not covered");
}

TEST_F(AuditTest, OneThatFailsIsAFailureAndDueAgain) {
  Put(0, 30);
  const std::uint64_t differences = Damage();
  ASSERT_OK(ArmFaults("audit.before_page=error@1"));
  Auditor auditor(node_.applier.get(), &node_.metrics);
  EXPECT_EQ(Counted("freshet_audit_failures_total"), 0);
  auditor.Start(std::chrono::milliseconds(10));
  EXPECT_TRUE(test::WaitFor([&] { return Counted("freshet_audit_failures_total") == 1; }));
  EXPECT_TRUE(test::WaitFor([&] { return Counted("freshet_audits_total") >= 2; }));
  auditor.Stop();
  EXPECT_EQ(Counted("freshet_audit_failures_total"), 1);
  EXPECT_EQ(Counted("freshet_audit_differences_total"), static_cast<double>(differences));
  EXPECT_EQ(Counted("freshet_audit_store_differences_total"), 0);
  EXPECT_OK(node_.applier->Audit());
}

TEST_F(AuditTest, ContradictionsOfTheStoreAreCounted) {
  EncodedBatch gap = BatchBuilder().Put("x", 0).Put("y", 1).Take();
  gap.progress[0].next_offset = 1;
  ASSERT_OK(node_.applier->Apply(std::move(gap)));
  Auditor auditor(node_.applier.get(), &node_.metrics);
  auditor.Start(std::chrono::milliseconds(10));
  EXPECT_TRUE(test::WaitFor([&] { return Counted("freshet_audit_store_differences_total") >= 1; }));
}

}  // namespace
}  // namespace freshet
