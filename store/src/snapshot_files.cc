#include "snapshot_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <system_error>

#include "freshet/core/checksum.h"
#include "freshet/core/descriptor.h"
#include "freshet/core/fault.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

Status FromErrno(const std::string& path, const char* step) { return freshet::FromErrno(errno, path, step); }
Status NotAFile(const std::string& path) { return Corruption(path + ": not a regular file"); }

// Each piece goes to `sink`, whose error ends the reading and is returned.
Result<FileSum> ReadAll(const std::string& path, const std::function<Status(std::string_view)>& sink) {
  const Descriptor from(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (from.get() < 0) return errno == ELOOP ? NotAFile(path) : FromErrno(path, "open");
  struct stat info {};
  if (::fstat(from.get(), &info) != 0) return FromErrno(path, "stat");
  if (!S_ISREG(info.st_mode)) return NotAFile(path);
  FileSum sum;
  Xxh3Stream hash;
  std::string piece(kPieceBytes, '\0');
  while (true) {
    const ssize_t n = ::read(from.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FromErrno(path, "read");
    if (n == 0) break;
    const std::string_view bytes(piece.data(), static_cast<std::size_t>(n));
    hash.Update(bytes);
    sum.bytes += bytes.size();
    FRESHET_TRY(sink(bytes));
  }
  sum.xxh3 = hash.Hex();
  return sum;
}

}  // namespace

Result<FileSum> SumOfFile(const std::string& path, const Throttle& throttle) {
  return ReadAll(path, [&](std::string_view bytes) { return throttle ? throttle(bytes.size()) : Status::Ok(); });
}

Result<FileSum> CopyWithSum(const std::string& from, const std::string& to, const Throttle& throttle, bool* of_source) {
  bool ignored = false;
  bool& reading = of_source == nullptr ? ignored : *of_source;
  reading = false;
  const Descriptor fd(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (fd.get() < 0) return FromErrno(to, "create");
  reading = true;
  FRESHET_ASSIGN(FileSum sum, ReadAll(from, [&](std::string_view bytes) {
                   reading = false;
                   FRESHET_TRY(WriteAll(fd.get(), to, bytes));
                   if (throttle) FRESHET_TRY(throttle(bytes.size()));
                   reading = true;
                   return Status::Ok();
                 }));
  reading = false;
  FRESHET_TRY(FaultPoint("copy.before_sync"));
  if (::fsync(fd.get()) != 0) return FromErrno(to, "fsync");
  return sum;
}

Result<bool> TryLink(const std::string& from, const std::string& to) {
  if (::link(from.c_str(), to.c_str()) == 0) return true;
  if (errno == ENOENT) return FromErrno(from, "link");
  if (errno == EEXIST || errno == ENOSPC || errno == EDQUOT) return FromErrno(to, "link");
  return false;
}

bool IsSameFile(const std::string& a, const std::string& b) {
  struct stat x {};
  struct stat y {};
  return ::lstat(a.c_str(), &x) == 0 && ::lstat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

Status SyncFile(const std::string& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() < 0) return FromErrno(path, "open");
  return ::fsync(fd.get()) == 0 ? Status::Ok() : FromErrno(path, "fsync");
}

Status RenamePath(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? Status::Ok() : FromErrno(from, "rename");
}

Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? freshet::FromErrno(error.value(), path, "remove") : Status::Ok();
}

Result<std::vector<std::string>> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator it(path, error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return freshet::FromErrno(error.value(), path, "list");
  std::sort(names.begin(), names.end());
  return names;
}

std::uint64_t FreeBytes(const std::string& path) {
  struct statvfs disk {};
  if (::statvfs(path.c_str(), &disk) != 0) return std::numeric_limits<std::uint64_t>::max();
  return std::uint64_t{disk.f_bavail} * disk.f_frsize;
}

std::uint64_t TreeBytes(const std::string& path) {
  std::uint64_t total = 0;
  std::error_code error;
  std::filesystem::recursive_directory_iterator it(path, error);
  for (; !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) total += it->file_size(ignored);
  }
  return total;
}

Result<std::uint64_t> FileBytes(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return FromErrno(path, "stat");
  if (!S_ISREG(info.st_mode)) return NotAFile(path);
  return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace freshet
