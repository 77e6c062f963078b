// The arena's reader and the careful one: the same tree, or the same error.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "freshet/core/json.h"

namespace freshet {
namespace {

void Differ(std::string_view what) {
  std::fprintf(stderr, "the two readers differ: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

void Try(std::string_view text, JsonArena* arena) {
  constexpr int kDepth = 32;
  const auto careful = ParseJson(text, kDepth);
  const auto fast = arena->Parse(text, kDepth);
  if (careful.ok() != fast.ok()) Differ("one of them refuses it");
  if (!careful.ok()) {
    if (careful.status().ToString() != fast.status().ToString()) Differ(fast.status().ToString());
    return;
  }
  // Types of numbers, signs of zeros, order of members and doubled names included.
  if (ToJson(**careful) != ToJson(**fast)) Differ(ToJson(**fast));
}

}  // namespace
}  // namespace freshet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static freshet::JsonArena arena;
  freshet::Try(std::string_view(reinterpret_cast<const char*>(data), size), &arena);
  return 0;
}
