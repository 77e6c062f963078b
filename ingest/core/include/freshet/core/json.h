// JSON: the one place that names RapidJSON.
//
// Place in the flow: event decoding, HTTP bodies, manifests, reports. Parsing is strict RFC 8259 UTF-8, bounded in
// depth, without exceptions; a JsonDocument owns its tree, a JsonValue is a view into it. Thread-compatible.
#pragma once

// RapidJSON looks for quotes and blanks sixteen bytes at a time then; before its first header.
#if defined(__SSE4_2__) && !defined(RAPIDJSON_SSE42)
#define RAPIDJSON_SSE42
#endif

#include <rapidjson/document.h>
#include <rapidjson/pointer.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

using JsonDocument = rapidjson::Document;
using JsonValue = rapidjson::Value;
// An RFC 6901 pointer, compiled once: JsonPointer("/a/b", 4). IsValid() says whether it parsed.
using JsonPointer = rapidjson::Pointer;

inline constexpr int kJsonDepthBound = 256;  // the most that a caller may allow: reading recurses

// Errors: kInvalidArgument with the byte offset. Depth above `max_depth` is an error, so that hostile nesting costs
// nothing, neither here nor for those who walk the tree.
[[nodiscard]] Result<std::unique_ptr<JsonDocument>> ParseJson(std::string_view text, int max_depth = 64);

namespace internal {
// As ParseJson; `pool`, where the tree and its texts are; null: in the document's own memory.
[[nodiscard]] Result<std::unique_ptr<JsonDocument>> ParseJsonIn(std::string_view text, int max_depth,
                                                                rapidjson::MemoryPoolAllocator<>* pool);
}  // namespace internal

// The same for one text after the other, in memory that is used again, and faster: most texts are read by simdjson.
// What comes out is the same, also where it is an error. Not movable, one thread.
class JsonArena {
 public:
  JsonArena();
  ~JsonArena();
  JsonArena(const JsonArena&) = delete;
  JsonArena& operator=(const JsonArena&) = delete;
  // The document before must be gone.
  [[nodiscard]] Result<std::unique_ptr<JsonDocument>> Parse(std::string_view text, int max_depth = 64);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

[[nodiscard]] std::string JsonQuote(std::string_view text);
[[nodiscard]] std::string ToJson(const JsonValue& value);

// Member lookup; nullptr when absent or when `object` is no object.
[[nodiscard]] const JsonValue* JsonFind(const JsonValue& object, std::string_view key);
[[nodiscard]] inline std::string_view JsonText(const JsonValue& value) {
  return {value.GetString(), value.GetStringLength()};
}

// Streaming writer for answers and reports. Non-finite numbers become null (JSON has none).
class JsonWriter {
 public:
  JsonWriter& BeginObject();
  JsonWriter& EndObject();
  JsonWriter& BeginArray();
  JsonWriter& EndArray();
  JsonWriter& Key(std::string_view key);
  JsonWriter& String(std::string_view value);
  JsonWriter& Int(std::int64_t value);
  JsonWriter& Uint(std::uint64_t value);
  JsonWriter& Double(double value);
  JsonWriter& Bool(bool value);
  JsonWriter& Null();
  JsonWriter& Raw(std::string_view json);  // must be one valid JSON value
  [[nodiscard]] std::string Take();

 private:
  rapidjson::StringBuffer buffer_;
  rapidjson::Writer<rapidjson::StringBuffer> writer_{buffer_};
};

}  // namespace freshet
