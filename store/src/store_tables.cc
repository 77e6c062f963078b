#include "store_tables.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>

#include "freshet/core/bytes.h"
#include "freshet/core/descriptor.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

// RocksDB's table/format.cc, format versions 1 to 5: u8 checksum type, two block handles in 40 bytes, u32 format
// version, u64 magic number.
constexpr std::size_t kFooterBytes = 53;
constexpr std::size_t kHandlesBytes = 40;
constexpr std::uint64_t kMagic = 0x88e241b785f4cff7;

Status CheckFooter(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (file.get() < 0 && errno == ENOENT) return Status::Ok();  // a successor has cleaned up
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) return FromErrno(errno, path, "open");
  std::array<char, kFooterBytes> bytes{};
  if (info.st_size < static_cast<off_t>(bytes.size())) return Status::Ok();
  const ssize_t read = ::pread(file.get(), bytes.data(), bytes.size(), info.st_size - static_cast<off_t>(bytes.size()));
  if (read < 0) return FromErrno(errno, path, "read");
  ByteReader in({bytes.data(), static_cast<std::size_t>(read)});
  const auto checksum = in.Get<std::uint8_t>();
  (void)in.GetBytes(kHandlesBytes);
  const auto version = in.Get<std::uint32_t>();
  const auto magic = in.Get<std::uint64_t>();
  // Without the magic number it is a file that a killed process left half-written, or RocksDB refuses it.
  if (!in.ok() || magic != kMagic) return Status::Ok();
  if (version != kTableFormatVersion || checksum != kTableChecksum) {
    return Corruption(StrCat(path, ": its footer is not one of ours (format ", version, ", checksum type ",
                             static_cast<int>(checksum), ")"));
  }
  return Status::Ok();
}

}  // namespace

Status CheckTableFooters(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".sst") FRESHET_TRY(CheckFooter(entry.path()));
  }
  return Status::Ok();
}

}  // namespace freshet
