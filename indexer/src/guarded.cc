#include "guarded.h"

#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>

#include "freshet/core/strings.h"
#include "rerank_rows.h"

namespace freshet {

Status StatusOfException(const char* what) noexcept {
  try {
    try {
      throw;
    } catch (const ScratchError& e) {
      return e.status();
    } catch (const std::bad_alloc&) {
      return ResourceExhausted(StrCat("no memory ", what));
    } catch (const std::length_error&) {
      return ResourceExhausted(StrCat("more than there are addresses for ", what));
    } catch (const std::system_error& e) {
      return ResourceExhausted(StrCat("no thread ", what, ": ", e.what()));
    } catch (const std::exception& e) {
      return Internal(StrCat("the index, ", what, ": ", e.what()));
    }
  } catch (...) {
    return ResourceExhausted("no memory");  // so short that it is not allocated
  }
}

}  // namespace freshet
