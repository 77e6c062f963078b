#include "config_reader.h"

#include <cstdlib>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"

namespace freshet {

namespace {

constexpr std::size_t kMaxSecretBytes = std::size_t{64} << 10;

// What stands for ${name}. Errors name the variable or the file, never what is in it.
Result<std::string> Substitute(std::string_view name) {
  if (name.rfind("env:", 0) == 0) {
    const char* value = std::getenv(std::string(name.substr(4)).c_str());
    if (value == nullptr) return ConfigError(StrCat("the environment variable ", name.substr(4), " is not set"));
    return std::string(value);
  }
  if (name.rfind("file:", 0) == 0) {
    FRESHET_ASSIGN(std::string value, ReadFile(std::string(name.substr(5)), kMaxSecretBytes));
    // Written by an editor or by echo.
    if (!value.empty() && value.back() == '\n') value.pop_back();
    if (!value.empty() && value.back() == '\r') value.pop_back();
    return value;
  }
  return ConfigError("${...} must be ${env:NAME} or ${file:PATH}");
}

}  // namespace

void ConfigReader::Error(int line, const std::string& message) {
  errors_.push_back(StrCat(file_, ":", line, ": ", message));
}

void ConfigReader::Mapping(const YamlNode& node, const std::string& path, const std::vector<Field>& fields) {
  if (node.kind == YamlNode::Kind::kNull) return;  // `query:` with nothing beneath it: all defaults
  if (!node.IsMapping()) {
    Error(node.line, StrCat("`", path, "` must hold keys and values"));
    return;
  }
  std::vector<std::string> names;
  for (const Field& field : fields) names.push_back(field.key);
  for (std::size_t i = 0; i < node.members.size(); ++i) {
    const auto& [key, value] = node.members[i];
    const Field* found = nullptr;
    for (const Field& field : fields) {
      if (field.key == key) found = &field;
    }
    if (found != nullptr) {
      found->read(value);
      continue;
    }
    std::string message = StrCat("unknown key `", key, "`", path.empty() ? "" : StrCat(" in `", path, "`"));
    if (const auto nearest = Nearest(key, names)) {
      message += StrCat("; did you mean `", *nearest, "`?");
    } else {
      for (const std::string& name : names) message += (&name == &names.front() ? "; known are " : ", ") + name;
    }
    Error(node.member_lines[i], message);
  }
}

std::optional<std::string> ConfigReader::ReadText(const YamlNode& node, const std::string& key) {
  if (!node.IsScalar()) {
    Error(node.line, StrCat("`", key, "` must be a single value"));
    return std::nullopt;
  }
  std::string out;
  std::string_view rest = node.scalar;
  while (true) {
    const std::size_t begin = rest.find("${");
    if (begin == std::string_view::npos) break;
    const std::size_t end = rest.find('}', begin);
    const std::string_view name = end == std::string_view::npos ? "" : rest.substr(begin + 2, end - begin - 2);
    const Result<std::string> value = Substitute(name);
    if (!value.ok()) {
      Error(node.line, StrCat("`", key, "`: ", value.status().message()));
      return std::nullopt;
    }
    out.append(rest.substr(0, begin)).append(*value);
    rest.remove_prefix(end + 1);
  }
  return out.append(rest);
}

std::optional<std::int64_t> ConfigReader::ReadInteger(const YamlNode& node, const std::string& key, std::int64_t low,
                                                      std::int64_t high) {
  const auto text = ReadText(node, key);
  if (!text) return std::nullopt;
  const auto value = ParseInt(*text);
  if (!value || *value < low || *value > high) {
    const std::string range =
        high == std::numeric_limits<std::int64_t>::max() ? StrCat("at least ", low) : StrCat(low, " to ", high);
    Error(node.line, StrCat("`", key, "` must be a whole number, ", range));
    return std::nullopt;
  }
  return *value;
}

ConfigReader::Field ConfigReader::Text(const std::string& key, std::string* out, bool may_be_empty) {
  return {key, [this, key, out, may_be_empty](const YamlNode& node) {
            const auto text = ReadText(node, key);
            if (text && text->empty() && !may_be_empty) Error(node.line, StrCat("`", key, "` must not be empty"));
            if (text) *out = *text;
          }};
}

ConfigReader::Field ConfigReader::Number(const std::string& key, double* out, double low, double high) {
  return {key, [this, key, out, low, high](const YamlNode& node) {
            const auto text = ReadText(node, key);
            if (!text) return;
            const auto value = ParseDouble(*text);
            if (!value || !(*value >= low && *value <= high)) {
              Error(node.line, StrCat("`", key, "` must be a number, ", low, " to ", high));
              return;
            }
            *out = *value;
          }};
}

ConfigReader::Field ConfigReader::Flag(const std::string& key, bool* out) {
  return Choice(key, {"true", "false"}, [out](std::size_t choice) { *out = choice == 0; });
}

ConfigReader::Field ConfigReader::Choice(const std::string& key, const std::vector<std::string>& choices,
                                         const std::function<void(std::size_t)>& chosen) {
  return {key, [this, key, choices, chosen](const YamlNode& node) {
            const auto text = ReadText(node, key);
            if (!text) return;
            std::string list;
            for (std::size_t i = 0; i < choices.size(); ++i) {
              if (choices[i] == *text) return chosen(i);
              list += StrCat(i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ", choices[i]);
            }
            Error(node.line, StrCat("`", key, "` must be ", list, ", not `", node.scalar, "`"));
          }};
}

}  // namespace freshet
