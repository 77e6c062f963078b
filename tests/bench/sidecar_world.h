// What a sidecar answers from, without the network: store, index and service, filled with clustered vectors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/query/recall_service.h"
#include "freshet/store/applier.h"
#include "freshet_test/vectors.h"
#include "sidecar_bench.h"

namespace freshet::bench {

// Of each item's attributes: a number by chance, and one by its nearness to a pivot (0: the nearest). A filter `lt` a
// share of the scale lets through that share, independent of any query, or correlated with those near the pivot.
inline constexpr std::int64_t kScale = 1'000'000;
inline constexpr char kByChance[] = "by_chance";
inline constexpr char kByNearness[] = "by_nearness";

class SidecarWorld {
 public:
  [[nodiscard]] static Result<std::unique_ptr<SidecarWorld>> Make(const SidecarBenchOptions& options);
  ~SidecarWorld();
  [[nodiscard]] const Index& index() const { return applier_->index(); }
  [[nodiscard]] Applier* applier() { return applier_.get(); }
  [[nodiscard]] const RecallService& service() const { return *service_; }
  [[nodiscard]] Metrics* metrics() { return &metrics_; }
  [[nodiscard]] const test::VectorSet& queries() const { return queries_; }
  [[nodiscard]] const std::vector<float>& pivot() const { return pivot_; }
  // Users with so long a history each: "user-0" and on.
  Status AddUsers(std::size_t users, int history);
  // Items that are written again, as an engine or a changelog brings them.
  [[nodiscard]] EncodedBatch Updates(std::size_t count);
  // Waits until the index is at rest.
  Status Settle();

 private:
  Status Fill(const SidecarBenchOptions& options);
  [[nodiscard]] std::vector<std::int64_t> Nearness() const;
  [[nodiscard]] EncodedBatch BatchOf(std::size_t begin, std::size_t end) const;

  std::unique_ptr<Directory> own_directory_;
  std::uint64_t seed_ = 0;
  std::size_t items_ = 0;
  std::int64_t next_offset_ = 0;
  test::VectorSet rows_;
  test::VectorSet queries_;
  std::vector<float> pivot_;
  std::vector<std::int64_t> nearness_;
  SystemClock clock_;
  Metrics metrics_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Applier> applier_;
  std::unique_ptr<RecallService> service_;
};

// The same questions while changes are applied, as a sidecar applies them: so many a second, and as fast as it can.
Status RunFollowing(SidecarWorld* world, const std::string& address, const SidecarBenchOptions& options,
                    Report* report);
// What is asked for a user (tower, search, none of what was seen) beside what is asked for a vector.
Status RunUsers(SidecarWorld* world, const SidecarBenchOptions& options, Report* report);

}  // namespace freshet::bench
