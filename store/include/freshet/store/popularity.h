// How often items are interacted with, the older the less: what to answer users of whom nothing is known.
//
// Place in the flow: fed by the Applier. It counts exactly the interactions in the stored users' histories: what leaves
// a history leaves the counts, be it by its bound (so nobody counts more often than that) or because the user is
// forgotten. So the users' rows are its durable form: it begins with them at start, a follower has the same, and a log
// that is read again counts nothing twice. Of a category: under a filter. Forward decay:
// an event counts 2^((its time - a landmark) / half-life), so that the order never has to be computed anew; the
// landmark moves on before numbers get too large. Bounded: beyond max_items the least popular are forgotten, and
// counted anew. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace freshet {

struct PopularityOptions {
  std::int64_t half_life_ms = std::int64_t{7} * 24 * 3600 * 1000;
  std::size_t max_items = 50'000;
};

// Descending, equal ones by id. The count as of the newest event: 1 for one interaction just now.
using PopularItems = std::vector<std::pair<std::string, double>>;

class Popularity {
 public:
  explicit Popularity(const PopularityOptions& options = {}) : options_(options) {}
  void Add(const std::string& item_id, std::int64_t timestamp_ms);
  void Remove(const std::string& item_id, std::int64_t timestamp_ms);  // what was added
  // As of now, or of a moment ago when it is asked for often: at most `max_age_ms` on a monotonic clock.
  [[nodiscard]] std::shared_ptr<const PopularItems> Top(std::int64_t now_ms, std::int64_t max_age_ms = 1'000) const;
  // The counts of these, as Top() has them; 0 of what nobody interacted with.
  [[nodiscard]] std::vector<double> CountsOf(const std::vector<std::string>& ids) const;
  [[nodiscard]] std::size_t size() const;

 private:
  struct Count {
    double weight = 0;
    std::uint64_t interactions = 0;
  };
  [[nodiscard]] double Exponent(std::int64_t timestamp_ms) const;
  [[nodiscard]] double Scale() const;  // of a weight to a count as of the newest event
  void Rescale(std::int64_t landmark_ms);
  void Forget();

  const PopularityOptions options_;
  mutable std::mutex mu_;
  // Guarded by mu_:
  std::unordered_map<std::string, Count> counts_;
  std::int64_t landmark_ms_ = 0;
  std::int64_t newest_ms_ = 0;
  std::uint64_t changes_ = 0;
  mutable std::shared_ptr<const PopularItems> top_;
  mutable std::int64_t top_at_ms_ = 0;
  mutable std::uint64_t top_changes_ = 0;
};

}  // namespace freshet
