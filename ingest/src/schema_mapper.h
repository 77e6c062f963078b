// A producer's object -> an event, by the schema map.
//
// Place in the flow: private to ingest; the last step of every decoder, whatever the bytes were: JSON, Protobuf and
// Avro all arrive here as one tree. Constant after Make(), thread-safe. Errors: kInvalidArgument naming the pointer.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "freshet/ingest/decoder.h"
#include "json_values.h"

namespace freshet {

// What a record says once its wire format and its envelope are gone.
struct Unwrapped {
  enum class Kind { kRow, kDelete, kNotOurs } kind = Kind::kRow;
  std::unique_ptr<JsonDocument> document;    // owns what `row` points into
  const JsonValue* row = nullptr;            // kRow: the object at which the schema's pointers start
  std::optional<std::int64_t> timestamp_ms;  // when the envelope says that it happened
};

// The id that a record's key holds. `id` is the schema's pointer to the id, if it has one.
class KeyReader {
 public:
  virtual ~KeyReader() = default;
  [[nodiscard]] virtual Result<std::string> Id(const RawRecord& record, const std::optional<SchemaPart>& id) const = 0;
};

class SchemaMapper {
 public:
  struct Rules {
    bool deletes_interactions = false;      // a delete of an interaction: skipped (true) or poison (false)
    bool interaction_user_from_key = true;  // where the value names no user
  };

  // `keys` is owned. Errors: kConfig for a malformed pointer.
  static Result<std::unique_ptr<SchemaMapper>> Make(TopicRole role, const SchemaMap& schema, const DecodeLimits& limits,
                                                    const Rules& rules, std::unique_ptr<KeyReader> keys);
  Status Map(const RawRecord& record, const Unwrapped& unwrapped, Event* event) const;
  [[nodiscard]] const DecodeLimits& limits() const { return limits_; }

 private:
  using Extras = std::vector<std::pair<std::string, std::optional<SchemaPart>>>;

  SchemaMapper(TopicRole role, const SchemaMap& schema, const DecodeLimits& limits, const Rules& rules,
               std::unique_ptr<KeyReader> keys);
  Status Compile(const SchemaMap& schema);
  Result<std::string> IdOfKey(const RawRecord& record, const std::optional<SchemaPart>& id, bool* key_is_poison) const;
  Status MapItem(const RawRecord& record, const Unwrapped& unwrapped, ItemUpdate* item, bool* key_is_poison) const;
  Status MapUser(const RawRecord& record, const Unwrapped& unwrapped, UserUpdate* user, bool* key_is_poison) const;
  Status MapInteraction(const RawRecord& record, const Unwrapped& unwrapped, Interaction* interaction,
                        bool* key_is_poison) const;
  Result<Features> MapFeatures(const JsonValue& row) const;
  Result<Attributes> MapAttributes(const JsonValue& row) const;
  Result<AttributeValue> MapAttribute(const std::string& name, const JsonValue& value, std::string_view where) const;
  Result<std::vector<float>> MapVector(const JsonValue& row) const;

  const TopicRole role_;
  const DecodeLimits limits_;
  const Rules rules_;
  const TimestampFormat timestamp_format_;
  const std::map<std::string, AttributeType> attribute_types_;
  const std::unique_ptr<KeyReader> keys_;
  // Constant after Compile():
  std::optional<SchemaPart> item_id_, user_id_, category_, tags_, features_, attributes_, vector_, event_, value_,
      timestamp_;
  Extras extra_features_, extra_attributes_;
};

}  // namespace freshet
