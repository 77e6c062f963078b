// Avro's binary encoding -> trees, by the writer's schema (Avro specification 1.11, "Binary encoding").
//
// Place in the flow: private to ingest, a wire format before the SchemaMapper. Our own reader rather than avro-c's:
// every count and length of a record is bounded by the bytes that are there, whatever the schema. A union is the value
// of its branch, an enum its symbol, a map an object; bytes and fixed are texts where they are UTF-8, else null; a
// decimal is a number; dates, times and timestamps stay whole numbers in the schema's unit. Constant after making,
// thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/status.h"
#include "freshet/ingest/decoder.h"

namespace freshet {

class AvroSchema {
 public:
  // Schemas as (name, JSON text); each may use the named types of those before it, the last is the record's. Errors:
  // kInvalidArgument.
  [[nodiscard]] static Result<std::unique_ptr<AvroSchema>> Parse(
      const std::vector<std::pair<std::string, std::string>>& texts);
  virtual ~AvroSchema() = default;
  // All of `bytes` must be the record. Errors: kInvalidArgument.
  [[nodiscard]] virtual Result<std::unique_ptr<JsonDocument>> Read(std::string_view bytes,
                                                                   const DecodeLimits& limits) const = 0;
};

}  // namespace freshet
