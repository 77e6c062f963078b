#include "schema_mapper.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

// Sorts by name; a name that comes twice is poison, since either value might be the one that was meant.
template <typename Entries>
Status SortUnique(Entries* entries, std::string_view kind, std::size_t max) {
  if (entries->size() > max) return InvalidArgument(StrCat("more than ", max, " ", kind, "s"));
  const auto by_name = [](const auto& a, const auto& b) { return a.first < b.first; };
  if (!std::is_sorted(entries->begin(), entries->end(), by_name)) {
    std::sort(entries->begin(), entries->end(), by_name);
  }
  const auto twice = std::adjacent_find(entries->begin(), entries->end(),
                                        [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != entries->end()) return InvalidArgument(StrCat(kind, " `", twice->first, "` comes twice"));
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<SchemaMapper>> SchemaMapper::Make(TopicRole role, const SchemaMap& schema,
                                                         const DecodeLimits& limits, const Rules& rules,
                                                         std::unique_ptr<KeyReader> keys) {
  std::unique_ptr<SchemaMapper> mapper(new SchemaMapper(role, schema, limits, rules, std::move(keys)));
  FRESHET_TRY(mapper->Compile(schema));
  return mapper;
}

SchemaMapper::SchemaMapper(TopicRole role, const SchemaMap& schema, const DecodeLimits& limits, const Rules& rules,
                           std::unique_ptr<KeyReader> keys)
    : role_(role),
      limits_(limits),
      rules_(rules),
      timestamp_format_(schema.timestamp_format),
      attribute_types_(schema.attribute_types),
      keys_(std::move(keys)) {}

Status SchemaMapper::Compile(const SchemaMap& schema) {
  FRESHET_TRY(CompilePart("item_id", schema.item_id, &item_id_));
  FRESHET_TRY(CompilePart("user_id", schema.user_id, &user_id_));
  FRESHET_TRY(CompilePart("category", schema.category, &category_));
  FRESHET_TRY(CompilePart("tags", schema.tags, &tags_));
  FRESHET_TRY(CompilePart("features", schema.features, &features_));
  FRESHET_TRY(CompilePart("attributes", schema.attributes, &attributes_));
  FRESHET_TRY(CompilePart("vector", schema.vector, &vector_));
  FRESHET_TRY(CompilePart("event", schema.event, &event_));
  FRESHET_TRY(CompilePart("value", schema.value, &value_));
  FRESHET_TRY(CompilePart("timestamp", schema.timestamp, &timestamp_));
  for (const auto& [name, pointer] : schema.extra_features) {
    FRESHET_TRY(
        CompilePart("extra_features." + name, pointer, &extra_features_.emplace_back(name, std::nullopt).second));
  }
  for (const auto& [name, pointer] : schema.extra_attributes) {
    FRESHET_TRY(
        CompilePart("extra_attributes." + name, pointer, &extra_attributes_.emplace_back(name, std::nullopt).second));
  }
  if (role_ == TopicRole::kInteractions && !item_id_) {
    return ConfigError("schema.item_id: interactions need a pointer to the item's id");
  }
  return Status::Ok();
}

Status SchemaMapper::Map(const RawRecord& record, const Unwrapped& unwrapped, Event* event) const {
  if (unwrapped.kind == Unwrapped::Kind::kNotOurs) {
    event->body = Skipped{};
    return Status::Ok();
  }
  if (!record.key && role_ != TopicRole::kInteractions) {
    event->key_is_poison = true;
    return InvalidArgument("the key is null; it must be the id");
  }
  switch (role_) {
    case TopicRole::kItems: {
      ItemUpdate item;
      FRESHET_TRY(MapItem(record, unwrapped, &item, &event->key_is_poison));
      event->body = std::move(item);
      return Status::Ok();
    }
    case TopicRole::kUsers: {
      UserUpdate user;
      FRESHET_TRY(MapUser(record, unwrapped, &user, &event->key_is_poison));
      event->body = std::move(user);
      return Status::Ok();
    }
    case TopicRole::kInteractions: {
      if (unwrapped.kind == Unwrapped::Kind::kDelete) {
        if (!rules_.deletes_interactions) {
          return InvalidArgument("the value is null; an interaction cannot be deleted");
        }
        event->body = Skipped{};
        return Status::Ok();
      }
      Interaction interaction;
      FRESHET_TRY(MapInteraction(record, unwrapped, &interaction, &event->key_is_poison));
      event->body = std::move(interaction);
      return Status::Ok();
    }
  }
  return InvalidArgument("unknown topic role");
}

Result<std::string> SchemaMapper::IdOfKey(const RawRecord& record, const std::optional<SchemaPart>& id,
                                          bool* key_is_poison) const {
  Result<std::string> text = keys_->Id(record, id);
  *key_is_poison = !text.ok();
  return text;
}

Status SchemaMapper::MapItem(const RawRecord& record, const Unwrapped& unwrapped, ItemUpdate* item,
                             bool* key_is_poison) const {
  item->deleted = unwrapped.kind == Unwrapped::Kind::kDelete;
  if (item->deleted || !item_id_) {
    FRESHET_ASSIGN(item->item_id, IdOfKey(record, item_id_, key_is_poison));
  } else {
    const JsonValue* id = GetPart(item_id_, *unwrapped.row);
    if (id == nullptr) return InvalidArgument(StrCat(item_id_->text, " is missing"));
    FRESHET_ASSIGN(item->item_id, ToId(*id, item_id_->text));
  }
  if (item->deleted) return Status::Ok();
  FRESHET_ASSIGN(item->features, MapFeatures(*unwrapped.row));
  FRESHET_ASSIGN(item->attributes, MapAttributes(*unwrapped.row));
  FRESHET_ASSIGN(item->vector, MapVector(*unwrapped.row));
  return Status::Ok();
}

Status SchemaMapper::MapUser(const RawRecord& record, const Unwrapped& unwrapped, UserUpdate* user,
                             bool* key_is_poison) const {
  user->forgotten = unwrapped.kind == Unwrapped::Kind::kDelete;
  if (user->forgotten || !user_id_) {
    FRESHET_ASSIGN(user->user_id, IdOfKey(record, user_id_, key_is_poison));
  } else {
    const JsonValue* id = GetPart(user_id_, *unwrapped.row);
    if (id == nullptr) return InvalidArgument(StrCat(user_id_->text, " is missing"));
    FRESHET_ASSIGN(user->user_id, ToId(*id, user_id_->text));
  }
  if (user->forgotten) return Status::Ok();
  FRESHET_ASSIGN(user->features, MapFeatures(*unwrapped.row));
  return Status::Ok();
}

Status SchemaMapper::MapInteraction(const RawRecord& record, const Unwrapped& unwrapped, Interaction* interaction,
                                    bool* key_is_poison) const {
  const JsonValue& row = *unwrapped.row;
  const JsonValue* item_id = GetPart(item_id_, row);
  if (item_id == nullptr) return InvalidArgument(StrCat(item_id_->text, " is missing"));
  FRESHET_ASSIGN(interaction->item_id, ToId(*item_id, item_id_->text));
  if (const JsonValue* user_id = GetPart(user_id_, row)) {
    FRESHET_ASSIGN(interaction->user_id, ToId(*user_id, user_id_->text));
  } else if (rules_.interaction_user_from_key) {
    FRESHET_ASSIGN(interaction->user_id, IdOfKey(record, user_id_, key_is_poison));
  } else {
    return InvalidArgument(StrCat(user_id_ ? user_id_->text : std::string("schema.user_id"), " is missing"));
  }
  interaction->event = "view";
  if (const JsonValue* event = GetPart(event_, row)) {
    FRESHET_ASSIGN(interaction->event, ToText(*event, event_->text, limits_));
    if (interaction->event.empty()) return InvalidArgument(StrCat(event_->text, " is empty"));
  }
  if (const JsonValue* value = GetPart(value_, row)) {
    if (!value->IsNumber() || !std::isfinite(value->GetDouble())) return Mismatch(value_->text, "a finite number");
    interaction->value = value->GetDouble();
  }
  interaction->timestamp_ms = unwrapped.timestamp_ms.value_or(record.timestamp_ms);
  if (const JsonValue* timestamp = GetPart(timestamp_, row)) {
    FRESHET_ASSIGN(interaction->timestamp_ms, ToTimestampMs(*timestamp, timestamp_format_, timestamp_->text));
  }
  return Status::Ok();
}

namespace {

// Where a member stands. Only a mismatch says so: most members are read without.
std::string PlaceOf(const SchemaPart& part, std::string_view name) { return StrCat(part.text, "/", name); }

std::size_t MembersOf(const JsonValue* object) {
  return object != nullptr && object->IsObject() ? object->MemberCount() : 0;
}

Status CheckMembers(const JsonValue& members, const SchemaPart& part, std::size_t most, const DecodeLimits& limits) {
  if (!members.IsObject()) return Mismatch(part.text, "an object");
  if (members.MemberCount() > most) {
    return InvalidArgument(StrCat(part.text, " has more than ", most, " members"));
  }
  for (const auto& member : members.GetObject()) {
    if (!member.value.IsNull() && member.name.GetStringLength() > limits.max_string_bytes) {
      return InvalidArgument(StrCat("a name in ", part.text, " is longer than ", limits.max_string_bytes, " bytes"));
    }
  }
  return Status::Ok();
}

}  // namespace

Result<AttributeValue> SchemaMapper::MapAttribute(const std::string& name, const JsonValue& value,
                                                  std::string_view where) const {
  const auto type = attribute_types_.find(name);
  if (type == attribute_types_.end()) return ToAttribute(value, where, limits_);
  return ToAttribute(value, type->second, where, limits_);
}

Result<Features> SchemaMapper::MapFeatures(const JsonValue& row) const {
  Features features;
  const JsonValue* const members = GetPart(features_, row);
  features.reserve(std::min(limits_.max_features, 2 + extra_features_.size() + MembersOf(members)));
  if (const JsonValue* category = GetPart(category_, row)) {
    FRESHET_ASSIGN(std::string text, ToText(*category, category_->text, limits_));
    features.emplace_back("category", std::move(text));
  }
  if (const JsonValue* tags = GetPart(tags_, row)) {
    FRESHET_ASSIGN(std::vector<std::string> texts, ToTexts(*tags, tags_->text, limits_));
    features.emplace_back("tags", std::move(texts));
  }
  if (members != nullptr) {
    FRESHET_TRY(CheckMembers(*members, *features_, limits_.max_features, limits_));
    for (const auto& member : members->GetObject()) {
      if (member.value.IsNull()) continue;
      auto value = ToFeature(member.value, "", limits_);
      const std::string_view name = JsonText(member.name);
      if (!value.ok()) return ToFeature(member.value, PlaceOf(*features_, name), limits_).status();
      features.emplace_back(name, std::move(*value));
    }
  }
  for (const auto& [name, part] : extra_features_) {
    const JsonValue* found = GetPart(part, row);
    if (found == nullptr) continue;
    FRESHET_ASSIGN(FeatureValue value, ToFeature(*found, part->text, limits_));
    features.emplace_back(name, std::move(value));
  }
  FRESHET_TRY(SortUnique(&features, "feature", limits_.max_features));
  return features;
}

Result<Attributes> SchemaMapper::MapAttributes(const JsonValue& row) const {
  Attributes attributes;
  if (const JsonValue* const members = GetPart(attributes_, row)) {
    FRESHET_TRY(CheckMembers(*members, *attributes_, limits_.max_attributes, limits_));
    attributes.reserve(extra_attributes_.size() + members->MemberCount());
    for (const auto& member : members->GetObject()) {
      if (member.value.IsNull()) continue;
      std::string name(JsonText(member.name));
      auto value = MapAttribute(name, member.value, "");
      if (!value.ok()) return MapAttribute(name, member.value, PlaceOf(*attributes_, name)).status();
      attributes.emplace_back(std::move(name), std::move(*value));
    }
  }
  for (const auto& [name, part] : extra_attributes_) {
    const JsonValue* found = GetPart(part, row);
    if (found == nullptr) continue;
    FRESHET_ASSIGN(AttributeValue value, MapAttribute(name, *found, part->text));
    attributes.emplace_back(name, std::move(value));
  }
  FRESHET_TRY(SortUnique(&attributes, "attribute", limits_.max_attributes));
  return attributes;
}

Result<std::vector<float>> SchemaMapper::MapVector(const JsonValue& row) const {
  const JsonValue* array = GetPart(vector_, row);
  const std::string_view where = vector_ ? std::string_view(vector_->text) : "the vector";
  if (array == nullptr) {
    if (limits_.vector_dim > 0) return InvalidArgument(StrCat(where, " is missing"));
    return std::vector<float>{};
  }
  if (!array->IsArray()) return Mismatch(where, "a list of numbers");
  if (limits_.vector_dim > 0 && array->Size() != static_cast<rapidjson::SizeType>(limits_.vector_dim)) {
    return InvalidArgument(StrCat(where, " has ", array->Size(), " numbers; the dimension is ", limits_.vector_dim));
  }
  std::vector<float> vector;
  vector.reserve(array->Size());
  float squares = 0;
  for (const JsonValue& entry : array->GetArray()) {
    if (!entry.IsNumber()) return Mismatch(where, "a list of numbers");
    const double number = entry.GetDouble();
    if (!(std::abs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) {
      return Mismatch(where, "a list of finite 32-bit numbers");
    }
    vector.push_back(static_cast<float>(number));
    squares += vector.back() * vector.back();
  }
  // In the precision in which it will be normalised: a length that under- or overflows there cannot be used either.
  if (!(squares > 0) || !std::isfinite(squares)) return Mismatch(where, "of a usable length (zero, or too large)");
  return vector;
}

SchemaMap DefaultSchema(TopicRole role) {
  SchemaMap schema;
  switch (role) {
    case TopicRole::kItems:
      schema.category = "/category";
      schema.tags = "/tags";
      schema.features = "/features";
      schema.attributes = "/attributes";
      schema.vector = "/vector";
      break;
    case TopicRole::kInteractions:
      schema.item_id = "/item_id";
      schema.user_id = "/user_id";
      schema.event = "/event";
      schema.value = "/value";
      schema.timestamp = "/timestamp";
      break;
    case TopicRole::kUsers:
      schema.features = "/features";
      break;
  }
  return schema;
}

}  // namespace freshet
