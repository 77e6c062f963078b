#include "index_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/huge_pages.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::array<char, 8> kMagic = {'f', 'r', 's', 'h', 'i', 'd', 'x', '\n'};
constexpr std::uint32_t kVersions = 2;
constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kPiece = std::size_t{1} << 20;
// Written at once, and mapped at once: a huge page. Where it is written so, systems that keep files in large pages map
// it as one (Linux 6.16 with ext4, others with XFS): a search then jumps about in few pages.
constexpr std::size_t kChunk = kHugePage;
constexpr std::size_t kMappedAround = std::size_t{64} << 10;

std::uint64_t Sum(std::string_view bytes) {
  Xxh3Stream sum;
  sum.Update(bytes);
  return sum.Low64();
}

std::uint64_t HeaderSum(const std::byte* header, std::uint32_t version) {
  return Sum({reinterpret_cast<const char*>(header), HeaderSumOffset(version)});
}

Status WriteError(const std::string& path, int error) {
  const std::string text = StrCat(path, ": ", std::strerror(error));
  return error == ENOSPC || error == EDQUOT ? ResourceExhausted(text) : IoError(text);
}

bool Bit(std::span<const std::uint64_t> bits, std::uint64_t i) { return (bits[i / 64] >> (i % 64) & 1) != 0; }

}  // namespace

IndexFileWriter::~IndexFileWriter() {
  if (file_ < 0) return;
  (void)::close(file_);
  (void)std::remove(temporary_.c_str());
}

Status IndexFileWriter::Open() {
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) return WriteError(path_, errno);
  chunk_.reserve(kChunk);
  // The header comes last; until then its page is zero.
  return Put(std::vector<std::byte>(kPage).data(), kPage);
}

Status IndexFileWriter::Put(const std::byte* bytes, std::size_t size) {
  end_ += size;
  for (std::size_t done = 0; done < size;) {
    const std::size_t part = std::min(size - done, kChunk - chunk_.size());
    chunk_.insert(chunk_.end(), bytes + done, bytes + done + part);
    done += part;
    if (chunk_.size() == kChunk) FRESHET_TRY(Flush());
  }
  return written_ ? written_(size) : Status::Ok();
}

Status IndexFileWriter::Pad() {
  static constexpr std::array<std::byte, kPage> kZeros{};
  return Put(kZeros.data(), (kPage - end_ % kPage) % kPage);
}

Status IndexFileWriter::Flush() {
  FRESHET_TRY(Write(chunk_.data(), chunk_.size(), flushed_));
  flushed_ += chunk_.size();
  chunk_.clear();
  return Status::Ok();
}

Status IndexFileWriter::Write(const std::byte* bytes, std::size_t size, std::uint64_t offset) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t wrote = ::pwrite(file_, bytes + done, size - done, static_cast<off_t>(offset + done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return WriteError(path_, wrote == 0 ? ENOSPC : errno);
    done += static_cast<std::size_t>(wrote);
  }
  return Status::Ok();
}

Status IndexFileWriter::Section(IndexSection id, std::uint64_t count, std::size_t item_bytes,
                                const std::function<void(std::uint64_t, std::byte*)>& put) {
  IndexFileHeader::Section& section = sections_[static_cast<std::size_t>(id)];
  section.offset = end_;
  Xxh3Stream sum;
  const std::uint64_t per_piece = std::max<std::uint64_t>(1, kPiece / item_bytes);
  std::vector<std::byte> piece(per_piece * item_bytes);
  for (std::uint64_t begin = 0; begin < count; begin += per_piece) {
    const std::uint64_t items = std::min(per_piece, count - begin);
    for (std::uint64_t i = 0; i < items; ++i) put(begin + i, piece.data() + i * item_bytes);
    const std::size_t bytes = items * item_bytes;
    sum.Update({reinterpret_cast<const char*>(piece.data()), bytes});
    FRESHET_TRY(Put(piece.data(), bytes));
  }
  section.bytes = end_ - section.offset;
  section.xxh3 = sum.Low64();
  return Pad();
}

Status IndexFileWriter::Finish(IndexFileHeader header) {
  header.magic = kMagic;
  header.version = IndexFileVersion(header);
  header.sections = sections_;
  std::vector<std::byte> page(kPage);
  const std::size_t summed = HeaderSumOffset(header.version);
  std::memcpy(page.data(), &header, summed);
  header.xxh3 = HeaderSum(page.data(), header.version);
  std::memcpy(page.data() + summed, &header.xxh3, sizeof(header.xxh3));
  if (!chunk_.empty()) FRESHET_TRY(Flush());
  FRESHET_TRY(Write(page.data(), page.size(), 0));
  if (::fsync(file_) != 0) return WriteError(path_, errno);
  // A file is closed whatever close() says.
  if (::close(std::exchange(file_, -1)) != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    (void)std::remove(temporary_.c_str());
    return WriteError(path_, error);
  }
  return SyncDirectoryOf(path_);
}

