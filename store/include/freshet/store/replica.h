// What the query path reads: one consistent pair of index and store.
//
// Place in the flow: implemented by store's Applier (engine and sidecar alike), consumed by query's RecallService;
// tests fake it. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/encoder/encoder.h"
#include "freshet/indexer/index.h"
#include "freshet/store/catalog.h"
#include "freshet/store/popularity.h"

namespace freshet {

// What is stored of a user.
struct UserState {
  Features features;                  // profile, from the users topic
  std::vector<HistoryEntry> history;  // the last N, oldest first by event time
  std::vector<std::string> seen;      // bounded, most recent last
  std::int32_t partition = 0;         // of the log this process reads, where the last change came from ...
  std::uint64_t epoch = 0;            // ... and the epoch of the store that numbered it
  // Engine: where the profile was last seen in the users topic; -1: there is none.
  std::int32_t profile_partition = -1;
  std::uint32_t profile_generation = 0;
};

class Replica {
 public:
  virtual ~Replica() = default;
  [[nodiscard]] virtual const std::string& space_id() const = 0;
  [[nodiscard]] virtual int dim() const = 0;
  [[nodiscard]] virtual Metric metric() const = 0;
  [[nodiscard]] virtual const Index& index() const = 0;
  [[nodiscard]] virtual const Catalog& catalog() const = 0;
  // Nothing: unknown. Errors: kCorruption, kIoError.
  [[nodiscard]] virtual Result<std::optional<UserState>> GetUser(std::string_view user_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Attributes>> GetAttributes(std::string_view item_id) const = 0;
  [[nodiscard]] virtual Result<std::optional<std::vector<float>>> GetVector(std::string_view item_id) const = 0;
  // Log time up to which everything is applied and visible; 0: not known yet.
  [[nodiscard]] virtual std::int64_t as_of_ms() const = 0;
  // Newest sequence applied: the version of the index.
  [[nodiscard]] virtual std::uint64_t sequence() const = 0;
  [[nodiscard]] virtual std::uint64_t user_count() const = 0;
  // Whose items it answers with. Any thread.
  [[nodiscard]] virtual OwnedItems owned_items() const { return {}; }
  // Nothing: not counted here.
  [[nodiscard]] virtual std::shared_ptr<const PopularItems> Popular() const { return nullptr; }
  // How often each of these is interacted with, as Popular() counts; 0: never, or not counted here.
  [[nodiscard]] virtual std::vector<double> CountsOf(const std::vector<std::string>& item_ids) const {
    return std::vector<double>(item_ids.size(), 0.0);
  }
  // The number of the item's last change. Nothing: the item is not stored. Errors: kCorruption, kIoError.
  [[nodiscard]] virtual Result<std::optional<std::uint64_t>> GetSequence(std::string_view item_id) const = 0;
  // Log time of the item's last change. Nothing: unknown. Errors: kCorruption, kIoError.
  [[nodiscard]] virtual Result<std::optional<std::int64_t>> GetChangedMs(std::string_view item_id) const = 0;
};

}  // namespace freshet
