#include "store_tables.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "freshet/core/bytes.h"
#include "freshet/core/checksum.h"
#include "freshet/core/descriptor.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

// RocksDB's table/format.cc, format versions 1 to 5: u8 checksum type, two block handles in 40 bytes, u32 format
// version, u64 magic number.
constexpr std::size_t kFooterBytes = 53;
constexpr std::size_t kHandlesBytes = 40;
constexpr std::uint64_t kMagic = 0x88e241b785f4cff7;
constexpr std::size_t kTrailerBytes = 5;                          // of a block: u8 compression, u32 checksum
constexpr std::uint64_t kMaxBlockBytes = std::uint64_t{1} << 24;  // ours have less than a thousand
constexpr std::string_view kPropertiesBlock = "rocksdb.properties";

struct Block {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  // without its trailer
};

// RocksDB's util/coding.h: seven bits a byte, lowest first.
std::uint64_t GetVarint(ByteReader* in) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = in->Get<std::uint8_t>();
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80 || !in->ok()) return value;
  }
  in->Fail();
  return 0;
}

Block GetHandle(ByteReader* in) {
  Block block;
  block.offset = GetVarint(in);
  block.bytes = GetVarint(in);
  return block;
}

// What a block's trailer has for XXH3: the low half over all but the last byte, that one mixed in.
std::uint32_t ChecksumOf(std::string_view block_and_type) {
  constexpr std::uint32_t kLastByte = 0x6b9083d9;
  const auto hash = static_cast<std::uint32_t>(Xxh3(block_and_type.substr(0, block_and_type.size() - 1)));
  return hash ^ static_cast<std::uint8_t>(block_and_type.back()) * kLastByte;
}

class Table {
 public:
  Table(const std::string& path, const Descriptor& file, std::uint64_t bytes)
      : path_(path), file_(file), bytes_(bytes) {}

  Result<std::vector<char>> ReadAt(std::uint64_t offset, std::uint64_t size) const {
    std::vector<char> bytes(size);
    const ssize_t read = ::pread(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (read < 0) return FromErrno(errno, path_, "read");
    if (static_cast<std::uint64_t>(read) != size) return Corruption(StrCat(path_, ": became shorter"));
    return bytes;
  }

  // Its bytes without the trailer. Errors: kCorruption also where its checksum is another.
  Result<std::vector<char>> ReadBlock(const Block& block, std::string_view name) const {
    const Status damaged = Corruption(StrCat(path_, ": its ", name, " block is damaged"));
    const std::uint64_t end = bytes_ - kFooterBytes;
    if (block.bytes > kMaxBlockBytes || block.offset > end || block.bytes + kTrailerBytes > end - block.offset) {
      return damaged;
    }
    FRESHET_ASSIGN(std::vector<char> bytes, ReadAt(block.offset, block.bytes + kTrailerBytes));
    const std::string_view all(bytes.data(), bytes.size());
    ByteReader trailer(all.substr(block.bytes + 1));
    if (trailer.Get<std::uint32_t>() != ChecksumOf(all.substr(0, block.bytes + 1))) return damaged;
    bytes.resize(block.bytes);
    return bytes;
  }

 private:
  const std::string& path_;
  const Descriptor& file_;
  const std::uint64_t bytes_;
};

// RocksDB's table/block_based/block_builder.cc, with a restart at each entry, as the index of all other blocks is
// written: varint shared (0), varint key bytes, varint value bytes, key, value; then the restarts. Nothing: there is
// none.
Result<std::optional<Block>> FindProperties(std::string_view index, const std::string& path) {
  ByteReader tail(index.size() < 4 ? std::string_view() : index.substr(index.size() - 4));
  const std::uint64_t restarts = tail.Get<std::uint32_t>();
  const Status damaged = Corruption(StrCat(path, ": its index of blocks does not decode"));
  if (!tail.ok() || restarts * 4 + 4 > index.size()) return damaged;
  ByteReader in(index.substr(0, index.size() - 4 - restarts * 4));
  while (in.remaining() > 0) {
    const std::uint64_t shared = GetVarint(&in);
    const std::uint64_t key_bytes = GetVarint(&in);
    const std::uint64_t value_bytes = GetVarint(&in);
    const std::string_view key = in.GetBytes(key_bytes);
    ByteReader value(in.GetBytes(value_bytes));
    if (!in.ok() || shared != 0) return damaged;
    if (key != kPropertiesBlock) continue;
    const Block block = GetHandle(&value);
    if (!value.ok()) return damaged;
    return std::optional<Block>(block);
  }
  return std::optional<Block>();
}

}  // namespace

Status CheckTableFile(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (file.get() < 0 && errno == ENOENT) return Status::Ok();  // a successor has cleaned up
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) return FromErrno(errno, path, "open");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size < kFooterBytes) return Status::Ok();
  const Table table(path, file, size);
  FRESHET_ASSIGN(const std::vector<char> footer, table.ReadAt(size - kFooterBytes, kFooterBytes));
  ByteReader in({footer.data(), footer.size()});
  const auto checksum = in.Get<std::uint8_t>();
  ByteReader handles(in.GetBytes(kHandlesBytes));
  const auto version = in.Get<std::uint32_t>();
  const auto magic = in.Get<std::uint64_t>();
  // Without the magic number it is a file that a killed process left half-written, or RocksDB refuses it.
  if (!in.ok() || magic != kMagic) return Status::Ok();
  if (version != kTableFormatVersion || checksum != kTableChecksum) {
    return Corruption(StrCat(path, ": its footer is not one of ours (format ", version, ", checksum type ",
                             static_cast<int>(checksum), ")"));
  }
  const Block index = GetHandle(&handles);
  if (!handles.ok()) return Corruption(StrCat(path, ": its footer does not decode"));
  FRESHET_ASSIGN(const std::vector<char> blocks, table.ReadBlock(index, "metaindex"));
  FRESHET_ASSIGN(const std::optional<Block> properties, FindProperties({blocks.data(), blocks.size()}, path));
  return properties ? table.ReadBlock(*properties, "properties").status() : Status::Ok();
}

Status CheckTables(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".sst") FRESHET_TRY(CheckTableFile(entry.path()));
  }
  return Status::Ok();
}

}  // namespace freshet
