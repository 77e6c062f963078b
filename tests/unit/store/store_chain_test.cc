// No commit in the middle of a store is lost unnoticed.
#include <filesystem>
#include <fstream>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "store_fixture.h"

namespace freshet::test {
namespace {

// A store that is closed: its last commits are in the log still, as after a kill.
void Copy(const std::string& from, const std::string& to) {
  std::filesystem::remove_all(to);
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

std::string FileOf(const std::string& directory, std::string_view prefix, std::string_view suffix) {
  std::string newest;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(prefix) && name.ends_with(suffix)) newest = std::max(newest, entry.path().string());
  }
  return newest;
}

// RocksDB opens most of these without a word (a tail that does not decode is one that was torn): with the log's commit
// on top of what is left. Whole, or refused; a store without its last commits says so by its sequence.
TEST(StoreChain, AManifestThatEndsEarlyIsFound) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    for (int i = 0; i < 3; ++i) {
      ASSERT_OK(node.applier->Apply(Changes(i).Put("a", static_cast<float>(i)).Take()));
      if (i < 2) ASSERT_OK(node.store->Flush());
    }
  }
  const std::string manifest = FileOf(dir / "data", "MANIFEST-", "");
  const std::string whole = *ReadFile(manifest);
  int refused = 0;
  int by_chain = 0;
  for (std::size_t size = whole.size(); size > 0; size -= std::min<std::size_t>(size, 97)) {
    Copy(dir / "data", dir / "copy");
    std::ofstream(FileOf(dir / "copy", "MANIFEST-", ""), std::ios::binary) << whole.substr(0, size);
    auto store = Store::Open(OptionsAt(dir / "copy"));
    if (!store.ok()) {
      ASSERT_EQ(store.status().code(), Code::kCorruption) << size << ": " << store.status().ToString();
      ++refused;
      by_chain += store.status().message().find(" commit ") != std::string::npos ? 1 : 0;
      continue;
    }
    const auto row = (*store)->GetItem("a");
    ASSERT_OK(row);
    ASSERT_TRUE(*row) << size;
    EXPECT_EQ((*row)->position.offset, 2) << size;
    EXPECT_EQ((*store)->Check({})->differences, 0U) << size;
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(by_chain, 0) << "RocksDB finds all of them by itself: is the chain still needed?";
}

TEST(StoreChain, ACommitInTheMiddleThatIsGoneIsNamed) {
  const TempDir dir;
  // Each process turns its predecessor's log into tables: what is closed has one commit in its log.
  for (int i = 0; i < 3; ++i) {
    if (i > 0) Copy(dir / "data", dir / "before");
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes(i).Put(StrCat("item ", i)).Take()));
  }
  // The store after its second commit, whose log is lost, with the log of the third.
  const std::string log = FileOf(dir / "before", "", ".log");
  ASSERT_NE(log, "");
  std::filesystem::remove(log);
  std::filesystem::copy(FileOf(dir / "data", "", ".log"), dir / "before/");
  const Status status = Store::Open(OptionsAt(dir / "before")).status();
  EXPECT_EQ(status.code(), Code::kCorruption) << status.ToString();
  EXPECT_NE(status.message().find("commit 2 is missing"), std::string::npos) << status.ToString();
}

}  // namespace
}  // namespace freshet::test
