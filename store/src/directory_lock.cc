#include "directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

std::string PathIn(const std::string& directory) { return directory + "/freshet.lock"; }

Status CannotOpen(const std::string& path) {
  return IoError(StrCat(path, ": cannot be opened: ", std::generic_category().message(errno)));
}

Status Held(int fd, const std::string& directory) {
  std::array<char, 32> owner{};
  const ssize_t n = ::pread(fd, owner.data(), owner.size() - 1, 0);
  return FailedPrecondition(StrCat(directory, ": another freshet holds this data directory (process ",
                                   n > 0 ? std::string(Trim(owner.data())) : "unknown", ")"));
}

}  // namespace

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

Status DirectoryLock::Acquire(const std::string& directory) {
  const std::string path = PathIn(directory);
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) return CannotOpen(path);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) return Held(fd_, directory);
  const std::string pid = StrCat(::getpid(), "\n");
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, pid.data(), pid.size(), 0) < 0) {
    return IoError(StrCat(path, ": ", std::generic_category().message(errno)));
  }
  return Status::Ok();
}

Status DirectoryLock::Share(const std::string& directory) {
  const std::string path = PathIn(directory);
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) return errno == ENOENT ? Status::Ok() : CannotOpen(path);  // nobody ever owned it
  return ::flock(fd_, LOCK_SH | LOCK_NB) == 0 ? Status::Ok() : Held(fd_, directory);
}

}  // namespace freshet
