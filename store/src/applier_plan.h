// What one batch comes to. Private to the Applier.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "freshet/store/applier.h"
#include "user_history.h"

namespace freshet {

// What one batch comes to, before anything is changed.
struct Applier::Plan {
  Commit commit;
  std::uint64_t newest = 0;                               // follower: sequence after it
  std::map<std::string, std::optional<UserState>> users;  // as they will be
  std::map<std::string, std::int64_t> forgotten_ms;       // engine: when the users above were forgotten; 0: never
  std::vector<Catalog::Change> visible;
  std::vector<Label> tombstones;
  std::vector<Label> inserts;
  std::vector<float> vectors;
  std::vector<std::int64_t> record_timestamps_ms;  // of what becomes visible
  HistoryChange history;
  std::map<TopicPartition, PartitionProgress> sources;  // follower: see SourceProgress()
  std::uint64_t updates = 0;
  std::uint64_t deletes = 0;
  std::uint64_t stale = 0;
  std::uint64_t unchanged = 0;
  std::uint64_t attributes_only = 0;
  std::uint64_t swept = 0;
  std::uint64_t user_changes = 0;
  std::uint64_t new_users = 0;
  std::uint64_t gone_users = 0;
};

}  // namespace freshet
