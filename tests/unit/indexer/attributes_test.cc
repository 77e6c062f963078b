// Attributes of rows and masks over them, in every kind of index, beside the flat one and a map of what each row has;
// and in files.
#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "freshet/core/file.h"
#include "freshet/indexer/index_builder.h"
#include "freshet_test/test_support.h"
#include "freshet_test/vectors.h"
#include "index_file_rewrite.h"
#include "label_range.h"

namespace freshet {
namespace {

constexpr int kDim = 16;
constexpr std::size_t kWords = 2;

using Row = std::array<std::uint64_t, kWords>;

HnswOptions Options(std::size_t words = kWords) {
  HnswOptions options;
  options.dim = kDim;
  options.m = 8;
  options.ef_construction = 40;
  options.capacity = 30'000;
  options.rerank = Rerank::kFp32;  // as exact as the flat index
  options.attribute_words = words;
  return options;
}

class AttributesTest : public ::testing::Test {
 protected:
  AttributesTest() {
    auto made = MakeHnswIndex(Options());
    EXPECT_OK(made);
    hnsw_ = std::move(*made);
  }

  // Few bits, so that masks match some, all or none.
  Row RandomRow() {
    Row row{};
    for (std::size_t i = 0; i < kWords; ++i) row[i] = random_() & random_() & 0x8000'0000'0000'00ffULL;
    return row;
  }
  std::span<const float> Vectors(std::size_t begin, std::size_t count) const { return {set_.Row(begin), count * kDim}; }
  // Into both, and into the map.
  void Insert(std::span<const Label> labels, std::span<const float> vectors, bool with_attributes = true) {
    std::vector<std::uint64_t> attributes;
    for (const Label label : labels) {
      const Row row = with_attributes ? RandomRow() : Row{};
      rows_[label] = row;
      if (with_attributes) attributes.insert(attributes.end(), row.begin(), row.end());
    }
    ASSERT_OK(hnsw_->Insert(labels, vectors, attributes));
    ASSERT_OK(flat_->Insert(labels, vectors, attributes));
  }
  void Tombstone(std::span<const Label> labels) {
    for (const Label label : labels) rows_.erase(label);
    hnsw_->Tombstone(labels);
    flat_->Tombstone(labels);
  }
  [[nodiscard]] static bool Matches(const Row& row, const AttributeMasks& masks) {
    bool any = masks.any_of.empty();
    for (std::size_t bit = 0; bit < 64 * kWords; ++bit) {
      const auto has = [&](std::span<const std::uint64_t> words) {
        return !words.empty() && (words[bit / 64] >> (bit % 64) & 1) != 0;
      };
      if (has(masks.all_of) && !has(row)) return false;
      if (has(masks.none_of) && has(row)) return false;
      any = any || (has(masks.any_of) && has(row));
    }
    return any;
  }
  std::string Written(Index* index, const std::string& name) const {
    std::string path = dir_ / name;
    const auto cut = index->Cut();
    EXPECT_OK(cut);
    EXPECT_OK((*cut)->Write(path));
    return path;
  }
  // Every way of searching, with masks at random: min(k, live matching) rows that match; the exact way, the very same.
  void ExpectSame(const Index& index) {
    ASSERT_EQ(index.LiveLabels(), flat_->LiveLabels());
    for (int round = 0; round < 24; ++round) {
      const Row all = round % 3 == 0 ? RandomRow() : Row{};
      const Row any = RandomRow();
      const Row none = RandomRow();
      SearchOptions options;
      options.k = 1 + random_() % 60;
      options.ef = random_() % 80;
      if (round % 2 == 0) options.attributes.all_of = all;
      if (round % 4 != 1) options.attributes.any_of = any;
      if (round % 5 > 1) options.attributes.none_of = none;
      const auto matching = static_cast<std::size_t>(std::count_if(
          rows_.begin(), rows_.end(), [&](const auto& row) { return Matches(row.second, options.attributes); }));
      const auto query = Vectors(random_() % (set_.size - 1), 2);
      const auto expect_matching = [&](const std::vector<Hit>& hits) {
        EXPECT_EQ(hits.size(), std::min(options.k, matching));
        for (const Hit& hit : hits) {
          ASSERT_TRUE(rows_.contains(hit.label));
          EXPECT_TRUE(Matches(rows_[hit.label], options.attributes)) << hit.label;
        }
      };
      for (const int way : {0, 1, 2}) {
        options.scan = way == 1;
        options.exact = way == 2;
        const auto found = index.Search(query.first(kDim), options);
        ASSERT_OK(found);
        expect_matching(*found);
        const auto many = index.SearchMany(query, options);
        ASSERT_OK(many);
        for (const std::vector<Hit>& hits : *many) expect_matching(hits);
        if (way != 2) continue;
        const auto oracle = flat_->Search(query.first(kDim), options);
        ASSERT_OK(oracle);
        ASSERT_EQ(found->size(), oracle->size());
        for (std::size_t i = 0; i < found->size(); ++i) EXPECT_EQ((*found)[i].label, (*oracle)[i].label);
      }
    }
  }

