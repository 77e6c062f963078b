// Rests between the pieces of work that can wait, so that it takes about a share of the time.
//
// Not thread-safe. Free of clocks: the caller says how long a piece took and when it was done.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

namespace freshet {

class Throttle {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;
  // What a piece took, to the rest after it.
  using Rule = std::function<Duration(Duration)>;

  static constexpr std::chrono::seconds kLongestRest{2};  // a piece that was held up says little of the next one

  explicit Throttle(Rule rule) : rule_(std::move(rule)) {}
  // `share`: of the time, above 0, at most 1.
  [[nodiscard]] static Rule OfShare(double share) {
    return [share](Duration took) {
      const std::chrono::duration<double> rest = std::chrono::duration<double>(took) * (1 / share - 1);
      return std::min<Duration>(std::chrono::duration_cast<Duration>(rest), kLongestRest);
    };
  }

  // A piece was done. Whether there is a rest after it; none where it is `urgent`.
  bool Worked(Time begin, Time end, bool urgent) {
    until_ = urgent ? end : end + rule_(end - begin);
    return until_ > end;
  }
  [[nodiscard]] Time until() const { return until_; }

 private:
  Rule rule_;
  Time until_{};
};

}  // namespace freshet
