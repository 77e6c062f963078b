// A sidecar's way from one embedding space to the next, when the engine has changed its model.
//
// Place in the flow: private to sidecar.cc and log_position.cc. Vectors of two spaces are never in one index, and no
// query is embedded by a tower of another space than the index: so a sidecar moves over whole or not at all. It stays
// in its space, answering as it was when the engine left that, until a snapshot of the new space is as new as what it
// answers and the package of that space is at hand. Then it starts anew, from both. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "freshet/core/clock.h"
#include "freshet/core/status.h"
#include "freshet/deploy/config.h"
#include "freshet/store/snapshot_repository.h"

namespace freshet {

// Of what embedding space the engine speaks now: the newest store's word at the end of the changelog.
struct LogSpace {
  std::uint64_t epoch = 0;
  std::string space_id;
};
// Nothing: no broker answers, or nothing at the ends tells. Asks the broker; takes seconds at most.
[[nodiscard]] std::optional<LogSpace> SpaceOfLog(const Config& config, const Clock* clock);

// The configuration with the package that the last move left in the data directory, if it left one.
[[nodiscard]] Config WithMovedModel(Config config);

// Sees to it that the next start has the package of `space`: the configured one where it is of that space by now, else
// the one in the newest snapshot of it, if `snapshots.directory` lies beneath `encoder.allowed_root` (a package is
// executable code). `config` is the configuration as it was given. The snapshot must be no older than `as_of_ms`.
// Errors: kUnavailable with what is missing yet, and what an operator can do; those of the package and of the disk.
[[nodiscard]] Status PrepareMove(const Config& config, const SnapshotRepository& repository, const std::string& space,
                                 std::int64_t as_of_ms);

// Where the store in the data directory is of another space than the package: the newest snapshot of the package's
// space takes its place. Returns its id; empty: the spaces are the same, or nothing can be said of them. Errors:
// kUnavailable where there is no such snapshot; those of RestoreSnapshot().
[[nodiscard]] Result<std::string> RestoreForModel(const Config& config, const std::function<void(double)>& progress);

}  // namespace freshet
