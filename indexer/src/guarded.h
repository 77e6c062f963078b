// Where exceptions end: what the allocator and the standard library throw becomes a Status, once, at the kinds of
// index.
#pragma once

#include <type_traits>

#include "freshet/core/status.h"

namespace freshet {

// Of the exception that is being handled: kResourceExhausted for want of memory, threads or a scratch file's disk,
// kInternal otherwise. `what` it was needed for: "to search". Throws nothing, though there may be no memory for a text.
[[nodiscard]] Status StatusOfException(const char* what) noexcept;

// Calls `function`, which returns nothing, a Status or a Result. A template, so that no closure is ever allocated: not
// outside of the try, and not once a search.
template <typename Function>
[[nodiscard]] auto Guarded(const char* what, const Function& function) {
  using Returned = decltype(function());
  using Answer = std::conditional_t<std::is_void_v<Returned>, Status, Returned>;
  try {
    if constexpr (std::is_void_v<Returned>) {
      function();
      return Status::Ok();
    } else {
      return function();
    }
  } catch (...) {
    return Answer(StatusOfException(what));
  }
}

}  // namespace freshet
