#include "schema_reader.h"

#include <array>
#include <map>
#include <optional>

#include "config_reader.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

void ReadPointerMap(ConfigReader* reader, const YamlNode& node, const std::string& key,
                    std::map<std::string, std::string>* out) {
  if (!node.IsMapping()) {
    reader->Error(node.line, StrCat("`", key, "` must map names to JSON pointers"));
    return;
  }
  for (const auto& [name, pointer] : node.members) {
    if (const auto text = reader->ReadText(pointer, name)) (*out)[name] = *text;
  }
}

void ReadAttributeTypes(ConfigReader* reader, const YamlNode& node, std::map<std::string, AttributeType>* out) {
  if (!node.IsMapping()) {
    reader->Error(
        node.line,
        "`attribute_types` must map names of attributes to bool, int, double, text, texts, bools, ints or doubles");
    return;
  }
  for (const auto& [name, type] : node.members) {
    const std::string& attribute = name;  // clang 14 takes no binding into a lambda
    reader
        ->Choice(name, {"bool", "int", "double", "text", "texts", "bools", "ints", "doubles"},
                 [&](std::size_t choice) {
                   (*out)[attribute] = std::array{AttributeType::kBool, AttributeType::kInt,    AttributeType::kDouble,
                                                  AttributeType::kText, AttributeType::kTexts,  AttributeType::kBools,
                                                  AttributeType::kInts, AttributeType::kDoubles}[choice];
                 })
        .read(type);
  }
}

}  // namespace

void ReadSchema(ConfigReader* reader, const YamlNode& node, const std::string& path, SchemaMap* schema) {
  // A pointer may be empty: it switches that part off.
  const auto pointer = [&](const std::string& key, std::string* out) { return reader->Text(key, out, true); };
  reader->Mapping(
      node, path,
      {pointer("item_id", &schema->item_id),
       pointer("user_id", &schema->user_id),
       pointer("category", &schema->category),
       pointer("tags", &schema->tags),
       pointer("features", &schema->features),
       pointer("attributes", &schema->attributes),
       pointer("vector", &schema->vector),
       pointer("event", &schema->event),
       pointer("value", &schema->value),
       pointer("timestamp", &schema->timestamp),
       {"extra_features",
        [&](const YamlNode& n) { ReadPointerMap(reader, n, "extra_features", &schema->extra_features); }},
       {"extra_attributes",
        [&](const YamlNode& n) { ReadPointerMap(reader, n, "extra_attributes", &schema->extra_attributes); }},
       {"attribute_types", [&](const YamlNode& n) { ReadAttributeTypes(reader, n, &schema->attribute_types); }},
       reader->Choice("timestamp_format", {"ms", "s", "us", "rfc3339"}, [&](std::size_t choice) {
         schema->timestamp_format = std::array{TimestampFormat::kMilliseconds, TimestampFormat::kSeconds,
                                               TimestampFormat::kMicroseconds, TimestampFormat::kRfc3339}[choice];
       })});
}

Result<EventFileSchemas> FileSchemasFromYaml(const YamlNode& node, const std::string& file) {
  EventFileSchemas schemas;
  ConfigReader reader(file);
  const auto of = [&](const char* key, TopicRole role, std::optional<SchemaMap>* out) {
    return reader.Section(key, [&reader, key, role, out](const YamlNode& lines) {
      *out = PlainLineSchema(role);
      ReadSchema(&reader, lines, std::string("schema.") + key, &**out);
    });
  };
  reader.Mapping(node, "schema",
                 {of("items", TopicRole::kItems, &schemas.items),
                  of("interactions", TopicRole::kInteractions, &schemas.interactions),
                  of("users", TopicRole::kUsers, &schemas.users)});
  std::string all;
  for (const std::string& error : reader.errors()) all += (all.empty() ? "" : "\n  ") + error;
  if (!all.empty()) return ConfigError(all);
  return schemas;
}

}  // namespace freshet
