// Index files with the right checksums and something wrong behind them: refused, mapped as read.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index_builder.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "index_file_rewrite.h"

namespace freshet {
namespace {

constexpr int kDim = 8;

class IndexFileContent : public ::testing::Test {
 protected:
  IndexFileContent() {
    options_.dim = kDim;
    options_.metric = Metric::kL2;
    options_.m = 4;
    options_.ef_construction = 20;
    options_.capacity = kRows;
    Make();
  }
  void Make() {
    std::filesystem::remove(path_);
    const auto index = MakeHnswIndex(options_);
    EXPECT_OK(index);
    std::vector<Label> labels(kRows);
    std::iota(labels.begin(), labels.end(), Label{100});
    EXPECT_OK((*index)->Insert(labels, test::ClusteredVectors(test::TestSeed(), 0, kRows, kDim, 4).values));
    EXPECT_OK((*index)->Settle());
    const Label dead = 100;
    (*index)->Tombstone({&dead, 1});
    const auto cut = (*index)->Cut();
    EXPECT_OK(cut);
    EXPECT_OK((*cut)->Write(path_));
  }
  [[nodiscard]] Status Mapped() const { return OpenMappedIndex(path_, true).status(); }
  [[nodiscard]] Status Read() const { return OpenHnswIndex(path_, options_).status(); }
  // Both find it, and say where.
  void ExpectCorrupt(const std::string& what) const {
    for (const Status& status : {Mapped(), Read()}) {
      EXPECT_EQ(status.code(), Code::kCorruption) << status.ToString();
      EXPECT_NE(status.message().find(path_), std::string::npos);
      EXPECT_NE(status.message().find(what), std::string::npos) << status.ToString();
    }
  }