  const std::uint64_t seed_ = test::TestSeed();
  std::mt19937_64 random_{seed_};
  const test::TempDir dir_;
  const test::VectorSet set_ = test::ClusteredVectors(seed_, 0, 9000, kDim, 30);
  std::unique_ptr<Index> hnsw_;
  const std::unique_ptr<Index> flat_ = MakeFlatIndex(kDim, Metric::kCosine, kWords);
  std::map<Label, Row> rows_;
};

// Fresh rows, linked ones, copies of one vector, slots used again, rebuilt, in files and back.
TEST_F(AttributesTest, EveryKindFindsWhatMatches) {
  Insert(Range(0, 3000), Vectors(0, 3000));
  for (int i = 0; i < 20; ++i) Insert(Range(9000 + static_cast<Label>(i), 9001 + static_cast<Label>(i)), Vectors(7, 1));
  ExpectSame(*flat_);
  ExpectSame(*hnsw_);
  ASSERT_OK(hnsw_->Settle());
  ExpectSame(*hnsw_);
  // The same labels again, with other attributes or none.
  Insert(Range(0, 200), Vectors(3000, 200));
  Insert(Range(200, 400), Vectors(200, 200), false);
  ExpectSame(*hnsw_);
  Tombstone(Range(300, 1500));
  ASSERT_OK(hnsw_->Maintain());
  ASSERT_OK(hnsw_->Settle());
  EXPECT_EQ(hnsw_->Stats().consolidations, 1U);
  Insert(Range(4000, 5000), Vectors(4000, 1000));  // into slots of the dead
  ExpectSame(*hnsw_);
  EXPECT_LT(hnsw_->Stats().slots, 3500U);

  Tombstone(Range(4500, 4600));
  const std::string path = Written(hnsw_.get(), "hnsw");
  const auto mapped = OpenIndexFile(path, OpenAs::kMapped, true);
  ASSERT_OK(mapped);
  EXPECT_EQ((*mapped)->attribute_words(), kWords);
  ExpectSame(**mapped);
  const auto flat = OpenIndexFile(Written(flat_.get(), "flat"), OpenAs::kMemory);
  ASSERT_OK(flat);
  ExpectSame(**flat);
  auto opened = OpenHnswIndex(path, Options());
  ASSERT_OK(opened);
  hnsw_ = std::move(*opened);
  ExpectSame(*hnsw_);
  // What was read goes on, into a file again.
  Insert(Range(6000, 6500), Vectors(6000, 500));
  ASSERT_OK(hnsw_->Settle());
  const auto again = OpenHnswIndex(Written(hnsw_.get(), "again"), Options());
  ASSERT_OK(again);
  ExpectSame(**again);
}

TEST_F(AttributesTest, RowsKeepTheirsThroughARebuild) {
  Insert(Range(0, 6000), Vectors(0, 6000));
  Tombstone(Range(1000, 5000));
  ASSERT_OK(hnsw_->Maintain());
  ASSERT_OK(hnsw_->Settle());
  ASSERT_OK(hnsw_->Maintain());  // most slots are free now
  Insert(Range(7000, 7300), Vectors(7000, 300));
  Insert(Range(100, 200), Vectors(8000, 100));
  Tombstone(Range(900, 950));
  ASSERT_OK(hnsw_->Settle());
  EXPECT_EQ(hnsw_->Stats().rebuilds, 1U);
  ExpectSame(*hnsw_);
}

// Together with a filter, both must agree.
TEST_F(AttributesTest, AreAskedBesideTheFilter) {
  class EvenLabels final : public LabelFilter {
   public:
    [[nodiscard]] bool Allows(Label label) const override { return label % 2 == 0; }
  };
  Insert(Range(0, 2000), Vectors(0, 2000));
  ASSERT_OK(hnsw_->Settle());
  const EvenLabels even;
  const Row any = {0xff, 0};
  SearchOptions options;
  options.k = 2000;
  options.filter = &even;
  options.attributes.any_of = any;
  const auto matching = static_cast<std::size_t>(std::count_if(rows_.begin(), rows_.end(), [&](const auto& row) {
    return row.first % 2 == 0 && Matches(row.second, options.attributes);
  }));
  EXPECT_GT(matching, 0U);
  for (const bool scan : {false, true}) {
    options.scan = scan;
    for (const Index* index : {hnsw_.get(), flat_.get()}) {
      const auto hits = index->Search(Vectors(5, 1), options);
      ASSERT_OK(hits);
      EXPECT_EQ(hits->size(), matching);
      for (const Hit& hit : *hits) EXPECT_EQ(hit.label % 2, 0U);
    }
  }
}

TEST_F(AttributesTest, OfAnotherSizeAreRefused) {
  const std::vector<std::uint64_t> words(64, ~std::uint64_t{0});
  const std::span<const std::uint64_t> some(words);
  Insert(Range(0, 10), Vectors(0, 10));
  const auto mapped = OpenMappedIndex(Written(hnsw_.get(), "index"), true);
  ASSERT_OK(mapped);
  for (Index* index : {hnsw_.get(), flat_.get()}) {
    for (const std::size_t size : {1U, 3U, 5U}) {
      EXPECT_EQ(index->Insert(Range(20, 22), Vectors(0, 2), some.first(size)).code(), Code::kInvalidArgument);
    }
    EXPECT_EQ(index->Stats().live, 10U);
  }
  for (const Index* index : {hnsw_.get(), flat_.get(), mapped->get()}) {
    for (const std::size_t size : {1U, 3U}) {
      for (const int which : {0, 1, 2}) {
        SearchOptions options;
        (which == 0   ? options.attributes.all_of
         : which == 1 ? options.attributes.any_of
                      : options.attributes.none_of) = some.first(size);
        EXPECT_EQ(index->Search(Vectors(0, 1), options).status().code(), Code::kInvalidArgument);
        EXPECT_EQ(index->SearchMany(Vectors(0, 2), options).status().code(), Code::kInvalidArgument);
      }
    }
  }
  EXPECT_EQ(MakeHnswIndex(Options(kMaxAttributeWords + 1)).status().code(), Code::kConfig);
  // An index without takes none.
  const auto none = MakeHnswIndex(Options(0));
  ASSERT_OK(none);
  EXPECT_EQ((*none)->Insert(Range(0, 1), Vectors(0, 1), some.first(1)).code(), Code::kInvalidArgument);
  ASSERT_OK((*none)->Insert(Range(0, 1), Vectors(0, 1)));
  SearchOptions options;
  options.attributes.any_of = some.first(1);
  EXPECT_EQ((*none)->Search(Vectors(0, 1), options).status().code(), Code::kInvalidArgument);
}

// Files of either are refused by the other; one without attributes is a file of version 1, as it always was.
TEST_F(AttributesTest, FilesSayHowManyWordsTheyHave) {
  const auto none = MakeHnswIndex(Options(0));
  ASSERT_OK(none);
  ASSERT_OK((*none)->Insert(Range(0, 10), Vectors(0, 10)));
  Insert(Range(0, 10), Vectors(0, 10));
  const std::string without = Written(none->get(), "without");
  const std::string with = Written(hnsw_.get(), "with");
  EXPECT_OK(OpenHnswIndex(without, Options(0)));
  EXPECT_OK(OpenHnswIndex(with, Options()));
  for (const Status& refused : {OpenHnswIndex(without, Options()).status(), OpenHnswIndex(with, Options(0)).status(),
                                OpenHnswIndex(with, Options(1)).status()}) {
    EXPECT_EQ(refused.code(), Code::kFailedPrecondition) << refused.ToString();
    EXPECT_NE(refused.message().find("attributes"), std::string::npos);
  }
  const auto bytes = ReadFile(without);
  ASSERT_OK(bytes);
  const auto at32 = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes->data() + at, sizeof(value));
    return value;
  };
  EXPECT_EQ(at32(8), 1U);
  EXPECT_EQ(at32(44), 0U);
  EXPECT_EQ(bytes->substr(352, 4096 - 352), std::string(4096 - 352, '\0')) << "the checksum is at 344, and the last";

