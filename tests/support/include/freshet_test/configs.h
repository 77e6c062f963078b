// Configurations of a whole engine and its sidecar for tests: passthrough vectors, free ports, own directories.
#pragma once

#include <string>

#include "freshet/core/strings.h"

namespace freshet::test {

inline constexpr int kTestDim = 8;

inline std::string EngineYaml(const std::string& broker, const std::string& data_dir,
                              const std::string& assign = "all") {
  return StrCat("data_dir: ", data_dir, "\nkafka:\n  bootstrap_servers: ", broker, "\n  assign: ", assign,
                "\ntopics:\n  items: {name: items}\n  interactions: {name: interactions}\n  users: {name: users}\n",
                "  create: true\nencoder: {kind: passthrough, dim: ", kTestDim, ", metric: cosine}\n",
                "index: {capacity: 100000}\nbatch: {max_records: 64}\nquery: {listen: \"127.0.0.1:0\"}\n");
}

inline std::string SidecarYaml(const std::string& broker, const std::string& data_dir) {
  return StrCat("data_dir: ", data_dir, "\nkafka: {bootstrap_servers: \"", broker, "\"}\n",
                "encoder: {kind: passthrough, dim: ", kTestDim, ", metric: cosine}\n",
                "index: {capacity: 100000}\nquery: {listen: \"127.0.0.1:0\"}\n");
}

}  // namespace freshet::test
