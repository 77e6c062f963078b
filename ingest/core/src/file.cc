#include "freshet/core/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "freshet/core/descriptor.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

std::string Errno() { return std::error_code(errno, std::generic_category()).message(); }

}  // namespace

Result<std::string> ReadFile(const std::string& path, std::size_t max_bytes) {
  const File file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) return errno == ENOENT ? NotFound(StrCat(path, ": no such file")) : IoError(StrCat(path, ": ", Errno()));
  std::string content;
  std::vector<char> buffer(65536);
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), file.get())) {
    if (content.size() + n > max_bytes) return ResourceExhausted(StrCat(path, ": larger than ", max_bytes, " bytes"));
    content.append(buffer.data(), n);
  }
  if (std::ferror(file.get()) != 0) return IoError(StrCat(path, ": ", Errno()));
  return content;
}

Status WriteFileAtomically(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  const auto fail = [&](const char* step) {
    Status status = FromErrno(errno, temporary, step);
    ::unlink(temporary.c_str());
    return status;
  };
  {
    const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (fd.get() < 0) return fail("open");
    if (Status written = WriteAll(fd.get(), temporary, content); !written.ok()) {
      ::unlink(temporary.c_str());
      return written;
    }
    if (::fsync(fd.get()) != 0) return fail("fsync");
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return fail("rename");
  return SyncDirectoryOf(path);
}

Status SyncDirectory(const std::string& directory) {
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) return FromErrno(errno, directory, "fsync");
  return Status::Ok();
}

Status SyncDirectoryOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return SyncDirectory(parent.empty() ? "." : parent);
}

Status CreateDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return Status::Ok();
  Status status = FromErrno(error.value(), path, "create directory");
  // Something that is no directory is in the way; nothing is missing.
  return status.code() == Code::kNotFound ? IoError(status.message()) : status;
}

bool FileExists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

void WillReadFile(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() >= 0) (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_WILLNEED);
}

}  // namespace freshet
