// YAML: the one place that names yaml-cpp.
//
// Place in the flow: deploy's configuration, the encoder's model.yaml and feature spec. The design put yaml-cpp into
// `deploy` alone; model packages are YAML too, hence the kernel. A parsed file is a plain tree with line numbers, owned
// by its root. Duplicate keys, anchors that recurse and several documents are errors. Thread-compatible.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/core/status.h"

namespace freshet {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMapping };
  Kind kind = Kind::kNull;
  int line = 0;         // 1-based
  std::string scalar;   // as written, without quotes
  bool quoted = false;  // "5" is text, 5 is a number
  struct Member;
  std::vector<YamlNode> items;
  std::vector<Member> members;    // in file order
  std::vector<int> member_lines;  // line of each key

  [[nodiscard]] const YamlNode* Find(std::string_view key) const;
  [[nodiscard]] bool IsMapping() const { return kind == Kind::kMapping; }
  [[nodiscard]] bool IsSequence() const { return kind == Kind::kSequence; }
  [[nodiscard]] bool IsScalar() const { return kind == Kind::kScalar; }
};

struct YamlNode::Member {  // not a std::pair, which must not be of what is incomplete
  std::string first;
  YamlNode second;
};

// `name` is the file's name for messages. Errors: kConfig, "name:line: what".
[[nodiscard]] Result<YamlNode> ParseYaml(const std::string& text, const std::string& name);

// A scalar as YAML text, double-quoted where it has to be.
[[nodiscard]] std::string YamlQuote(std::string_view text);

}  // namespace freshet
