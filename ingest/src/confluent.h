// Confluent's frames: a zero byte, the schema's id in four bytes, big-endian, then the record as its schema has it.
//
// Place in the flow: private to ingest, a wire format before the SchemaMapper; one for a topic's keys and values. A
// schema is fetched and compiled once and kept, the most recently used `max_schemas` of them. Thread-safe. Errors:
// kInvalidArgument for bytes, or a schema id, that cannot be used; the registry's transient errors: try the same bytes
// again; kFailedPrecondition when the registry refuses us.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>

#include "freshet/core/json.h"
#include "freshet/core/status.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/schema_registry.h"

namespace freshet {

class ConfluentReader {
 public:
  // `registry` outlives the reader.
  explicit ConfluentReader(SchemaRegistry* registry, std::size_t max_schemas = 1000);
  ~ConfluentReader();

  // JSON, Protobuf and Avro text never begin so.
  [[nodiscard]] static bool IsFrame(std::string_view bytes) { return !bytes.empty() && bytes.front() == '\0'; }
  [[nodiscard]] Result<std::unique_ptr<JsonDocument>> Read(std::string_view frame, const DecodeLimits& limits);

 private:
  struct Compiled;
  struct Entry {
    std::shared_ptr<const Compiled> schema;
    std::uint64_t used = 0;
    std::chrono::steady_clock::time_point expires;
  };
  Result<std::shared_ptr<const Compiled>> SchemaOf(std::uint32_t id);

  SchemaRegistry* const registry_;
  const std::size_t max_schemas_;
  std::mutex mu_;
  std::map<std::uint32_t, Entry> schemas_;  // guarded by mu_
  std::uint64_t uses_ = 0;                  // guarded by mu_
};

}  // namespace freshet
