#include "rerank_rows.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::size_t kPiece = std::size_t{4} << 20;

Status ErrorOf(const std::string& directory, int error) {
  const std::string text = StrCat(directory, ": a file for re-rank rows: ", std::strerror(error));
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? ResourceExhausted(text) : IoError(text);
}

int OpenNameless(const std::string& directory) {
  const int file = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return file;
  // A file system that knows no such files.
  std::string path = directory + "/rerank-XXXXXX";
  const int named = ::mkostemp(path.data(), O_CLOEXEC);
  if (named >= 0) (void)::unlink(path.c_str());
  return named;
}

}  // namespace

RerankRows::RerankRows(std::size_t bytes, const std::string& directory) : bytes_(bytes), directory_(directory) {
  if (directory.empty()) {
    memory_ = Buffer<std::byte>(bytes);
    rows_ = memory_.get();
    return;
  }
  file_ = OpenNameless(directory);
  if (file_ < 0) throw ScratchError(ErrorOf(directory, errno));
  // Beyond the file's end there are addresses already; Extend() moves the end.
  mapped_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (mapped_ == MAP_FAILED) {
    (void)::close(file_);
    throw std::bad_alloc();
  }
  // Rows are read one here, one there: what lies around one is not wanted.
  (void)::madvise(mapped_, bytes_, MADV_RANDOM);
  rows_ = static_cast<std::byte*>(mapped_);
}

RerankRows::~RerankRows() {
  if (file_ < 0) return;
  (void)::munmap(mapped_, bytes_);
  (void)::close(file_);
}

void RerankRows::Extend(std::size_t end) {
  const std::size_t to = std::min(bytes_, (end + kPiece - 1) / kPiece * kPiece);
  int error = EINTR;
  while (error == EINTR) {
    error = ::posix_fallocate(file_, static_cast<off_t>(reserved_), static_cast<off_t>(to - reserved_));
  }
  if (error != 0) throw ScratchError(ErrorOf(directory_, error));
  reserved_ = to;
}

}  // namespace freshet
