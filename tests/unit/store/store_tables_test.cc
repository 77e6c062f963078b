// What RocksDB believes of a table: its footer, which no checksum covers, and the properties, before it compares
// theirs.
#include <filesystem>
#include <fstream>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "store_fixture.h"

namespace freshet::test {
namespace {

// RocksDB believes some of these (a format in which blocks do not say how long they are, no checksums at all) and may
// abort over what it reads then: a run of 5,000 damages met "LZ4_Uncompress: Assertion failed".
TEST(StoreTables, EveryBitOfAFootersUncheckedPartIsFound) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes(0).Put("a", 1.0F).Take()));
    ASSERT_OK(node.store->Flush());
  }
  std::string table;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "data")) {
    if (entry.path().extension() == ".sst") table = entry.path();
  }
  ASSERT_FALSE(table.empty());
  const std::string whole = *ReadFile(table);
  ASSERT_GT(whole.size(), 53U);
  const std::size_t footer = whole.size() - 53;
  std::vector<std::size_t> unchecked = {footer};  // the checksum type, the format version; RocksDB's: the magic number
  for (std::size_t at = footer + 41; at < whole.size(); ++at) unchecked.push_back(at);
  for (const std::size_t at : unchecked) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      std::ofstream(table, std::ios::binary) << damaged;
      const auto store = Store::Open(OptionsAt(dir / "data"));
      ASSERT_FALSE(store.ok()) << "byte " << at - footer << ", bit " << bit;
      EXPECT_EQ(store.status().code(), Code::kCorruption) << store.status().ToString();
      EXPECT_NE(store.status().message().find(std::filesystem::path(table).filename()), std::string::npos)
          << "the file is named: " << store.status().ToString();
    }
  }
  std::ofstream(table, std::ios::binary) << whole.substr(0, 20);
  EXPECT_EQ(Store::Open(OptionsAt(dir / "data")).status().code(), Code::kCorruption);
  std::ofstream(table, std::ios::binary) << whole;
  // What a killed process was writing is not of the store.
  for (const std::size_t size : {std::size_t{0}, std::size_t{20}, whole.size() - 10}) {
    std::ofstream(StrCat(dir / "data/", 900'000 + size, ".sst"), std::ios::binary) << whole.substr(0, size);
  }
  const auto store = Store::Open(OptionsAt(dir / "data"));
  ASSERT_OK(store);
  EXPECT_TRUE(*(*store)->GetItem("a"));
}

// 100,000 damages met "DataBlockHashIndex::Initialize: Assertion `num_buckets_ > 0' failed": a bit of the properties.
// Here and anywhere else before the footer a flipped bit is a corruption, and never the end of the process.
TEST(StoreTables, EveryByteBeforeTheFooterIsFound) {
  const TempDir dir;
  {
    OpenNode node(dir / "data");
    ASSERT_OK(node.applier->Apply(Changes(0).Put("a", 1.0F).Take()));
    ASSERT_OK(node.store->Flush());
  }
  for (const auto& entry : std::filesystem::directory_iterator(dir / "data")) {
    if (entry.path().extension() != ".sst") continue;
    const std::string whole = *ReadFile(entry.path());
    int refused = 0;
    for (std::size_t at = 0; at < whole.size() - 53; ++at) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x80);
      std::ofstream(dir / "damaged.sst", std::ios::binary) << damaged;
      const Status checked = Store::CheckTable(dir / "damaged.sst");
      ASSERT_EQ(checked.code(), Code::kCorruption) << "byte " << at;
      if (checked.message().find("block is damaged") != std::string::npos) ++refused;
    }
    EXPECT_GT(refused, 100) << "properties and metaindex, before RocksDB";
  }
}

}  // namespace
}  // namespace freshet::test