  static constexpr std::size_t kRows = 100;
  HnswOptions options_;
  const test::TempDir dir_;
  const std::string path_ = dir_ / "index";
};

TEST_F(IndexFileContent, PutTogetherAgainItIsAsBefore) {
  ASSERT_OK(test::RewriteIndexFile(path_, [](test::IndexFileParts*) {}));
  EXPECT_OK(Mapped());
  EXPECT_OK(Read());
}

// What is no damage is refused too, and told from it.
TEST_F(IndexFileContent, OfAnotherFormatIsRefusedByName) {
  const auto whole = ReadFile(path_);
  ASSERT_OK(whole);
  const auto expect = [&](std::size_t at, std::string_view bytes, Code code, const std::string& what) {
    std::string changed = *whole;
    changed.replace(at, bytes.size(), bytes);
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << changed;
    for (const Status& status :
         {Mapped(), Read(), OpenMappedIndex(path_, false).status(), InspectIndexFile(path_).status()}) {
      EXPECT_EQ(status.code(), code) << status.ToString();
      EXPECT_NE(status.message().find(path_), std::string::npos) << status.ToString();
      EXPECT_NE(status.message().find(what), std::string::npos) << status.ToString();
    }
  };
  constexpr std::size_t kVersion = 8;
  expect(kVersion, std::string_view("\3\0\0\0", 4), Code::kFailedPrecondition, "version 3; this program reads 1 to 2");
  expect(kVersion, std::string_view("\0\0\0\0", 4), Code::kFailedPrecondition, "version 0");
  expect(kVersion, std::string_view("\0\0\0\1", 4), Code::kFailedPrecondition, "another byte order");
  expect(0, "\nxdihsrf", Code::kCorruption, "not an index file");
}

TEST_F(IndexFileContent, ALabelTwiceIsRefused) {
  ASSERT_OK(test::RewriteIndexFile(path_, [](test::IndexFileParts* parts) {
    auto* labels = parts->Items<Label>(IndexSection::kLabels);
    *std::find(labels, labels + kRows, Label{150}) = 151;
  }));
  ExpectCorrupt("a label twice");
}

// Of a dead row and a live one it is no damage: an item that came again under its old label has that.
TEST_F(IndexFileContent, TheLabelOfADeadRowMayLive) {
  ASSERT_OK(test::RewriteIndexFile(path_, [](test::IndexFileParts* parts) {
    auto* labels = parts->Items<Label>(IndexSection::kLabels);
    *std::find(labels, labels + kRows, Label{100}) = 151;
  }));
  EXPECT_OK(Mapped());
  EXPECT_OK(Read());
}

TEST_F(IndexFileContent, ACodeThatKernelsDisagreeOnIsRefused) {
  ASSERT_OK(test::RewriteIndexFile(path_, [](test::IndexFileParts* parts) {
    parts->Items<std::int8_t>(IndexSection::kCodes)[37 * parts->header.row_bytes + 3] = -128;
  }));
  ExpectCorrupt("a code");
}

// An audit searches for what rows say, and would fail from then on.
TEST_F(IndexFileContent, ARowThatIsNotFiniteIsRefused) {
  const auto expect = [&](const std::function<void(test::IndexFileParts*)>& change) {
    Make();
    ASSERT_OK(Read());
    ASSERT_OK(test::RewriteIndexFile(path_, change));
    ExpectCorrupt("a row that is not finite");
  };
  // Of which codes make infinity.
  expect([](auto* parts) { parts->template Items<CodeHead>(IndexSection::kHeads)[31].scale = 1e38F; });
  for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    options_.rerank = Rerank::kFp32;
    expect([&](auto* parts) { parts->template Items<float>(IndexSection::kRerank)[31 * kDim + 2] = value; });
    expect([&](auto* parts) { parts->template Items<CodeHead>(IndexSection::kHeads)[31].norm = value; });
  }
  options_.rerank = Rerank::kFp16;
  for (const std::uint16_t half : std::vector<std::uint16_t>{0x7c00, 0xfc00, 0x7e01}) {
    expect([&](auto* parts) { parts->template Items<std::uint16_t>(IndexSection::kRerank)[31 * kDim + 2] = half; });
  }
}

// A search would follow it for ever: so it is refused where nothing else is read, too. Lists still lead to its slots.
TEST_F(IndexFileContent, ARingOfEqualVectorsIsRefusedWithoutVerifying) {
  const std::string good = StrCat(path_, ".good");
  std::filesystem::copy_file(path_, good);
  for (const std::vector<std::uint32_t>& ring : {std::vector<std::uint32_t>{7}, std::vector<std::uint32_t>{7, 70}}) {
    std::filesystem::copy_file(good, path_, std::filesystem::copy_options::overwrite_existing);
    ASSERT_OK(test::RewriteIndexFile(path_, [&](test::IndexFileParts* parts) {
      for (std::size_t i = 0; i < ring.size(); ++i) {
        ASSERT_TRUE(parts->IsNode(ring[i]));
        parts->Items<std::uint64_t>(IndexSection::kNodes)[ring[i] / 64] &= ~(std::uint64_t{1} << (ring[i] % 64));
        parts->Items<std::uint32_t>(IndexSection::kNextSame)[ring[i]] = ring[(i + 1) % ring.size()] + 1;
      }
    }));
    ExpectCorrupt("a chain");
    const Status status = OpenMappedIndex(path_, false).status();
    EXPECT_EQ(status.code(), Code::kCorruption) << status.ToString();
    EXPECT_NE(status.message().find("a chain"), std::string::npos) << status.ToString();
  }
}

// Every node on the highest level: far more lists than the room above level 0 is made for.
TEST_F(IndexFileContent, MoreLevelsThanThereIsRoomForAreRefused) {
  constexpr std::uint32_t kHighest = 16;
  ASSERT_OK(test::RewriteIndexFile(path_, [&](test::IndexFileParts* parts) {
    IndexFileHeader& header = parts->header;
    std::vector<std::uint32_t> uppers;
    for (std::uint32_t slot = 0; slot < kRows; ++slot) {
      if (!parts->IsNode(slot)) continue;
      uppers.push_back(slot);
      uppers.push_back(kHighest);
    }
    header.uppers = uppers.size() / 2;
    header.upper_lists = header.uppers * kHighest;
    header.entry_upper = 0;
    header.entry_level = kHighest;
    const auto set = [&](IndexSection id, const std::vector<std::uint32_t>& items) {
      const auto* bytes = reinterpret_cast<const std::byte*>(items.data());
      parts->sections[static_cast<std::size_t>(id)].assign(bytes, bytes + 4 * items.size());
    };
    set(IndexSection::kUppers, uppers);
    set(IndexSection::kUpperLinks, std::vector<std::uint32_t>(header.upper_lists * (header.m + 1)));
  }));
  EXPECT_EQ(Read().code(), Code::kResourceExhausted) << Read().ToString();
  EXPECT_OK(Mapped());  // which has no room to run out of
  options_.capacity = 16 * kRows;
  EXPECT_OK(Read());
}

}  // namespace
}  // namespace freshet
