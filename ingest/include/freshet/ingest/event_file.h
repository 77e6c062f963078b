// Files of events: JSON lines, the value with `item_id` or `user_id` inside; plain or zstd.
//
// Place in the flow: import writes them, replay and training read them. A line of a deleted item is
// {"item_id": "x", "deleted": true}, of a forgotten user {"user_id": "u", "deleted": true}. A line may carry
// "timestamp" (Unix ms): replay sends it as the record time. Thread-compatible.
#pragma once

#include <functional>
#include <string>

#include "freshet/core/status.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/event.h"

namespace freshet {

// One line as a producer would send it: key = the id, value = the line or null, timestamp from the line (0 if none).
struct EventLine {
  std::string key;
  bool has_value = true;
  std::string_view value;
  std::int64_t timestamp_ms = 0;
};
[[nodiscard]] Result<EventLine> ParseEventLine(TopicRole role, std::string_view line);
// Which kind of events a line holds: item_id and user_id -> interactions; item_id -> items; user_id -> users.
[[nodiscard]] Result<TopicRole> GuessRole(std::string_view line);

// Decodes each line with the same decoder as the stream (default schema). Stops at the first error of `handle` or of a
// line (message: file:line: reason).
Status ForEachEvent(const std::string& path, TopicRole role, const DecodeLimits& limits,
                    const std::function<Status(Event&&, double fraction)>& handle);

}  // namespace freshet
