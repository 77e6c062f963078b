#include "freshet/core/yaml.h"

#include <gtest/gtest.h>

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(YamlTest, KeepsOrderLinesAndQuotes) {
  const auto root = ParseYaml("b: 1\na:\n  - x\n  - \"5\"\nn:\n", "f.yaml");
  ASSERT_OK(root);
  ASSERT_TRUE(root->IsMapping());
  ASSERT_EQ(root->members.size(), 3u);
  EXPECT_EQ(root->members[0].first, "b");
  EXPECT_EQ(root->member_lines, (std::vector<int>{1, 2, 5}));
  EXPECT_FALSE(root->Find("b")->quoted);
  const YamlNode* a = root->Find("a");
  ASSERT_NE(a, nullptr);
  ASSERT_TRUE(a->IsSequence());
  ASSERT_EQ(a->items.size(), 2u);
  EXPECT_EQ(a->items[0].line, 3);
  EXPECT_EQ(a->items[1].scalar, "5");
  EXPECT_TRUE(a->items[1].quoted);
  EXPECT_EQ(root->Find("n")->kind, YamlNode::Kind::kNull);
  EXPECT_EQ(root->Find("missing"), nullptr);
}

TEST(YamlTest, MistakesNameFileAndLine) {
  const std::pair<const char*, const char*> cases[] = {{"a: 1\nb: 2\na: 3\n", "f.yaml:3: "},
                                                       {"a:\n  b: 1\n  b: 2\n", "f.yaml:3: "},
                                                       {"a: [1\n", "f.yaml:"},
                                                       {"a: 1\n---\nb: 2\n", "f.yaml: "},
                                                       {"? [x]\n: 1\n", "f.yaml:1: "}};
  for (const auto& [text, where] : cases) {
    const auto root = ParseYaml(text, "f.yaml");
    ASSERT_FALSE(root.ok()) << text;
    EXPECT_EQ(root.status().code(), Code::kConfig);
    EXPECT_EQ(root.status().message().rfind(where, 0), 0u) << root.status().message();
  }
}

TEST(YamlTest, DuplicateKeysAreNamed) {
  const auto root = ParseYaml("topic: 1\ntopic: 2\n", "f.yaml");
  ASSERT_FALSE(root.ok());
  EXPECT_NE(root.status().message().find("`topic`"), std::string::npos);
}

TEST(YamlTest, AnEmptyFileIsNull) {
  const auto root = ParseYaml("# nothing\n", "f.yaml");
  ASSERT_OK(root);
  EXPECT_EQ(root->kind, YamlNode::Kind::kNull);
}

TEST(YamlTest, NestingIsBounded) {
  EXPECT_FALSE(ParseYaml(std::string(100, '[') + std::string(100, ']'), "f.yaml").ok());
  EXPECT_FALSE(ParseYaml("a: &a [*a]\n", "f.yaml").ok()) << "an anchor that contains itself";
}

TEST(YamlTest, QuotedTextComesBack) {
  const std::string text = "a: \"b\"\\ \n#c";
  const auto root = ParseYaml("k: " + YamlQuote(text), "f.yaml");
  ASSERT_OK(root);
  EXPECT_EQ(root->Find("k")->scalar, text);
}

TEST(Yaml, AliasesOfAliasesAreBounded) {
  // "Billion laughs": 10^9 values in ten lines.
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string below = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) text += (j == 0 ? "" : ", ") + below;
    text += "]\n";
  }
  EXPECT_EQ(ParseYaml(text, "laughs.yaml").status().code(), Code::kConfig);
}

}  // namespace
}  // namespace freshet
