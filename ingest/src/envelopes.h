// Debezium and CloudEvents: what producers put around their rows.
//
// Place in the flow: private to ingest, between the wire format and the SchemaMapper. Stateless, thread-safe. Errors:
// kInvalidArgument.
#pragma once

#include <memory>
#include <string_view>

#include "freshet/ingest/record_source.h"
#include "schema_mapper.h"

namespace freshet {

// An object of Connect's JsonConverter with schemas enabled, {"schema": ..., "payload": ...}: its payload; else
// `value`.
[[nodiscard]] const JsonValue& WithoutConnectSchema(const JsonValue& value);

// A change event: c, u, r are the row that they made, d is a delete (the tombstone that follows says the same again), a
// logical message (m) and a transaction boundary are not ours. A truncate (t) is poison: it names no rows.
[[nodiscard]] Result<Unwrapped> UnwrapDebezium(std::unique_ptr<JsonDocument> document);

enum class CloudEventMode { kNone, kStructured, kBinary };
// By the headers alone: a content type of CloudEvents, or the four attributes that every event has.
[[nodiscard]] CloudEventMode RecogniseCloudEvent(const RawRecord& record);
// Structured: the value is the event, its `data` the row. Without data it is no delete, but poison.
[[nodiscard]] Result<Unwrapped> UnwrapStructuredCloudEvent(const RawRecord& record,
                                                           std::unique_ptr<JsonDocument> document,
                                                           const DecodeLimits& limits);
// Binary: the value is the row; what the headers say is checked. A null value is a delete and never comes here.
Status CheckBinaryCloudEvent(const RawRecord& record, Unwrapped* unwrapped);

}  // namespace freshet
