// Bytes -> typed events.
//
// Place in the flow: between a RecordSource and the batches. One decoder a topic; Decode is const and thread-safe. The
// same decoders serve the stream, training and replay. Errors: kInvalidArgument with the reason that goes into the dead
// letter; nothing else.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "freshet/core/status.h"
#include "freshet/ingest/event.h"
#include "freshet/ingest/record_source.h"

namespace freshet {

enum class TopicRole { kItems, kInteractions, kUsers };

// Where things are in a producer's JSON: RFC 6901 pointers into the decoded value ("" is the whole value). The defaults
// fit the plain form of design.md. An empty optional pointer switches that part off.
struct SchemaMap {
  std::string item_id;     // interactions: "/item_id"; items: taken from the key when empty
  std::string user_id;     // interactions: "/user_id" (falls back to the key); users: from the key when empty
  std::string category;    // items: "/category"
  std::string tags;        // items: "/tags"
  std::string features;    // items, users: "/features", an object of numbers, booleans, texts, lists of texts
  std::string attributes;  // items: "/attributes", an object of scalars and lists of texts
  std::string vector;      // items: "/vector"
  std::string event;       // interactions: "/event", default "view" when absent
  std::string value;       // interactions: "/value", default 1
  std::string timestamp;   // interactions: "/timestamp" in Unix milliseconds; record time when absent
  std::map<std::string, std::string> extra_features;    // name -> pointer
  std::map<std::string, std::string> extra_attributes;  // name -> pointer
};
[[nodiscard]] SchemaMap DefaultSchema(TopicRole role);

// Above any of these a record is poison.
struct DecodeLimits {
  std::size_t max_value_bytes = std::size_t{1} << 20;
  int max_depth = 32;
  std::size_t max_tags = 256;
  std::size_t max_features = 256;
  std::size_t max_attributes = 256;
  std::size_t max_string_bytes = std::size_t{16} << 10;
  int vector_dim = 0;  // > 0: an item must bring a finite, non-zero vector of this dimension (passthrough)
};

class EventDecoder {
 public:
  virtual ~EventDecoder() = default;
  // Fills body; position, timestamp and raw are the caller's.
  [[nodiscard]] virtual Status Decode(const RawRecord& record, Event* event) const = 0;
};

// Errors: kConfig for a malformed pointer.
[[nodiscard]] Result<std::unique_ptr<EventDecoder>> MakeJsonDecoder(TopicRole role, const SchemaMap& schema,
                                                                    const DecodeLimits& limits);

}  // namespace freshet
