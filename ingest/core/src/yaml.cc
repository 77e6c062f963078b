#include "freshet/core/yaml.h"

#include <yaml-cpp/yaml.h>

#include <set>

#include "freshet/core/json.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr int kMaxDepth = 32;         // also ends anchors that contain themselves
constexpr int kMaxNodes = 2'000'000;  // aliases of aliases multiply; a vocabulary in a model package is long

// `nodes` counts down over the whole file.
Status Convert(const YAML::Node& in, const std::string& name, int depth, int* nodes, YamlNode* out) {
  out->line = in.Mark().line + 1;
  if (--*nodes < 0) return ConfigError(StrCat(name, ":", out->line, ": more than ", kMaxNodes, " values"));
  if (depth > kMaxDepth) return ConfigError(StrCat(name, ":", out->line, ": nested deeper than ", kMaxDepth));
  switch (in.Type()) {
    case YAML::NodeType::Undefined:
    case YAML::NodeType::Null:
      out->kind = YamlNode::Kind::kNull;
      break;
    case YAML::NodeType::Scalar:
      out->kind = YamlNode::Kind::kScalar;
      out->scalar = in.Scalar();
      out->quoted = in.Tag() == "!";
      break;
    case YAML::NodeType::Sequence:
      out->kind = YamlNode::Kind::kSequence;
      for (const auto& element : in) FRESHET_TRY(Convert(element, name, depth + 1, nodes, &out->items.emplace_back()));
      break;
    case YAML::NodeType::Map: {
      out->kind = YamlNode::Kind::kMapping;
      std::set<std::string> seen;
      for (const auto& member : in) {
        const int line = member.first.Mark().line + 1;
        if (!member.first.IsScalar()) return ConfigError(StrCat(name, ":", line, ": keys must be plain text"));
        const std::string key = member.first.Scalar();
        if (!seen.insert(key).second) return ConfigError(StrCat(name, ":", line, ": duplicate key `", key, "`"));
        out->members.push_back({key, YamlNode{}});
        out->member_lines.push_back(line);
        FRESHET_TRY(Convert(member.second, name, depth + 1, nodes, &out->members.back().second));
      }
      break;
    }
  }
  return Status::Ok();
}

}  // namespace

const YamlNode* YamlNode::Find(std::string_view key) const {
  for (const auto& [name, node] : members) {
    if (name == key) return &node;
  }
  return nullptr;
}

Result<YamlNode> ParseYaml(const std::string& text, const std::string& name) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1) return ConfigError(StrCat(name, ": holds several YAML documents, one is wanted"));
    YamlNode root;
    int nodes = kMaxNodes;
    if (!documents.empty()) FRESHET_TRY(Convert(documents.front(), name, 0, &nodes, &root));
    return root;
  } catch (const YAML::Exception& e) {
    return ConfigError(StrCat(name, ":", e.mark.line + 1, ": ", e.msg));
  } catch (const std::exception& e) {
    return ConfigError(StrCat(name, ": ", e.what()));
  }
}

std::string YamlQuote(std::string_view text) {
  // A JSON string is a YAML double-quoted scalar (YAML 1.2 is a superset of JSON).
  return JsonQuote(text);
}

}  // namespace freshet
