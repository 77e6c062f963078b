// deploy/docs/producers.md does what it says: each record there, decoded with the configuration above it.
#include <gtest/gtest.h>

#include <filesystem>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

std::string Describe(const Event& event) {
  if (const auto* item = std::get_if<ItemUpdate>(&event.body)) {
    return (item->deleted ? "delete of item " : "item ") + item->item_id;
  }
  if (const auto* user = std::get_if<UserUpdate>(&event.body)) {
    return (user->forgotten ? "end of user " : "user ") + user->user_id;
  }
  if (const auto* action = std::get_if<Interaction>(&event.body)) {
    return StrCat("interaction of ", action->user_id, " with ", action->item_id, " at ", action->timestamp_ms);
  }
  return "nothing";
}

// What the configured decoder makes of one example line.
std::string Outcome(const Config& config, const JsonValue& example) {
  const std::string topic(JsonText(*JsonFind(example, "topic")));
  const bool items = topic == config.items.name;
  EXPECT_TRUE(items || topic == config.interactions.name) << topic << " is not configured";
  const TopicConfig& configured = items ? config.items : config.interactions;
  const auto decoder =
      MakeDecoder(items ? TopicRole::kItems : TopicRole::kInteractions, configured.format, configured.schema, {});
  EXPECT_OK(decoder);
  if (!decoder.ok()) return decoder.status().ToString();
  RawRecord record;
  record.topic = topic;
  const JsonValue& key = *JsonFind(example, "key");
  if (key.IsString()) record.key = JsonText(key);
  std::string bytes;
  if (const JsonValue* hex = JsonFind(example, "value_hex")) {
    const std::string_view digits = JsonText(*hex);
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
      bytes.push_back(static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16)));
    }
    record.value = bytes;
  } else if (const JsonValue& value = *JsonFind(example, "value"); !value.IsNull()) {
    bytes = value.IsString() ? std::string(JsonText(value)) : ToJson(value);
    record.value = bytes;
  }
  if (const JsonValue* headers = JsonFind(example, "headers")) {
    for (const auto& header : headers->GetObject()) {
      record.headers.emplace_back(JsonText(header.name), JsonText(header.value));
    }
  }
  Event event;
  const Status status = (*decoder)->Decode(record, &event);
  if (!status.ok()) return status.code() == Code::kInvalidArgument ? "poison" : status.ToString();
  return Describe(event);
}

TEST(ProducersDoc, EveryRecordGivesWhatThePageSays) {
  // The page's paths are relative to the repository's root.
  std::filesystem::current_path(test::SourceRoot());
  const auto page = ReadFile(test::SourceRoot() + "/deploy/docs/producers.md", std::size_t{1} << 20);
  ASSERT_OK(page);
  std::string block;
  std::string kind;
  std::optional<Config> config;
  int configs = 0;
  int records = 0;
  for (const std::string& line : Split(*page, '\n')) {
    if (line.rfind("```", 0) != 0) {
      if (kind == "yaml") block += line + "\n";
      if (kind != "json") continue;
      const auto example = ParseJson(line);
      ASSERT_OK(example);
      ASSERT_TRUE(config.has_value()) << "a record without a configuration above it";
      EXPECT_EQ(Outcome(*config, **example), JsonText(*JsonFind(**example, "gives"))) << line;
      ++records;
      continue;
    }
    if (kind == "yaml") {
      auto parsed = ParseConfig(block, "producers.md", {"encoder.kind=passthrough"});
      ASSERT_OK(parsed);
      config = std::move(*parsed);
      ++configs;
    }
    kind = line.substr(3);
    block.clear();
  }
  EXPECT_GE(configs, 7);
  EXPECT_GE(records, 22);
}

}  // namespace
}  // namespace freshet
