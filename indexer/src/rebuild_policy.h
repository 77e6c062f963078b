// When an index may be rebuilt: after one that failed, for its recall, for what cannot be reached, and for memory.
//
// A rebuild costs as much as all of the index did, so none is begun in vain. After a failure (no memory, a full disk)
// the next one waits, longer each time. For recall, one that did not help is not tried again: what a fresh build
// reaches is what there is to reach, until recall has fallen below that; and they come at least twice as far apart each
// time, unless recall stayed well for long in between. The same goes for nodes that linking again does not bring back
// into reach, with which it shares that distance; for memory, they come kFirstInterval apart.
// Not thread-safe. Free of clocks: the caller says what time it is.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>

namespace freshet {

// What a sample of probes says: the mean, and how high the true one may be all the same.
struct RecallEstimate {
  double mean = 1;
  double upper = 1;
};

class RebuildPolicy {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  static constexpr std::chrono::seconds kFirstRetry{1};
  static constexpr std::chrono::minutes kLongestRetry{10};
  static constexpr int kTimesItsLength = 4;  // a retry is no sooner than that, beside the rebuild that failed
  static constexpr std::chrono::minutes kFirstInterval{10};
  static constexpr std::chrono::hours kLongestInterval{24};
  static constexpr double kDecay = 0.02;           // of recall below what a fresh build had: so much is worth another
  static constexpr double kWorthOfMemory = 0.125;  // of it, that a rebuild gives back

  [[nodiscard]] bool MayBegin(Time now) const { return now >= retry_at_; }

  // `for_quality`: recall, or reach.
  void Begun(Time now, bool for_quality) {
    begun_ = now;
    if (!for_quality) return;
    // It stayed well for long: as if it were the first.
    const bool starts_over = interval_ == Duration::zero() || (reached_ && now - done_ > 4 * interval_);
    interval_ = starts_over ? Duration(kFirstInterval) : std::min<Duration>(2 * interval_, kLongestInterval);
  }
  void Failed(Time now) {
    wait_ = wait_ == Duration::zero() ? Duration(kFirstRetry) : std::min<Duration>(2 * wait_, kLongestRetry);
    retry_at_ = now + std::max(wait_, kTimesItsLength * (now - begun_));
  }
  void Done(Time now) {
    wait_ = Duration::zero();
    done_ = now;
    reached_.reset();
    lost_when_fresh_.reset();
    is_fresh_ = is_fresh_to_reach_ = was_done_ = true;
    was_out_of_reach_ = false;
  }

  // An audit's answer. True: recall is under `bound`, surely, and a rebuild may raise it.
  [[nodiscard]] bool IsWorthIt(Time now, RecallEstimate recall, double bound) {
    if (is_fresh_) reached_ = recall.mean;
    is_fresh_ = false;
    if (recall.upper >= bound || !IsFarEnough(now)) return false;
    return !reached_ || recall.upper < *reached_ - kDecay;
  }

  // An audit's answer: the share of nodes that cannot be reached. `linked_again`: what the last one found was, before
  // this one began. True: it was over `bound` both times, and a rebuild may help.
  [[nodiscard]] bool IsWorthItForReach(Time now, double lost, double bound, bool linked_again) {
    if (is_fresh_to_reach_) lost_when_fresh_ = lost;
    is_fresh_to_reach_ = false;
    const bool again = was_out_of_reach_ && linked_again;
    // One that came before what was found is linked again says nothing new.
    if (linked_again || lost <= bound) was_out_of_reach_ = lost > bound;
    if (!again || lost <= bound || !IsFarEnough(now)) return false;
    return !lost_when_fresh_ || lost > *lost_when_fresh_ + bound;
  }

  // The index takes `bytes`, of which the living need `needed`.
  [[nodiscard]] bool IsWorthItForMemory(Time now, double bytes, double needed, double bound) const {
    if (bytes <= bound || needed > bound || bytes - needed < kWorthOfMemory * bytes || !MayBegin(now)) return false;
    return !was_done_ || now - done_ >= kFirstInterval;
  }

 private:
  [[nodiscard]] bool IsFarEnough(Time now) const {
    return MayBegin(now) && (interval_ == Duration::zero() || now - done_ >= interval_);
  }

  Time begun_{};
  Time done_{};
  Time retry_at_{};
  Duration wait_{0};               // after the last failure; zero: there was none since the last success
  Duration interval_{0};           // between rebuilds for recall or reach; zero: there was none
  bool is_fresh_ = false;          // it was rebuilt, and recall not looked at since
  std::optional<double> reached_;  // recall when it was
  bool is_fresh_to_reach_ = false;
  std::optional<double> lost_when_fresh_;
  bool was_out_of_reach_ = false;  // more than the bound, at the last audit
  bool was_done_ = false;
};

}  // namespace freshet
