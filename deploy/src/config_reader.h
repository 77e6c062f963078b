// Typed reading of a YAML mapping against a declared list of keys.
//
// Place in the flow: private to config.cc. Collects every mistake instead of stopping at the first.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/yaml.h"

namespace freshet {

class ConfigReader {
 public:
  explicit ConfigReader(std::string file) : file_(std::move(file)) {}

  struct Field {
    std::string key;
    std::function<void(const YamlNode&)> read;
  };

  // Reads `node` as a mapping of `fields`; `path` names it in messages ("" for the root).
  void Mapping(const YamlNode& node, const std::string& path, const std::vector<Field>& fields);
  void Error(int line, const std::string& message);

  [[nodiscard]] Field Text(const std::string& key, std::string* out, bool may_be_empty = false);
  template <typename Number>
  [[nodiscard]] Field Integer(const std::string& key, Number* out, std::int64_t low,
                              std::int64_t high = std::numeric_limits<std::int64_t>::max()) {
    return {key, [this, key, out, low, high](const YamlNode& node) {
              if (const auto value = ReadInteger(node, key, low, high)) *out = static_cast<Number>(*value);
            }};
  }
  [[nodiscard]] Field Number(const std::string& key, double* out, double low, double high);
  [[nodiscard]] Field Flag(const std::string& key, bool* out);
  // `chosen` is called with the index of the choice.
  [[nodiscard]] Field Choice(const std::string& key, const std::vector<std::string>& choices,
                             const std::function<void(std::size_t)>& chosen);
  [[nodiscard]] Field Section(const std::string& key, const std::function<void(const YamlNode&)>& read) {
    return {key, read};
  }

  // A scalar with ${env:NAME} replaced.
  [[nodiscard]] std::optional<std::string> ReadText(const YamlNode& node, const std::string& key);
  [[nodiscard]] std::optional<std::int64_t> ReadInteger(const YamlNode& node, const std::string& key, std::int64_t low,
                                                        std::int64_t high);
  [[nodiscard]] const std::vector<std::string>& errors() const { return errors_; }

 private:
  const std::string file_;
  std::vector<std::string> errors_;
};

}  // namespace freshet