  const std::string flat = Written(flat_.get(), "flat");
  EXPECT_OK(OpenFlatIndex(flat, kDim, Metric::kCosine, kWords));
  EXPECT_EQ(OpenFlatIndex(flat, kDim, Metric::kCosine).status().code(), Code::kFailedPrecondition);
  const std::string plain = Written(MakeFlatIndex(kDim, Metric::kCosine).get(), "plain");
  EXPECT_OK(OpenFlatIndex(plain, kDim, Metric::kCosine));
  EXPECT_EQ(OpenFlatIndex(plain, kDim, Metric::kCosine, 1).status().code(), Code::kFailedPrecondition);
}

TEST_F(AttributesTest, DamagedFilesAreRefusedByName) {
  Insert(Range(0, 400), Vectors(0, 400));
  ASSERT_OK(hnsw_->Settle());
  const std::string path = Written(hnsw_.get(), "index");
  const auto whole = ReadFile(path);
  ASSERT_OK(whole);
  IndexFileHeader header;
  std::memcpy(&header, whole->data(), sizeof(header));
  const IndexFileHeader::Section section = header.sections[static_cast<std::size_t>(IndexSection::kAttributes)];
  EXPECT_EQ(section.bytes, 400 * kWords * 8);
  const std::string damaged = dir_ / "damaged";
  const auto open = [&](const std::string& bytes) {
    std::ofstream(damaged, std::ios::binary | std::ios::trunc) << bytes;
    const Status mapped = OpenMappedIndex(damaged, true).status();
    Status read = OpenHnswIndex(damaged, Options()).status();
    EXPECT_EQ(mapped.ToString(), read.ToString());
    return read;
  };
  ASSERT_OK(open(*whole));
  // Each byte of the header, bytes of the section, and the file cut short within it and before it.
  for (std::size_t i = 0; i < sizeof(header) + 100; ++i) {
    std::string bytes = *whole;
    const std::size_t at = i < sizeof(header) ? i : section.offset + random_() % section.bytes;
    bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1U << (random_() % 8)));
    const Status status = open(bytes);
    EXPECT_TRUE(status.code() == Code::kCorruption || status.code() == Code::kFailedPrecondition) << i;
    EXPECT_NE(status.message().find(damaged), std::string::npos);
  }
  for (const std::size_t size : {section.offset, section.offset + 4096, whole->size() - 1}) {
    EXPECT_EQ(open(whole->substr(0, size)).code(), Code::kCorruption);
  }
  // With the right checksums: another number of words, none, too many.
  for (const std::uint32_t words : {1U, 3U, 0U, 9U}) {
    std::filesystem::copy_file(path, damaged, std::filesystem::copy_options::overwrite_existing);
    ASSERT_OK(test::RewriteIndexFile(damaged, [&](test::IndexFileParts* parts) {
      parts->header.attribute_words = words;
      if (words == 0) parts->sections.back().clear();
    }));
    // Without, it is a good file of version 1.
    EXPECT_EQ(OpenMappedIndex(damaged, true).status().code(), words == 0 ? Code::kOk : Code::kCorruption) << words;
  }
}

}  // namespace
}  // namespace freshet
