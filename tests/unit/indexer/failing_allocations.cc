#include "failing_allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

using freshet::test::FailAllocations;

std::atomic<bool> armed{false};
std::atomic<bool> failed_once{false};
std::atomic<long> left{0};
std::atomic<bool> only_once{false};
std::atomic<bool> of_armer{false};
thread_local bool is_armer = false;
thread_local std::uint64_t allocations = 0;

void MayFail() {
  ++allocations;
  if (!armed.load(std::memory_order_acquire) || is_armer != of_armer) return;
  const long before = left.fetch_sub(1);
  if (before > 0 || (only_once && before < 0)) return;
  failed_once = true;
  throw std::bad_alloc();
}

void* Allocate(std::size_t size, std::size_t alignment) {
  MayFail();
  void* memory = nullptr;
  if (alignment <= alignof(std::max_align_t)) {
    memory = std::malloc(size == 0 ? 1 : size);
  } else if (::posix_memalign(&memory, alignment, size) != 0) {
    memory = nullptr;
  }
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* AllocateOrNull(std::size_t size, std::size_t alignment) noexcept {
  try {
    return Allocate(size, alignment);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

// All of them, so that what one allocates another frees under every sanitizer.
void* operator new(std::size_t size) { return Allocate(size, 0); }
void* operator new[](std::size_t size) { return Allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t a) { return Allocate(size, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return Allocate(size, static_cast<std::size_t>(a)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return AllocateOrNull(size, 0); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return AllocateOrNull(size, 0); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }

namespace freshet::test {

FailAllocations::FailAllocations(Of of, std::size_t after, Times times) {
  is_armer = true;
  of_armer = of == Of::kThisThread;
  only_once = times == Times::kOnce;
  failed_once = false;
  left = static_cast<long>(after);
  armed.store(true, std::memory_order_release);
}
FailAllocations::~FailAllocations() {
  armed.store(false, std::memory_order_release);
  is_armer = false;
}
bool FailAllocations::failed() const { return failed_once; }

std::uint64_t AllocationsOfThisThread() { return allocations; }

}  // namespace freshet::test