IndexFile::~IndexFile() { (void)::munmap(const_cast<std::byte*>(begin_), size_); }

Status IndexFile::Bad(std::string_view what) const { return Corruption(StrCat(path_, ": ", what)); }

Result<std::unique_ptr<IndexFile>> IndexFile::Open(const std::string& path, bool whole) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const std::string text = StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? NotFound(text) : IoError(text);
  }
  struct stat info {};
  const bool known = ::fstat(file, &info) == 0;
  if (whole) (void)::posix_fadvise(file, 0, 0, POSIX_FADV_WILLNEED);  // read while what came first is checked
  const auto size = static_cast<std::uint64_t>(info.st_size);
  void* mapped = known && size >= kPage ? ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  const int error = errno;
  (void)::close(file);
  if (!known || (size >= kPage && mapped == MAP_FAILED)) return IoError(StrCat(path, ": ", std::strerror(error)));
  if (mapped == MAP_FAILED) return Corruption(StrCat(path, ": of ", size, " bytes, too short for an index file"));
  auto opened = std::unique_ptr<IndexFile>(new IndexFile(path, static_cast<const std::byte*>(mapped), size));
  // Of others' files the system says that all is in memory.
  opened->tells_what_is_there_ = info.st_uid == ::geteuid() || ::access(path.c_str(), W_OK) == 0;
  FRESHET_TRY(opened->ReadHeader());
  FRESHET_TRY(opened->CheckSections());
  FRESHET_TRY(opened->CheckUppers());
  FRESHET_TRY(opened->CheckChains());
  if (whole) FRESHET_TRY(opened->CheckWhole());
  return opened;
}

void IndexFile::MapAhead(std::chrono::microseconds most) const {
  if (!tells_what_is_there_) return;
  const auto end = std::chrono::steady_clock::now() + most;
  const auto touch = [this](std::uint64_t at) { (void)*static_cast<const volatile std::byte*>(begin_ + at); };
  for (std::uint64_t from = 0; from < size_ && std::chrono::steady_clock::now() < end; from += kChunk) {
    // One page tells of those around it: asking for all costs as much as mapping them.
    unsigned char is_there = 0;
    if (::mincore(const_cast<std::byte*>(begin_ + from), 1, &is_there) != 0) return;
    if ((is_there & 1) == 0) continue;
    // A read maps what lies around it in memory, too: a huge page, or as a rule 64 KB. MADV_POPULATE_READ, which goes
    // from page to page, takes several times as long where they are small.
    const std::uint64_t last = std::min(from + kChunk, size_) - 1;
    for (std::uint64_t at = from; at <= last; at += kMappedAround) touch(at);
    touch(last);
  }
}

Status IndexFile::ReadHeader() {
  IndexFileHeader& h = header_;
  std::memcpy(&h, begin_, sizeof(h));
  if (h.magic != kMagic) return Bad("not an index file");
  if (const std::uint32_t other = __builtin_bswap32(h.version); other >= 1 && other <= kVersions) {
    return FailedPrecondition(StrCat(path_, ": an index file of a machine with another byte order"));
  }
  if (h.version < 1 || h.version > kVersions) {
    return FailedPrecondition(
        StrCat(path_, ": an index file of version ", h.version, "; this program reads 1 to ", kVersions));
  }
  if (h.version == 1) h.sections[static_cast<std::size_t>(IndexSection::kAttributes)] = {};
  std::memcpy(&h.xxh3, begin_ + HeaderSumOffset(h.version), sizeof(h.xxh3));
  return h.xxh3 == HeaderSum(begin_, h.version) ? Status::Ok() : Bad("the header's checksum differs");
}

