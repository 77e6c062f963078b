// JSON values -> the types of an event, checked once.
//
// Place in the flow: private to ingest's decoders. Stateless, thread-safe. Errors: kInvalidArgument; the message names
// the place (`where`, a JSON pointer) and never the value, because it goes into a dead letter's headers and into logs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/status.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/event.h"

namespace freshet {

// A compiled pointer and its text, for messages.
struct SchemaPart {
  std::string text;
  JsonPointer pointer;
};

// `name` is the key of the schema map. An empty pointer leaves `part` empty. Errors: kConfig.
Status CompilePart(std::string_view name, const std::string& pointer, std::optional<SchemaPart>* part);
// The value of a part; nothing when the part is switched off, absent or null.
[[nodiscard]] const JsonValue* GetPart(const std::optional<SchemaPart>& part, const JsonValue& root);

[[nodiscard]] Status Mismatch(std::string_view where, std::string_view wanted);
[[nodiscard]] Result<std::string> ToText(const JsonValue& value, std::string_view where, const DecodeLimits& limits);
[[nodiscard]] Result<std::vector<std::string>> ToTexts(const JsonValue& value, std::string_view where,
                                                       const DecodeLimits& limits);
// Producers write ids as texts or as whole numbers; both name the same item.
[[nodiscard]] Result<std::string> ToId(const JsonValue& value, std::string_view where);
[[nodiscard]] Result<FeatureValue> ToFeature(const JsonValue& value, std::string_view where,
                                             const DecodeLimits& limits);
// By the type that the JSON value has.
[[nodiscard]] Result<AttributeValue> ToAttribute(const JsonValue& value, std::string_view where,
                                                 const DecodeLimits& limits);
// By the type that the schema declares; the only conversion is from a whole number to kDouble.
[[nodiscard]] Result<AttributeValue> ToAttribute(const JsonValue& value, AttributeType type, std::string_view where,
                                                 const DecodeLimits& limits);
// Unix milliseconds, from 1970 to 9999: what lies beyond was written in another unit than the schema says.
[[nodiscard]] Result<std::int64_t> ToTimestampMs(const JsonValue& value, TimestampFormat format,
                                                 std::string_view where);
// "2018-04-05T17:31:00.25+02:00" -> Unix ms, rounded down; nothing for what RFC 3339 does not allow.
[[nodiscard]] std::optional<std::int64_t> ParseRfc3339(std::string_view text);

}  // namespace freshet
