// Memory in huge pages, for big arrays that are jumped about in: each jump would otherwise miss the cache of the page
// tables too, the more often the bigger they are.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <new>

namespace freshet {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

// For arrays that are filled when they are made. Where the system gives no huge pages, or to an array smaller than one,
// it is memory as any other. Stateless. Errors: std::bad_alloc.
template <typename T>
struct HugePageAllocator {
  using value_type = T;
  HugePageAllocator() = default;
  template <typename Other>  // NOLINTNEXTLINE(google-explicit-constructor): containers convert it so
  HugePageAllocator(const HugePageAllocator<Other>& /*other*/) {}

  T* allocate(std::size_t items) {
    const std::size_t bytes = items * sizeof(T);
    void* memory = ::operator new(bytes, Alignment(items));
    if (bytes >= kHugePage) (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t items) { ::operator delete(memory, Alignment(items)); }

  template <typename Other>
  friend bool operator==(const HugePageAllocator& /*a*/, const HugePageAllocator<Other>& /*b*/) {
    return true;
  }

 private:
  static std::align_val_t Alignment(std::size_t items) {
    return std::align_val_t{items * sizeof(T) >= kHugePage ? kHugePage : std::max(alignof(T), alignof(void*))};
  }
};

}  // namespace freshet
