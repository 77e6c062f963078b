// Bytes -> typed events.
//
// Place in the flow: between a RecordSource and the batches. One decoder a topic; Decode is const and thread-safe. The
// same decoders serve the stream, training and replay. Errors: kInvalidArgument with the reason that goes into the dead
// letter; where a schema registry is involved also kUnavailable and kDeadlineExceeded: try the same record again.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "freshet/core/status.h"
#include "freshet/ingest/event.h"
#include "freshet/ingest/record_source.h"
#include "freshet/ingest/schema_registry.h"

namespace freshet {

enum class TopicRole { kItems, kInteractions, kUsers };

// How the value of a record is written. What the wire itself says is recognised whatever is configured: a CloudEvents
// content type or its ce_ headers on a JSON topic; where there is a schema registry, its frames in keys and values.
enum class RecordFormat {
  kJson,
  kDebezium,     // op, before, after, source; with or without the schema/payload wrapper of Connect's JsonConverter
  kCloudEvents,  // structured or binary, as the Kafka protocol binding 1.0 tells them apart
  kProtobuf,     // one message, without a frame
  kConfluent,    // a zero byte and a schema id: Avro, JSON Schema or Protobuf by the schema registry
};
enum class KeyFormat {
  kText,  // the key is the id
  kJson,  // a text, a whole number, or an object that holds the id: {"id": 42} is "42"; with Connect's wrapper or not
  kProtobuf,  // one message without a frame, which holds the id as an object does
};

struct FormatOptions {
  RecordFormat format = RecordFormat::kJson;
  std::optional<KeyFormat> key_format;  // default: kJson for kDebezium, else kText
  // Protobuf: a FileDescriptorSet and the full name of a message in it; empty: freshet/v1/events.proto and its message
  // for the topic's role.
  std::string protobuf_descriptor_set;  // a path
  std::string protobuf_message;
  std::string protobuf_key_message;    // KeyFormat::kProtobuf: of the key, in the descriptor set
  SchemaRegistry* registry = nullptr;  // not owned, outlives the decoder; needed for kConfluent

  // What can be said without opening anything. Errors: kConfig.
  Status Validate() const;
};

enum class TimestampFormat { kMilliseconds, kSeconds, kMicroseconds, kRfc3339 };
enum class AttributeType { kBool, kInt, kDouble, kText, kTexts, kBools, kInts, kDoubles };

// Where things are in a producer's value: RFC 6901 pointers into the decoded value ("" is the whole value). The
// defaults fit the plain form of design.md; beneath an envelope the pointers start at the row or at the event's data.
// An empty optional pointer switches that part off.
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
  std::string timestamp;   // interactions: "/timestamp"; when absent the envelope's time, else the record's
  TimestampFormat timestamp_format = TimestampFormat::kMilliseconds;
  std::map<std::string, std::string> extra_features;    // name -> pointer
  std::map<std::string, std::string> extra_attributes;  // name -> pointer
  // name -> the type that an attribute must have, wherever it comes from; the others keep the type that they come with.
  std::map<std::string, AttributeType> attribute_types;
};
[[nodiscard]] SchemaMap DefaultSchema(TopicRole role);

// Above any of these a record is poison.
struct DecodeLimits {
  std::size_t max_value_bytes = std::size_t{1} << 20;
  std::size_t max_headers = 128;
  std::size_t max_header_bytes = std::size_t{64} << 10;  // names and values, all together
  int max_depth = 32;
  std::size_t max_tags = 256;
  std::size_t max_features = 256;
  std::size_t max_attributes = 256;
  std::size_t max_string_bytes = std::size_t{16} << 10;
  int vector_dim = 0;  // > 0: an item must bring a finite, non-zero vector of this dimension (passthrough)
};

// Of the names and values of a record's headers.
[[nodiscard]] std::size_t HeaderBytes(const RawRecord& record);

class EventDecoder {
 public:
  virtual ~EventDecoder() = default;
  // Fills body; position, timestamp and raw are the caller's.
  [[nodiscard]] virtual Status Decode(const RawRecord& record, Event* event) const = 0;
};

// Errors: kConfig for a malformed pointer, a missing registry, or a descriptor set that cannot be used.
[[nodiscard]] Result<std::unique_ptr<EventDecoder>> MakeDecoder(TopicRole role, const FormatOptions& format,
                                                                const SchemaMap& schema, const DecodeLimits& limits);
// MakeDecoder of RecordFormat::kJson.
[[nodiscard]] Result<std::unique_ptr<EventDecoder>> MakeJsonDecoder(TopicRole role, const SchemaMap& schema,
                                                                    const DecodeLimits& limits);

}  // namespace freshet
