#include "freshet/core/descriptor.h"

#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "freshet/core/strings.h"

namespace freshet {

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Status FromErrno(int error, std::string_view path, std::string_view step) {
  const std::string message = StrCat(path, ": ", step, ": ", std::generic_category().message(error));
  if (error == ENOENT || error == ENOTDIR) return NotFound(message);
  if (error == ENOSPC || error == EDQUOT) return ResourceExhausted(message);
  return IoError(message);
}

Status WriteAll(int fd, const std::string& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return FromErrno(n == 0 ? ENOSPC : errno, path, "write");
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return Status::Ok();
}

}  // namespace freshet