Status IndexFile::CheckSections() const {
  const IndexFileHeader& h = header_;
  if (h.dim < 1 || h.dim > 4096 || h.metric > 2 || h.rerank > 2 || h.m < 2 || h.m > 128 ||
      h.attribute_words > kMaxAttributeWords || h.version != IndexFileVersion(h)) {
    return Bad("the header names a dimension, metric, re-rank kind, m or attributes that there are none of");
  }
  if (h.rows >= kNoSlot / 2 || h.live > h.rows || h.uppers > h.rows) return Bad("the header's counts are too high");
  const Int8Codes codes(static_cast<Metric>(h.metric), static_cast<int>(h.dim));
  const Reranker reranker(static_cast<Rerank>(h.rerank), static_cast<Metric>(h.metric), static_cast<int>(h.dim));
  if (h.row_bytes != codes.row_bytes() || h.rerank_row_bytes != reranker.row_bytes())
    return Bad("rows of another size");
  const std::uint64_t words = (h.rows + 63) / 64 * 8;
  const std::uint64_t fresh = h.sections[static_cast<std::size_t>(IndexSection::kFresh)].bytes;
  const std::array<std::uint64_t, kIndexSections> sizes = {h.rows * (2 * h.m + 1) * 4,
                                                           h.rows * 4,
                                                           h.uppers * 8,
                                                           h.upper_lists * (h.m + 1) * 4,
                                                           h.rows * h.row_bytes,
                                                           h.rows * sizeof(CodeHead),
                                                           h.rows * h.rerank_row_bytes,
                                                           h.rows * sizeof(Label),
                                                           words,
                                                           words,
                                                           fresh,
                                                           h.rows * h.attribute_words * 8};
  if (fresh % 4 != 0 || fresh / 4 > h.rows || h.upper_lists > 16 * h.uppers || h.upper_lists >= kNoSlot)
    return Bad("the header's counts differ");
  std::uint64_t end = kPage;
  const std::size_t sections = h.version == 1 ? kIndexSections - 1 : kIndexSections;
  for (std::size_t i = 0; i < sections; ++i) {
    const IndexFileHeader::Section& section = h.sections[i];
    if (section.offset != end || section.bytes != sizes[i] || section.bytes > size_ - end) {
      return Bad(StrCat("section ", i, " is not where or as long as it should be"));
    }
    end = (end + section.bytes + kPage - 1) / kPage * kPage;
    if (end > size_) return Bad("truncated");
  }
  return end == size_ ? Status::Ok() : Bad("longer than its sections");
}

// The levels above are few, and their numbers index memory: always checked, and copied, so that the file cannot change
// them afterwards.
Status IndexFile::CheckUppers() {
  const IndexFileHeader& h = header_;
  const auto uppers = Items<std::uint32_t>(IndexSection::kUppers);
  std::uint64_t lists = 0;
  std::vector<std::uint32_t> levels;
  for (std::uint64_t upper = 0; upper < h.uppers; ++upper) {
    const std::uint32_t slot = uppers[2 * upper];
    const std::uint32_t level = uppers[2 * upper + 1];
    if (slot >= h.rows || level < 1 || level > 16 || lists + level > h.upper_lists)
      return Bad("a level that there is none of");
    upper_slots_.push_back(slot);
    upper_first_.push_back(static_cast<std::uint32_t>(lists));
    levels.push_back(level);
    lists += level;
  }
  if (lists != h.upper_lists) return Bad("lists that belong to no node");
  if (h.uppers == 0) return h.entry_upper == kNoSlot && h.entry_level == 0 ? Status::Ok() : Bad("no entry");
  if (h.entry_upper >= h.uppers || h.entry_level != levels[h.entry_upper]) return Bad("the entry is no node");
  const auto links = Items<std::uint32_t>(IndexSection::kUpperLinks);
  for (std::uint64_t upper = 0; upper < h.uppers; ++upper) {
    for (std::uint32_t level = 1; level <= levels[upper]; ++level) {
      const std::uint32_t* list = links.data() + (std::size_t{upper_first_[upper]} + level - 1) * (h.m + 1);
      if (list[0] > h.m) return Bad("a list of links that is too long");
      for (std::uint32_t i = 1; i <= list[0]; ++i) {
        if (list[i] >= h.uppers || levels[list[i]] < level) return Bad("a link to what is not on its level");
      }
    }
  }
  return Status::Ok();
}

// A search follows chains to their end: there must be one. Where each slot is led to once and no node is, all that
// nodes lead to are chains of their own that end; what else leads on is a ring, or led to by nothing.
Status IndexFile::CheckChains() const {
  const auto nodes = Items<std::uint64_t>(IndexSection::kNodes);
  const auto next_same = Items<std::uint32_t>(IndexSection::kNextSame);
  std::vector<bool> led_to;
  std::uint64_t links = 0;
  for (const std::uint32_t next : next_same) {
    if (next == 0) continue;
    led_to.resize(next_same.size());
    if (next > next_same.size() || Bit(nodes, next - 1) || led_to[next - 1]) {
      return Bad("a chain of equal vectors that is none");
    }
    led_to[next - 1] = true;
    ++links;
  }
  if (links == 0) return Status::Ok();
  for (std::uint64_t slot = 0; slot < next_same.size(); ++slot) {
    if (!Bit(nodes, slot)) continue;
    for (std::uint64_t at = slot; next_same[at] != 0; at = next_same[at] - 1) --links;
  }
  return links == 0 ? Status::Ok() : Bad("a chain of equal vectors that no node begins");
}

