// An array whose room is reserved at once, as addresses: a page becomes resident when it is first written. So an index
// never moves what its readers read, and grows without copying. In huge pages where the system gives them: a search
// jumps about in it, and each jump would otherwise miss the page tables' cache too.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include "freshet/core/huge_pages.h"

namespace freshet {

// Zeroed. Movable, not copyable. Errors: std::bad_alloc.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : mapped_bytes_(size * sizeof(T) + kHugePage) {
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped_ == MAP_FAILED) {
      mapped_ = nullptr;
      throw std::bad_alloc();
    }
    const auto begin = (reinterpret_cast<std::uintptr_t>(mapped_) + kHugePage - 1) / kHugePage * kHugePage;
    data_ = reinterpret_cast<T*>(begin);
    // A small index does without: its few rows would cost a huge page for each of its arrays.
    if (size * sizeof(T) > kHugePage) {
      (void)madvise(reinterpret_cast<char*>(data_) + kHugePage, size * sizeof(T) - kHugePage, MADV_HUGEPAGE);
    }
  }
  ~Buffer() {
    if (mapped_ != nullptr) (void)munmap(mapped_, mapped_bytes_);
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] T* get() { return data_; }
  [[nodiscard]] const T* get() const { return data_; }
  [[nodiscard]] T& operator[](std::size_t i) { return data_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  T* data_ = nullptr;
};

}  // namespace freshet
