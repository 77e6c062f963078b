// An array of plain values whose room is reserved at once and becomes resident as it is touched, in huge pages where
// the system gives them: a search jumps about in it, and each jump would otherwise miss the page tables' cache too.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

namespace freshet {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

// For free(). Not zeroed. Throws std::bad_alloc.
[[nodiscard]] inline void* AllocateHuge(std::size_t bytes) {
  const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) (void)madvise(memory, rounded, MADV_HUGEPAGE);  // a hint: it may be refused
  return memory;
}

template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Buffer(std::size_t size) : data_(static_cast<T*>(AllocateHuge(size * sizeof(T)))) {}
  [[nodiscard]] T* get() { return data_.get(); }
  [[nodiscard]] const T* get() const { return data_.get(); }
  [[nodiscard]] T& operator[](std::size_t i) { return data_.get()[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace freshet
