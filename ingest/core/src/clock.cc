#include "freshet/core/clock.h"

#include <chrono>

namespace freshet {

std::int64_t SystemClock::WallMs() const {
  using std::chrono::milliseconds;
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::int64_t SystemClock::MonotonicUs() const {
  using std::chrono::microseconds;
  return std::chrono::duration_cast<microseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace freshet
