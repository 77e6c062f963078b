#include "freshet/store/index_files.h"

#include <filesystem>
#include <fstream>

#include "fault_env.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "store_fixture.h"

namespace freshet::test {
namespace {

using Ids = std::vector<std::string>;

TEST(IndexFiles, AFileOfTheSameMomentBringsEverything) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Put("b", -1).Take()));
    EXPECT_FALSE(IndexFiles(node.store.get()).IsCurrent(node.applier->sequence()));
    node.SaveIndex();
    EXPECT_TRUE(IndexFiles(node.store.get()).IsCurrent(node.applier->sequence()));
  }
  OpenNode node(dir / "data");
  EXPECT_EQ(node.applier->rebuilt_items(), 0U);
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  EXPECT_OK(node.applier->Audit());
}

// What came after the file is in the store; what went, too.
TEST(IndexFiles, AnOlderFileIsReconciledWithTheStore) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Put("b").Put("c").Take()));
    node.SaveIndex();
    ASSERT_OK(node.applier->Apply(Changes(3).Delete("a").Put("b", -1).Put("d").Take()));
  }
  OpenNode node(dir / "data");
  EXPECT_EQ(node.applier->rebuilt_items(), 2U);  // the new b, and d
  EXPECT_EQ(node.Ids(), (Ids{"b", "c", "d"}));
  EXPECT_OK(node.applier->Audit());
  SearchOptions nearest;
  nearest.k = 1;
  const auto hits = node.applier->index().Search(std::vector<float>{-1, 1, 0}, nearest);
  ASSERT_OK(hits);
  EXPECT_EQ((*hits)[0].label, node.applier->catalog().LabelOf("b"));
}

// A store that lost the end of its log gives the same labels to others: a file of the lost future is not its own.
TEST(IndexFiles, AFileThatTheStoreDoesNotNameIsNotUsed) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
  }
  std::filesystem::copy(dir / "data", dir / "torn", std::filesystem::copy_options::recursive);
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes(1).Put("b").Take()));
    node.SaveIndex();
  }
  std::filesystem::copy(dir / "data/index", dir / "torn/index");
  OpenNode node(dir / "torn");
  EXPECT_EQ(node.applier->rebuilt_items(), 1U);
  EXPECT_TRUE(std::filesystem::is_empty(dir / "torn/index"));
}

TEST(IndexFiles, ADamagedFileCostsTimeOnly) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Put("b").Take()));
    node.SaveIndex();
  }
  const auto file = std::filesystem::directory_iterator(dir / "data/index")->path();
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  OpenNode node(dir / "data");
  EXPECT_EQ(node.applier->rebuilt_items(), 2U);
  EXPECT_OK(node.applier->Audit());
}

TEST(IndexFiles, AFailureAtAnyStepLeavesTheOneBefore) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
    node.SaveIndex();
    ASSERT_OK(node.applier->Apply(Changes(1).Put("b").Take()));
    for (const char* point :
         {"index_file.before_write", "index_file.before_sync", "index_file.after_write", "index_file.before_named"}) {
      ASSERT_OK(ArmFaults(std::string(point) + "=error"));
      auto cut = node.applier->CutIndex();
      ASSERT_OK(cut);
      EXPECT_FALSE(IndexFiles(node.store.get()).Save(**cut, node.applier->sequence()).ok()) << point;
    }
    ASSERT_OK(ArmFaults(""));
  }
  OpenNode node(dir / "data");
  EXPECT_EQ(node.applier->rebuilt_items(), 1U);
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
}

// The name of the new file is on the disk before the old one goes: a power loss costs no rebuild.
TEST(IndexFiles, APowerLossLeavesAFileThatTheStoreNames) {
  const TempDir dir;
  const FaultEnv fault;
  StoreOptions options = OptionsAt(dir / "data");
  options.env = fault.env.get();
  {
    OpenNode node(options);
    ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
    node.SaveIndex();
    ASSERT_OK(node.applier->Apply(Changes(1).Put("b").Take()));
    node.SaveIndex();
    fault.files->LosePower();
  }
  fault.files->DropUnsynced();
  OpenNode node(dir / "data");
  EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));  // what was committed before it is synced with it
  EXPECT_EQ(node.applier->rebuilt_items(), 0U);
  EXPECT_OK(node.applier->Audit());
}

// However often it fails once the file is named: two files at most, and the next start uses the one that is named.
TEST(IndexFiles, AFailureAfterNamingKeepsWhatIsNamed) {
  const TempDir dir;
  for (const char* point : {"index_file.after_named", "index_file.before_log_sync", "index_file.before_remove"}) {
    SCOPED_TRACE(point);
    const std::string data = dir / point;
    {
      OpenNode node(data);
      ASSERT_OK(node.applier->Apply(Changes().Put("a").Take()));
      node.SaveIndex();
      ASSERT_OK(node.applier->Apply(Changes(1).Put("b").Take()));
      for (int i = 0; i < 3; ++i) {
        ASSERT_OK(ArmFaults(std::string(point) + "=error"));
        auto cut = node.applier->CutIndex();
        ASSERT_OK(cut);
        EXPECT_FALSE(IndexFiles(node.store.get()).Save(**cut, node.applier->sequence()).ok());
        EXPECT_LE(std::distance(std::filesystem::directory_iterator(data + "/index"), {}), 2);
      }
      ASSERT_OK(ArmFaults(""));
    }
    OpenNode node(data);
    EXPECT_EQ(node.applier->rebuilt_items(), 0U);
    EXPECT_EQ(node.Ids(), (Ids{"a", "b"}));
  }
}

// Index and store differ: found while batches go on, and repaired from the store.
TEST(Audit, RepairsTheIndexFromTheStore) {
  const TempDir dir;
  OpenNode node(dir / "data");
  ASSERT_OK(node.applier->Apply(Changes().Put("a").Put("b").Put("c").Take()));
  EXPECT_EQ(*node.applier->AuditAndRepair(), 0U);
  auto* index = const_cast<Index*>(&node.applier->index());
  index->Tombstone(std::vector<Label>{*node.applier->catalog().LabelOf("b")});
  ASSERT_OK(index->Insert(std::vector<Label>{1000}, std::vector<float>{1, 0, 0}));
  EXPECT_FALSE(node.applier->Audit().ok());
  EXPECT_EQ(*node.applier->AuditAndRepair(), 2U);
  EXPECT_OK(node.applier->Audit());
}

// While the store cannot be written nothing is lost, and applying goes on by itself.
TEST(AtRest, SeesEverythingCommittedAndNothingInBetween) {
  const TempDir dir;
  OpenNode node(dir / "data");
  BoundedQueue<EncodedBatch> queue(4, 1 << 20);
  node.applier->Start(&queue, {});
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(queue.Push(Changes(i).Put("item " + std::to_string(i)).Take(), 1));
    if (i % 10 != 0) continue;
    ASSERT_OK(node.applier->AtRest([&] {
      EXPECT_EQ(node.store->sequence(), node.applier->sequence());
      return node.applier->Audit();
    }));
  }
  EXPECT_EQ(node.applier->AtRest([] { return NotFound("as the work says"); }).code(), Code::kNotFound);
  queue.Close();
  node.applier->Join();
  EXPECT_OK(node.applier->AtRest([&] { return node.applier->Audit(); }));
  EXPECT_EQ(node.applier->sequence(), 50U);
}

}  // namespace
}  // namespace freshet::test
