// The schema registry that Confluent-framed records refer to.
//
// Place in the flow: asked by the decoders, from the thread that decodes; one for all topics. What it answers is cached
// by them (an id never changes its schema). Thread-safe. Every call has a deadline.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "freshet/core/status.h"

namespace freshet {

struct RegistryOptions {
  std::string url;       // http://host:port or https://..., with a path if it has one; empty: there is no registry
  std::string username;  // basic authentication; empty: none
  std::string password;
  std::string ca_file;  // PEM; empty: the system's
  int timeout_ms = 5'000;
  Status Validate() const;
};

struct RegisteredSchema {
  enum class Type { kAvro, kJson, kProtobuf } type = Type::kAvro;
  // (name, schema text) in the order in which they need each other: references first, the schema itself last.
  std::vector<std::pair<std::string, std::string>> texts;
};

class SchemaRegistry {
 public:
  virtual ~SchemaRegistry() = default;
  // Errors: kNotFound for an id that it does not know, in its own words (error_code 40403; of a reference 40401 or
  // 40402), or whose schema cannot be used; kUnavailable or kDeadlineExceeded while it is away, overloaded or answers
  // anything else, a gateway's 404 too (try again); kFailedPrecondition when it refuses us or cannot be trusted
  // (credentials, certificate).
  [[nodiscard]] virtual Result<RegisteredSchema> Fetch(std::uint32_t id) = 0;
};

// By the registry's REST interface. Errors: kConfig.
[[nodiscard]] Result<std::unique_ptr<SchemaRegistry>> OpenSchemaRegistry(const RegistryOptions& options);

}  // namespace freshet
