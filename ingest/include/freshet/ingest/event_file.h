// Files of events: JSON lines, the value with `item_id` or `user_id` inside; plain or zstd.
//
// Place in the flow: import writes them, replay and training read them. A line of a deleted item is
// {"item_id": "x", "deleted": true}, of a forgotten user {"user_id": "u", "deleted": true}. A line may carry
// "timestamp" (Unix ms): replay sends it as the record time. Thread-compatible.
#pragma once

#include <functional>
#include <optional>
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

// Lines as a producer writes them, where they are not in the plain form: of each kind where things are in a line. There
// is no key, so `item_id` of items and `user_id` of users say where the id is, and `timestamp` is the time of a line of
// any kind. {"deleted": true} stays what deletes.
struct EventFileSchemas {
  std::optional<SchemaMap> items;
  std::optional<SchemaMap> interactions;
  std::optional<SchemaMap> users;
  [[nodiscard]] const SchemaMap* Of(TopicRole role) const {
    const auto& schema = role == TopicRole::kItems ? items : role == TopicRole::kUsers ? users : interactions;
    return schema ? &*schema : nullptr;
  }
};
// The plain form of a line as such a map, to begin one with.
[[nodiscard]] SchemaMap PlainLineSchema(TopicRole role);

// Decodes each line with the same decoder as the stream, by `schema` or, where that is null, as the plain form. Stops
// at the first error of `handle` or of a line (message: file:line: reason: what to do). Errors: kConfig, a pointer is
// malformed.
Status ForEachEvent(const std::string& path, TopicRole role, const SchemaMap* schema, const DecodeLimits& limits,
                    const std::function<Status(Event&&, double fraction)>& handle);
inline Status ForEachEvent(const std::string& path, TopicRole role, const DecodeLimits& limits,
                           const std::function<Status(Event&&, double fraction)>& handle) {
  return ForEachEvent(path, role, nullptr, limits, handle);
}

}  // namespace freshet
