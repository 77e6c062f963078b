// The key `schema` of a configuration: where things are in a producer's value.
//
// Place in the flow: private to the composition root; of a topic in an engine's configuration (config.cc), of files in
// that of train and evaluate. Stateless.
#pragma once

#include <string>

#include "freshet/core/status.h"
#include "freshet/core/yaml.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/event_file.h"

namespace freshet {

class ConfigReader;

// Into what `schema` holds already; `path` names it in messages. Mistakes go to `reader`.
void ReadSchema(ConfigReader* reader, const YamlNode& node, const std::string& path, SchemaMap* schema);

// Of files: `items`, `interactions`, `users`, each as the above over the plain form of a line. Errors: kConfig, every
// mistake with "file:line".
[[nodiscard]] Result<EventFileSchemas> FileSchemasFromYaml(const YamlNode& node, const std::string& file);

}  // namespace freshet
