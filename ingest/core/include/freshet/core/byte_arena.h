// Copies of bytes that stay where they are for as long as the arena lives: few allocations for many small texts.
//
// Place in the flow: the bytes of a batch of records, from the first stage until the batch is done with. Blocks grow
// with what comes, so that a small batch is small. Thread-compatible: what was kept may be read while more is kept.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace freshet {

class ByteArena {
 public:
  // `block_bytes`: of the first block; those after it double, up to kMostBytes.
  explicit ByteArena(std::size_t block_bytes = kLeastBytes)
      : next_bytes_(std::clamp(block_bytes, kLeastBytes, kMostBytes)) {}
  ByteArena(const ByteArena&) = delete;
  ByteArena& operator=(const ByteArena&) = delete;

  // A view of a copy. Empty bytes are not null.
  [[nodiscard]] std::string_view Keep(std::string_view bytes) {
    if (bytes.empty()) return std::string_view("");
    if (bytes.size() > left_) Grow(bytes.size());
    char* const copy = std::exchange(at_, at_ + bytes.size());
    left_ -= bytes.size();
    std::memcpy(copy, bytes.data(), bytes.size());
    return {copy, bytes.size()};
  }

 private:
  static constexpr std::size_t kLeastBytes = std::size_t{1} << 10;
  static constexpr std::size_t kMostBytes = std::size_t{256} << 10;

  // What is left of the block before is given up.
  void Grow(std::size_t bytes) {
    left_ = std::max(bytes, next_bytes_);
    at_ = blocks_.emplace_back(new char[left_]).get();
    next_bytes_ = std::min(2 * next_bytes_, kMostBytes);
  }

  std::vector<std::unique_ptr<char[]>> blocks_;
  char* at_ = nullptr;
  std::size_t left_ = 0;
  std::size_t next_bytes_;
};

}  // namespace freshet
