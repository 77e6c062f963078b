// One owner per data directory.
//
// RocksDB has a lock of its own, but reports it as any other IO error, told apart by text alone. Ours comes first and
// says who holds the directory. The kernel drops it with the process, however that ends. Not thread-safe: one owner.
#pragma once

#include <string>

#include "freshet/core/status.h"

namespace freshet {

class DirectoryLock {
 public:
  DirectoryLock() = default;
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  // Errors: kFailedPrecondition naming the process that holds it; kIoError.
  Status Acquire(const std::string& directory);
  // For readers: as many as there are, while nobody has acquired it. Writes nothing, not even the lock's file. Errors:
  // as Acquire().
  Status Share(const std::string& directory);

 private:
  int fd_ = -1;
};

}  // namespace freshet
