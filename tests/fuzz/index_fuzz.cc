// Index files that were changed at will are refused, or searched without harm: libFuzzer over the edits of a good file.
//
// An input says which of a few files made at the start, one of them of a flat index, whether checksums are made right
// again, so that what lies behind them is reached, and then edits. Mapped without and with all of it validated; what
// opens is searched. One input in kStreaming, by a hash of it, is opened as a streaming index too, audited, added to
// and deleted from: that starts a thread and reserves address space, a hundred times the cost of validating. What one
// way of validating refuses, the other refuses as well.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "freshet/core/checksum.h"
#include "freshet/core/strings.h"
#include "freshet/indexer/index_builder.h"
#include "index_file.h"

namespace freshet {
namespace {

constexpr int kDim = 4;
constexpr std::uint64_t kStreaming = 64;

void Check(const Status& status) {
  if (status.ok()) return;
  (void)std::fprintf(stderr, "index_fuzz: %s\n", status.ToString().c_str());
  std::abort();
}

HnswOptions OptionsOf(Rerank rerank, std::size_t m) {
  HnswOptions options;
  options.dim = kDim;
  options.metric = Metric::kL2;
  options.m = m;
  options.ef_construction = 16;
  options.rerank = rerank;
  options.capacity = 512;
  return options;
}

// Rows, copies among them, tombstones.
std::string MakeFile(const HnswOptions& options, std::size_t rows) {
  auto index = MakeHnswIndex(options);
  Check(index.status());
  std::mt19937_64 random(rows);
  std::normal_distribution<float> normal;
  std::array<float, kDim> vector{};
  for (Label label = 0; label < rows; ++label) {
    if (label % 7 != 3) {
      for (float& x : vector) x = normal(random);
    }
    const std::vector<std::uint64_t> attributes(options.attribute_words, label);
    Check((*index)->Insert({&label, 1}, vector, attributes));
  }
  Check((*index)->Settle());
  for (Label label = 0; label < rows; label += 5) (*index)->Tombstone({&label, 1});
  const std::string path = StrCat(std::filesystem::temp_directory_path().string(), "/freshet-index-fuzz-", ::getpid());
  {
    auto cut = (*index)->Cut();
    Check(cut.status());
    Check((*cut)->Write(path));
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::filesystem::remove(path);
  return bytes;
}

struct Base {
  HnswOptions options;
  std::string bytes;
  bool flat = false;
};

std::string MakeFlatFile() {
  const std::unique_ptr<Index> index = MakeFlatIndex(kDim, Metric::kL2);
  std::vector<float> vectors(9 * kDim);
  for (std::size_t i = 0; i < vectors.size(); ++i) vectors[i] = static_cast<float>(i % 7) - 3;
  Check(index->Insert(std::vector<Label>{1, 2, 3, 4, 5, 6, 7, 8, 9}, vectors));
  const std::string path = StrCat(std::filesystem::temp_directory_path().string(), "/freshet-flat-fuzz-", ::getpid());
  auto cut = index->Cut();
  Check(cut.status());
  Check((*cut)->Write(path));
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::filesystem::remove(path);
  return bytes;
}

const std::vector<Base>& Bases() {
  static const std::vector<Base> bases = [] {
    std::vector<Base> made;
    for (const auto& [rerank, m, rows] : {std::tuple(Rerank::kResidual8, std::size_t{4}, std::size_t{120}),
                                          std::tuple(Rerank::kFp32, std::size_t{2}, std::size_t{40}),
                                          std::tuple(Rerank::kFp16, std::size_t{3}, std::size_t{1}),
                                          std::tuple(Rerank::kResidual8, std::size_t{2}, std::size_t{0})}) {
      const HnswOptions options = OptionsOf(rerank, m);
      made.push_back({options, MakeFile(options, rows)});
    }
    HnswOptions with_attributes = OptionsOf(Rerank::kResidual8, 3);
    with_attributes.attribute_words = 2;
    made.push_back({with_attributes, MakeFile(with_attributes, 50)});
    made.push_back({OptionsOf(Rerank::kFp32, 2), MakeFlatFile(), true});
    return made;
  }();
  return bases;
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  [[nodiscard]] bool empty() const { return size_ == 0; }
  template <typename T>
  T Take() {
    T value{};
    const std::size_t bytes = std::min(sizeof(T), size_);
    std::memcpy(&value, data_, bytes);
    data_ += bytes;
    size_ -= bytes;
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

void Edit(Input* input, std::string* file) {
  const auto what = input->Take<std::uint8_t>();
  const auto at = input->Take<std::uint16_t>();
  if (file->size() < 16) return;
  // Anywhere; in the header; at the beginning of a page.
  const std::size_t place = what % 3 == 0   ? at * std::size_t{4} % (file->size() - 8)
                            : what % 3 == 1 ? at % std::min<std::size_t>(sizeof(IndexFileHeader), file->size() - 8)
                                            : (at % 16 * std::size_t{4096} + at / 16 % 64) % (file->size() - 8);
  switch (what / 3 % 6) {
    case 0:
      (*file)[place] = static_cast<char>(input->Take<std::uint8_t>());
      break;
    case 1: {
      const auto value = input->Take<std::uint32_t>();
      std::memcpy(file->data() + place, &value, sizeof(value));
      break;
    }
    case 2: {
      const auto value = input->Take<std::uint64_t>();
      std::memcpy(file->data() + place, &value, sizeof(value));
      break;
    }
    case 3: {  // a small step
      const auto step = input->Take<std::int8_t>();
      std::uint32_t value = 0;
      std::memcpy(&value, file->data() + place, sizeof(value));
      value += static_cast<std::uint32_t>(step);
      std::memcpy(file->data() + place, &value, sizeof(value));
      break;
    }
    case 4:
      file->resize(at % 2 == 0 ? place : place / 4096 * 4096);
      break;
    default:
      file->resize(std::min<std::size_t>(file->size() + at % 8 * 4096, std::size_t{1} << 18));
  }
}

std::uint64_t Sum(std::string_view bytes) {
  Xxh3Stream sum;
  sum.Update(bytes);
  return sum.Low64();
}

void CorrectSums(bool sections, bool whole, std::string* file) {
  if (file->size() < sizeof(IndexFileHeader)) return;
  IndexFileHeader header;
  std::memcpy(&header, file->data(), sizeof(header));
  for (IndexFileHeader::Section& section : header.sections) {
    if (!sections || section.offset > file->size() || section.bytes > file->size() - section.offset) continue;
    section.xxh3 = Sum(std::string_view(*file).substr(section.offset, section.bytes));
  }
  std::memcpy(file->data(), &header, sizeof(header));
  if (!whole) return;
  const std::size_t summed = HeaderSumOffset(header.version);
  const std::uint64_t sum = Sum(std::string_view(*file).substr(0, summed));
  std::memcpy(file->data() + summed, &sum, sizeof(sum));
}

void CorrectFlatSum(std::string* file) {
  if (file->size() < 8) return;
  const std::uint64_t sum = Xxh3(std::string_view(*file).substr(0, file->size() - 8));
  std::memcpy(file->data() + file->size() - 8, &sum, sizeof(sum));
}

void Search(const Index& index) {
  std::vector<float> query(static_cast<std::size_t>(index.dim()), 0.25F);
  const std::vector<std::uint64_t> any_of(index.attribute_words(), 5);
  for (const bool exact : {false, true}) {
    for (const std::size_t k : {1U, 50U}) {
      SearchOptions options;
      options.k = k;
      options.ef = 1;  // or all would be scanned
      options.exact = exact;
      options.attributes.any_of = any_of;
      const auto hits = index.Search(query, options);
      Check(hits.status());
      if (hits->size() > k) std::abort();
    }
  }
  (void)index.LiveLabels();
}

void OpenStreaming(const Base& base, const std::string& path, bool is_whole) {
  (void)InspectIndexFile(path);
  const auto opened = base.flat ? OpenFlatIndex(path, kDim, Metric::kL2) : OpenHnswIndex(path, base.options);
  // What the mapped kind does not mind is of other options, or has no room in these.
  const Code code = opened.status().code();
  if (!base.flat && opened.ok() != is_whole && code != Code::kFailedPrecondition && code != Code::kResourceExhausted) {
    std::abort();
  }
  if (!opened.ok()) return;
  Search(**opened);
  Check((*opened)->Audit({}).status());
  const Label label = 1'000'000;
  Check((*opened)->Insert({&label, 1}, std::array<float, kDim>{1, 2, 3, 4}));
  const Label gone = 7;
  (*opened)->Tombstone({&gone, 1});
  Check((*opened)->Settle());
  Search(**opened);
}

}  // namespace
}  // namespace freshet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace freshet;
  Input input(data, size);
  const auto choice = input.Take<std::uint8_t>();
  const Base& base = Bases()[choice % Bases().size()];
  std::string bytes = base.bytes;
  while (!input.empty()) Edit(&input, &bytes);
  if (!base.flat) {
    CorrectSums((choice & 0x10) == 0, (choice & 0x20) == 0, &bytes);
  } else if ((choice & 0x10) == 0) {
    CorrectFlatSum(&bytes);
  }

  // One file for all: its pages are there already.
  static const int file = ::memfd_create("index", MFD_CLOEXEC);
  if (file < 0 || ::ftruncate(file, static_cast<off_t>(bytes.size())) != 0 ||
      ::pwrite(file, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    std::abort();
  }
  static const std::string path = StrCat("/proc/self/fd/", file);
  bool is_whole = false;
  for (const bool verify : {false, true}) {
    const auto mapped = OpenMappedIndex(path, verify);
    if (mapped.ok()) Search(**mapped);
    is_whole = mapped.ok();
  }
  if (Xxh3({reinterpret_cast<const char*>(data), size}) % kStreaming == 0) OpenStreaming(base, path, is_whole);
  return 0;
}
