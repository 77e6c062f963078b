// What all code that calls open(2) itself needs: a descriptor that closes, errno as a Status, a write that is whole.
// Thread-safe as the calls are.
#pragma once

#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}  // takes it; below 0: none
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  const int fd_;
};

// "path: step: what errno means"; kNotFound, kResourceExhausted (a full disk, a quota) or kIoError.
[[nodiscard]] Status FromErrno(int error, std::string_view path, std::string_view step);

// Errors: as FromErrno().
Status WriteAll(int fd, const std::string& path, std::string_view bytes);

}  // namespace freshet