// By exponents of ones, which infinity and NaN have; an audit searches for what rows say.
bool IndexFile::AreRerankRowsFinite() const {
  bool finite = true;
  const auto look = [&](auto ones) {
    for (const auto bits : Items<decltype(ones)>(IndexSection::kRerank)) finite &= (bits & ones) != ones;
  };
  if (static_cast<Rerank>(header_.rerank) == Rerank::kFp32) look(std::uint32_t{0x7f800000});
  if (static_cast<Rerank>(header_.rerank) == Rerank::kFp16) look(std::uint16_t{0x7c00});
  return finite;
}

Status IndexFile::CheckWhole() const {
  const IndexFileHeader& h = header_;
  for (std::size_t i = 0; i < kIndexSections; ++i) {
    if (h.version == 1 && i == static_cast<std::size_t>(IndexSection::kAttributes)) continue;
    const auto bytes = Items<char>(static_cast<IndexSection>(i));
    if (Sum({bytes.data(), bytes.size()}) != h.sections[i].xxh3)
      return Bad(StrCat("the checksum of section ", i, " differs"));
  }
  const auto dead = Items<std::uint64_t>(IndexSection::kDead);
  const auto nodes = Items<std::uint64_t>(IndexSection::kNodes);
  const auto next_same = Items<std::uint32_t>(IndexSection::kNextSame);
  const auto heads = Items<CodeHead>(IndexSection::kHeads);
  // Where each row belongs: a node, in the chain of one, fresh, or nowhere, which only the dead may.
  std::vector<bool> placed(h.rows);
  std::uint64_t live = 0;
  for (std::uint64_t slot = 0; slot < h.rows; ++slot) {
    live += Bit(dead, slot) ? 0 : 1;
    // A scale of which the largest code makes a number that is finite.
    if (!(heads[slot].scale >= 0 && heads[slot].scale <= std::numeric_limits<float>::max() / 128) ||
        !std::isfinite(heads[slot].norm)) {
      return Bad("a row that is not finite");
    }
    if (!Bit(nodes, slot)) continue;
    placed[slot] = true;
    const std::uint32_t* list = Links(slot);
    if (list[0] > 2 * h.m) return Bad("a list of links that is too long");
    for (std::uint32_t i = 1; i <= list[0]; ++i) {
      if (list[i] >= h.rows || !Bit(nodes, list[i])) return Bad("a link to what is no node");
    }
  }
  if (live != h.live) return Bad("the count of live rows differs");
  // Kernels multiply codes in pairs, which for -128 would not fit, in each one differently.
  bool has_lowest = false;
  for (const std::int8_t code : Items<std::int8_t>(IndexSection::kCodes)) has_lowest |= code == -128;
  if (has_lowest) return Bad("a code that no vector has");
  if (!AreRerankRowsFinite()) return Bad("a row that is not finite");
  for (std::uint64_t slot = 0; slot < h.rows; ++slot) {
    if (!Bit(nodes, slot)) continue;
    for (std::uint64_t at = slot; next_same[at] != 0; at = next_same[at] - 1) placed[next_same[at] - 1] = true;
  }
  for (const std::uint32_t slot : Items<std::uint32_t>(IndexSection::kFresh)) {
    if (slot >= h.rows || placed[slot] || Bit(dead, slot) || next_same[slot] != 0)
      return Bad("a fresh row that is none");
    placed[slot] = true;
  }
  for (std::uint64_t slot = 0; slot < h.rows; ++slot) {
    if (!placed[slot] && (!Bit(dead, slot) || next_same[slot] != 0)) return Bad("a live row that nothing leads to");
  }
  for (const std::uint32_t slot : upper_slots_) {
    if (!Bit(nodes, slot)) return Bad("a node above that is none below");
  }
  return Status::Ok();
}

// By sorting them: who reads the file into memory learns it from the table of labels, sooner.
Status IndexFile::CheckLabels() const {
  const auto labels = Items<Label>(IndexSection::kLabels);
  const auto dead = Items<std::uint64_t>(IndexSection::kDead);
  std::vector<Label> live;
  live.reserve(header_.live);
  for (std::uint64_t slot = 0; slot < header_.rows; ++slot) {
    if (!Bit(dead, slot)) live.push_back(labels[slot]);
  }
  std::sort(live.begin(), live.end());
  return std::adjacent_find(live.begin(), live.end()) == live.end() ? Status::Ok() : Bad("a label twice");
}

}  // namespace freshet
