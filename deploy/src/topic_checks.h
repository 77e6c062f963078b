// What the engine has to know of its topics before it relies on them.
//
// Place in the flow: private to engine.cc, at start. Asks the broker, changes nothing. One thread. Errors: kUnavailable
// where the broker does not answer, kNotFound for a topic that is not there.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/deploy/config.h"

namespace freshet {

// The topics that the engine reads.
[[nodiscard]] std::vector<std::string> TopicsOf(const Config& config);

// A store that is gone can be made again where no record of any topic that it was made from is gone: items,
// interactions and, where there are, users; of the partitions that are pinned to this engine, or of all. Errors also:
// kFailedPrecondition naming the partition that no longer begins at its beginning.
Status CheckLogIsComplete(const Config& config, std::chrono::milliseconds timeout);

// A follower that is restored from the newest snapshot needs every user event since: `user-events` has to be kept for
// longer than it takes until the next one. 0: no matter, there are no snapshots by time.
[[nodiscard]] std::int64_t UserEventsNeedMs(const Config& config);
// With what freshet makes the topic; 0: with the broker's default.
[[nodiscard]] std::int64_t UserEventsRetentionMs(const Config& config);
// Warns, and returns true, where it is kept for less.
bool WarnOfShortRetention(const Config& config, std::chrono::milliseconds timeout);

}  // namespace freshet
