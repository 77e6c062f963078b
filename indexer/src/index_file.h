// The index file, versions 1 and 2: a graph index as it is in memory, to be read back or mapped. Format:
// indexer/README.md.
//
// Little-endian, sections at page boundaries, each with its length and checksum (the lower half of XXH3-128). A file is
// validated on open, field by field: what a search follows (counts, slots, levels, the entry) is right, or the file is
// refused with the reason.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/indexer/index.h"
#include "search_view.h"

namespace freshet {

enum class IndexSection : std::uint32_t {
  // The graph, which is written first, because nothing is linked meanwhile.
  kLinks,       // rows of {u32 count, 2 m u32 slots}
  kNextSame,    // rows of u32: one more than the next slot of a chain of equal vectors, 0 at its end
  kUppers,      // {u32 slot, u32 level} by upper id
  kUpperLinks,  // lists of {u32 count, m u32 upper ids}, those of an upper id one after another
  kCodes,       // rows of row_bytes
  kHeads,       // rows of {f32 scale, f32 norm}
  kRerank,      // rows of rerank_row_bytes
  kLabels,      // rows of u64
  kDead,        // a bitmap of u64 words
  kNodes,       // a bitmap of u64 words
  kFresh,       // u32 slots that are neither nodes nor in a chain of one
  kAttributes,  // rows of attribute_words u64; not in version 1
  kCount,
};
inline constexpr std::size_t kIndexSections = static_cast<std::size_t>(IndexSection::kCount);

// The first page of a file.
struct IndexFileHeader {
  std::array<char, 8> magic{};
  std::uint32_t version = 0;
  std::uint32_t dim = 0;
  std::uint32_t metric = 0;
  std::uint32_t rerank = 0;
  std::uint32_t m = 0;
  std::uint32_t row_bytes = 0;
  std::uint32_t rerank_row_bytes = 0;
  std::uint32_t entry_upper = 0;
  std::uint32_t entry_level = 0;
  std::uint32_t attribute_words = 0;  // version 1: 0
  std::uint64_t rows = 0;
  std::uint64_t live = 0;
  std::uint64_t uppers = 0;
  std::uint64_t upper_lists = 0;
  struct Section {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::uint64_t xxh3 = 0;
  };
  std::array<Section, kIndexSections> sections{};
  // Of all before it. In version 1 it comes where the last section is here: HeaderSumOffset().
  std::uint64_t xxh3 = 0;
};
static_assert(std::is_trivially_copyable_v<IndexFileHeader> && sizeof(IndexFileHeader) <= 4096);

// What is written, and the bytes of a header before its checksum: an index without attributes is a file of version 1.
[[nodiscard]] inline std::uint32_t IndexFileVersion(const IndexFileHeader& header) {
  return header.attribute_words == 0 ? 1 : 2;
}
[[nodiscard]] inline std::size_t HeaderSumOffset(std::uint32_t version) {
  return offsetof(IndexFileHeader, xxh3) - (version == 1 ? sizeof(IndexFileHeader::Section) : 0);
}

// Writes sections in order; the header comes last. Errors: kResourceExhausted (disk full), kIoError.
class IndexFileWriter {
 public:
  explicit IndexFileWriter(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {}
  ~IndexFileWriter();  // what was not finished is removed
  IndexFileWriter(const IndexFileWriter&) = delete;
  IndexFileWriter& operator=(const IndexFileWriter&) = delete;

  Status Open();
  // From now on told the bytes after each piece; its error ends the writing.
  void Tell(const std::function<Status(std::uint64_t)>& written) { written_ = written; }
  [[nodiscard]] std::uint64_t bytes() const { return end_; }
  // `count` items of `item_bytes`, each put where it is told.
  Status Section(IndexSection id, std::uint64_t count, std::size_t item_bytes,
                 const std::function<void(std::uint64_t item, std::byte* to)>& put);
  // fsyncs, renames, fsyncs the directory.
  Status Finish(IndexFileHeader header);

 private:
  // Behind what was put before; on to the next page.
  Status Put(const std::byte* bytes, std::size_t size);
  Status Pad();
  Status Flush();
  Status Write(const std::byte* bytes, std::size_t size, std::uint64_t offset);

  const std::string path_;
  const std::string temporary_;
  int file_ = -1;
  std::function<Status(std::uint64_t)> written_;
  std::uint64_t end_ = 0;
  std::uint64_t flushed_ = 0;
  std::vector<std::byte> chunk_;  // what lies between
  std::array<IndexFileHeader::Section, kIndexSections> sections_{};
};

// A mapped file.
class IndexFile {
 public:
  // Header, sizes, and the levels above are validated, and what lies in them is used as it is: links to slots that are
  // not there are passed over by the search itself. With `whole`, every byte: checksums, and that it is one index.
  // Errors: kNotFound, kCorruption, kFailedPrecondition (another version).
  [[nodiscard]] static Result<std::unique_ptr<IndexFile>> Open(const std::string& path, bool whole);
  // Maps pages that are in the system's memory already, in the file's order, until it has taken `most`, so that
  // searches need not stop for each of them: a first one would meet hundreds. Reads no disk, as a rule. For the file's
  // owner, and who may write it.
  void MapAhead(std::chrono::microseconds most) const;
  // No label is that of two live rows. Not part of Open(). Errors: kCorruption.
  [[nodiscard]] Status CheckLabels() const;
  ~IndexFile();
  IndexFile(const IndexFile&) = delete;
  IndexFile& operator=(const IndexFile&) = delete;

  [[nodiscard]] const IndexFileHeader& header() const { return header_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  template <typename T>
  [[nodiscard]] std::span<const T> Items(IndexSection id) const {
    const IndexFileHeader::Section& section = header_.sections[static_cast<std::size_t>(id)];
    return {reinterpret_cast<const T*>(begin_ + section.offset), section.bytes / sizeof(T)};
  }
  [[nodiscard]] const std::uint32_t* Links(std::uint64_t slot) const {
    return Items<std::uint32_t>(IndexSection::kLinks).data() + slot * (2 * header_.m + 1);
  }
  // By upper id: its list of level 1 among the lists of kUpperLinks.
  [[nodiscard]] const std::vector<std::uint32_t>& upper_first() const { return upper_first_; }
  [[nodiscard]] const std::vector<std::uint32_t>& upper_slots() const { return upper_slots_; }

 private:
  IndexFile(std::string path, const std::byte* begin, std::uint64_t size)
      : path_(std::move(path)), begin_(begin), size_(size) {}
  [[nodiscard]] Status Bad(std::string_view what) const;
  Status ReadHeader();
  [[nodiscard]] Status CheckSections() const;
  [[nodiscard]] Status CheckUppers();
  [[nodiscard]] Status CheckChains() const;
  [[nodiscard]] Status CheckWhole() const;
  [[nodiscard]] bool AreRerankRowsFinite() const;

  const std::string path_;
  const std::byte* begin_;
  const std::uint64_t size_;
  bool tells_what_is_there_ = false;
  IndexFileHeader header_;  // a copy
  std::vector<std::uint32_t> upper_first_;
  std::vector<std::uint32_t> upper_slots_;
};

}  // namespace freshet
