#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/decoder.h"

namespace freshet {
namespace {

// A compiled pointer and its text, for messages.
struct Part {
  std::string text;
  JsonPointer pointer;
};

// The value of a part; nothing when the part is switched off, absent or null.
const JsonValue* Get(const std::optional<Part>& part, const JsonValue& root) {
  if (!part) return nullptr;
  const JsonValue* value = part->pointer.Get(root);
  return value == nullptr || value->IsNull() ? nullptr : value;
}

Status Mismatch(std::string_view where, std::string_view wanted) {
  return InvalidArgument(StrCat(where, " is not ", wanted));
}

Result<std::string> ToText(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (!value.IsString()) return Mismatch(where, "a text");
  if (value.GetStringLength() > limits.max_string_bytes) {
    return InvalidArgument(StrCat(where, " is longer than ", limits.max_string_bytes, " bytes"));
  }
  return std::string(JsonText(value));
}

Result<std::vector<std::string>> ToTexts(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (!value.IsArray()) return Mismatch(where, "a list of texts");
  if (value.Size() > limits.max_tags) {
    return InvalidArgument(StrCat(where, " has more than ", limits.max_tags, " entries"));
  }
  std::vector<std::string> texts;
  texts.reserve(value.Size());
  for (const JsonValue& entry : value.GetArray()) {
    if (entry.IsNull()) continue;
    if (!entry.IsString()) return Mismatch(where, "a list of texts");
    FRESHET_ASSIGN(std::string text, ToText(entry, where, limits));
    texts.push_back(std::move(text));
  }
  return texts;
}

// Producers write ids as texts or as whole numbers; both name the same item.
Result<std::string> ToId(const JsonValue& value, std::string_view where) {
  std::string id;
  if (value.IsInt64()) {
    id = std::to_string(value.GetInt64());
  } else if (value.IsUint64()) {
    id = std::to_string(value.GetUint64());
  } else if (value.IsString()) {
    id = JsonText(value);
  } else {
    return Mismatch(where, "a text or a whole number");
  }
  if (!IsValidId(id)) return Mismatch(where, StrCat("an id of 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  return id;
}

Result<FeatureValue> ToFeature(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (value.IsBool()) return FeatureValue(value.GetBool() ? 1.0 : 0.0);
  if (value.IsNumber()) {
    const double number = value.GetDouble();
    if (!std::isfinite(number)) return Mismatch(where, "finite");
    return FeatureValue(number);
  }
  if (value.IsString()) {
    FRESHET_ASSIGN(std::string text, ToText(value, where, limits));
    return FeatureValue(std::move(text));
  }
  if (value.IsArray()) {
    FRESHET_ASSIGN(std::vector<std::string> texts, ToTexts(value, where, limits));
    return FeatureValue(std::move(texts));
  }
  return Mismatch(where, "a number, a boolean, a text or a list of texts");
}

Result<AttributeValue> ToAttribute(const JsonValue& value, std::string_view where, const DecodeLimits& limits) {
  if (value.IsBool()) return AttributeValue(value.GetBool());
  if (value.IsInt64()) return AttributeValue(static_cast<std::int64_t>(value.GetInt64()));
  FRESHET_ASSIGN(FeatureValue feature, ToFeature(value, where, limits));
  return std::visit([](auto&& v) { return AttributeValue(std::forward<decltype(v)>(v)); }, std::move(feature));
}

// Sorts by name; a name that comes twice is poison, since either value might be the one that was meant.
template <typename Entries>
Status SortUnique(Entries* entries, std::string_view kind, std::size_t max) {
  if (entries->size() > max) return InvalidArgument(StrCat("more than ", max, " ", kind, "s"));
  std::sort(entries->begin(), entries->end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto twice = std::adjacent_find(entries->begin(), entries->end(),
                                        [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != entries->end()) return InvalidArgument(StrCat(kind, " `", twice->first, "` comes twice"));
  return Status::Ok();
}

class JsonDecoder final : public EventDecoder {
 public:
  JsonDecoder(TopicRole role, const DecodeLimits& limits) : role_(role), limits_(limits) {}

  Status Compile(const SchemaMap& schema);
  Status Decode(const RawRecord& record, Event* event) const override;

 private:
  using Extras = std::vector<std::pair<std::string, std::optional<Part>>>;

  Status DecodeItem(const RawRecord& record, const JsonValue* root, ItemUpdate* item) const;
  Status DecodeInteraction(const RawRecord& record, const JsonValue& root, Interaction* interaction) const;
  Status DecodeUser(const RawRecord& record, const JsonValue* root, UserUpdate* user) const;
  Result<Features> DecodeFeatures(const JsonValue& root) const;
  Result<Attributes> DecodeAttributes(const JsonValue& root) const;
  Result<std::vector<float>> DecodeVector(const JsonValue& root) const;
  static Result<std::string> IdFromKey(const RawRecord& record);

  const TopicRole role_;
  const DecodeLimits limits_;
  // Constant after Compile():
  std::optional<Part> item_id_, user_id_, category_, tags_, features_, attributes_, vector_, event_, value_, timestamp_;
  Extras extra_features_, extra_attributes_;
};

Status CompilePart(std::string_view name, const std::string& text, std::optional<Part>* part) {
  if (text.empty()) return Status::Ok();
  Part compiled{text, JsonPointer(text.data(), text.size())};
  if (text.front() != '/' || !compiled.pointer.IsValid()) {
    return ConfigError(
        StrCat("schema.", name, ": `", text, "` is no JSON pointer (RFC 6901), such as /features/price"));
  }
  part->emplace(std::move(compiled));
  return Status::Ok();
}

Status JsonDecoder::Compile(const SchemaMap& schema) {
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

Status JsonDecoder::Decode(const RawRecord& record, Event* event) const {
  if (!record.key && role_ != TopicRole::kInteractions) return InvalidArgument("the key is null; it must be the id");
  std::unique_ptr<JsonDocument> document;
  if (record.value) {
    if (record.value->empty()) return InvalidArgument("the value is empty; a delete has a null value");
    if (record.value->size() > limits_.max_value_bytes) {
      return InvalidArgument(
          StrCat("the value has ", record.value->size(), " bytes; the limit is ", limits_.max_value_bytes));
    }
    FRESHET_ASSIGN(document, ParseJson(*record.value, limits_.max_depth));
    if (!document->IsObject()) return InvalidArgument("the value is no JSON object");
  }
  switch (role_) {
    case TopicRole::kItems: {
      ItemUpdate item;
      FRESHET_TRY(DecodeItem(record, document.get(), &item));
      event->body = std::move(item);
      return Status::Ok();
    }
    case TopicRole::kUsers: {
      UserUpdate user;
      FRESHET_TRY(DecodeUser(record, document.get(), &user));
      event->body = std::move(user);
      return Status::Ok();
    }
    case TopicRole::kInteractions: {
      if (document == nullptr) return InvalidArgument("the value is null; an interaction cannot be deleted");
      Interaction interaction;
      FRESHET_TRY(DecodeInteraction(record, *document, &interaction));
      event->body = std::move(interaction);
      return Status::Ok();
    }
  }
  return InvalidArgument("unknown topic role");
}

Result<std::string> JsonDecoder::IdFromKey(const RawRecord& record) {
  if (!record.key || !IsValidId(*record.key)) {
    return InvalidArgument(StrCat("the key is not an id of 1 to ", kMaxIdBytes, " bytes of UTF-8"));
  }
  return std::string(*record.key);
}

Status JsonDecoder::DecodeItem(const RawRecord& record, const JsonValue* root, ItemUpdate* item) const {
  if (root == nullptr || !item_id_) {
    FRESHET_ASSIGN(item->item_id, IdFromKey(record));
  } else {
    const JsonValue* id = Get(item_id_, *root);
    if (id == nullptr) return InvalidArgument(StrCat(item_id_->text, " is missing"));
    FRESHET_ASSIGN(item->item_id, ToId(*id, item_id_->text));
  }
  item->deleted = root == nullptr;
  if (item->deleted) return Status::Ok();
  FRESHET_ASSIGN(item->features, DecodeFeatures(*root));
  FRESHET_ASSIGN(item->attributes, DecodeAttributes(*root));
  FRESHET_ASSIGN(item->vector, DecodeVector(*root));
  return Status::Ok();
}

Status JsonDecoder::DecodeUser(const RawRecord& record, const JsonValue* root, UserUpdate* user) const {
  const JsonValue* id = root == nullptr ? nullptr : Get(user_id_, *root);
  if (id != nullptr) {
    FRESHET_ASSIGN(user->user_id, ToId(*id, user_id_->text));
  } else {
    if (root != nullptr && user_id_) return InvalidArgument(StrCat(user_id_->text, " is missing"));
    FRESHET_ASSIGN(user->user_id, IdFromKey(record));
  }
  user->forgotten = root == nullptr;
  if (user->forgotten) return Status::Ok();
  FRESHET_ASSIGN(user->features, DecodeFeatures(*root));
  return Status::Ok();
}

Status JsonDecoder::DecodeInteraction(const RawRecord& record, const JsonValue& root, Interaction* interaction) const {
  const JsonValue* item_id = Get(item_id_, root);
  if (item_id == nullptr) return InvalidArgument(StrCat(item_id_->text, " is missing"));
  FRESHET_ASSIGN(interaction->item_id, ToId(*item_id, item_id_->text));
  if (const JsonValue* user_id = Get(user_id_, root)) {
    FRESHET_ASSIGN(interaction->user_id, ToId(*user_id, user_id_->text));
  } else {
    FRESHET_ASSIGN(interaction->user_id, IdFromKey(record));
  }
  interaction->event = "view";
  if (const JsonValue* event = Get(event_, root)) {
    FRESHET_ASSIGN(interaction->event, ToText(*event, event_->text, limits_));
    if (interaction->event.empty()) return InvalidArgument(StrCat(event_->text, " is empty"));
  }
  if (const JsonValue* value = Get(value_, root)) {
    if (!value->IsNumber() || !std::isfinite(value->GetDouble())) return Mismatch(value_->text, "a finite number");
    interaction->value = value->GetDouble();
  }
  interaction->timestamp_ms = record.timestamp_ms;
  if (const JsonValue* timestamp = Get(timestamp_, root)) {
    if (!timestamp->IsInt64() || timestamp->GetInt64() < 0) {
      return Mismatch(timestamp_->text, "a time in whole Unix milliseconds");
    }
    interaction->timestamp_ms = timestamp->GetInt64();
  }
  return Status::Ok();
}

Result<Features> JsonDecoder::DecodeFeatures(const JsonValue& root) const {
  Features features;
  if (const JsonValue* category = Get(category_, root)) {
    FRESHET_ASSIGN(std::string text, ToText(*category, category_->text, limits_));
    features.emplace_back("category", std::move(text));
  }
  if (const JsonValue* tags = Get(tags_, root)) {
    FRESHET_ASSIGN(std::vector<std::string> texts, ToTexts(*tags, tags_->text, limits_));
    features.emplace_back("tags", std::move(texts));
  }
  if (const JsonValue* members = Get(features_, root)) {
    if (!members->IsObject()) return Mismatch(features_->text, "an object");
    if (members->MemberCount() > limits_.max_features) {
      return InvalidArgument(StrCat(features_->text, " has more than ", limits_.max_features, " members"));
    }
    for (const auto& member : members->GetObject()) {
      if (member.value.IsNull()) continue;
      FRESHET_ASSIGN(std::string name, ToText(member.name, StrCat("a name in ", features_->text), limits_));
      FRESHET_ASSIGN(FeatureValue value, ToFeature(member.value, StrCat(features_->text, "/", name), limits_));
      features.emplace_back(std::move(name), std::move(value));
    }
  }
  for (const auto& [name, part] : extra_features_) {
    const JsonValue* found = Get(part, root);
    if (found == nullptr) continue;
    FRESHET_ASSIGN(FeatureValue value, ToFeature(*found, part->text, limits_));
    features.emplace_back(name, std::move(value));
  }
  FRESHET_TRY(SortUnique(&features, "feature", limits_.max_features));
  return features;
}

Result<Attributes> JsonDecoder::DecodeAttributes(const JsonValue& root) const {
  Attributes attributes;
  if (const JsonValue* members = Get(attributes_, root)) {
    if (!members->IsObject()) return Mismatch(attributes_->text, "an object");
    if (members->MemberCount() > limits_.max_attributes) {
      return InvalidArgument(StrCat(attributes_->text, " has more than ", limits_.max_attributes, " members"));
    }
    for (const auto& member : members->GetObject()) {
      if (member.value.IsNull()) continue;
      FRESHET_ASSIGN(std::string name, ToText(member.name, StrCat("a name in ", attributes_->text), limits_));
      FRESHET_ASSIGN(AttributeValue value, ToAttribute(member.value, StrCat(attributes_->text, "/", name), limits_));
      attributes.emplace_back(std::move(name), std::move(value));
    }
  }
  for (const auto& [name, part] : extra_attributes_) {
    const JsonValue* found = Get(part, root);
    if (found == nullptr) continue;
    FRESHET_ASSIGN(AttributeValue value, ToAttribute(*found, part->text, limits_));
    attributes.emplace_back(name, std::move(value));
  }
  FRESHET_TRY(SortUnique(&attributes, "attribute", limits_.max_attributes));
  return attributes;
}

Result<std::vector<float>> JsonDecoder::DecodeVector(const JsonValue& root) const {
  const JsonValue* array = Get(vector_, root);
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

}  // namespace

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

Result<std::unique_ptr<EventDecoder>> MakeJsonDecoder(TopicRole role, const SchemaMap& schema,
                                                      const DecodeLimits& limits) {
  auto decoder = std::make_unique<JsonDecoder>(role, limits);
  FRESHET_TRY(decoder->Compile(schema));
  return std::unique_ptr<EventDecoder>(std::move(decoder));
}

}  // namespace freshet
