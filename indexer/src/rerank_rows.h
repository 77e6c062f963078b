// The re-rank rows of a segment, in memory or in a file whose pages the system may write back and drop.
//
// The file is scratch: it has no name, or none any more, so that nothing is left of it whatever ends the process; what
// must survive is in index files and the store. Its blocks are allocated before a row is written, so that a full disk
// is an error here and not a signal at the write. Thread-safety: Reserve and writes belong to one thread; readers of
// rows that were published to them are any.
#pragma once

#include <cstddef>
#include <new>
#include <string>
#include <utility>

#include "buffer.h"
#include "freshet/core/status.h"

namespace freshet {

// Says why memory was refused that lies in a file; Guarded() makes it the status again.
class ScratchError final : public std::bad_alloc {
 public:
  explicit ScratchError(Status status) : status_(std::move(status)) {}
  [[nodiscard]] const char* what() const noexcept override { return status_.message().c_str(); }
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  Status status_;
};

class RerankRows {
 public:
  // Addresses for `bytes`; in a file of `directory` unless that is empty. Errors: std::bad_alloc, ScratchError.
  RerankRows(std::size_t bytes, const std::string& directory);
  ~RerankRows();
  RerankRows(const RerankRows&) = delete;
  RerankRows& operator=(const RerankRows&) = delete;

  [[nodiscard]] bool in_file() const { return file_ >= 0; }
  [[nodiscard]] std::byte* get() { return rows_; }
  [[nodiscard]] const std::byte* get() const { return rows_; }
  // Before bytes below `end` are first written. Errors: ScratchError (kResourceExhausted: the disk is full).
  void Reserve(std::size_t end) {
    if (in_file() && end > reserved_) Extend(end);
  }

 private:
  void Extend(std::size_t end);

  const std::size_t bytes_;
  const std::string directory_;
  Buffer<std::byte> memory_;
  int file_ = -1;
  void* mapped_ = nullptr;
  std::byte* rows_ = nullptr;
  std::size_t reserved_ = 0;
};

}  // namespace freshet
