#include "freshet/ingest/event_file.h"

#include <gtest/gtest.h>

#include "freshet/core/file.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(EventFileTest, ALineBecomesWhatAProducerWouldSend) {
  const std::string line = R"({"item_id": "x", "category": "c", "timestamp": 12})";
  const auto item = ParseEventLine(TopicRole::kItems, line);
  ASSERT_OK(item);
  EXPECT_EQ(item->key, "x");
  EXPECT_TRUE(item->has_value);
  EXPECT_EQ(item->value, line);
  EXPECT_EQ(item->timestamp_ms, 12);
  const auto deleted = ParseEventLine(TopicRole::kItems, R"({"item_id": "x", "deleted": true})");
  ASSERT_OK(deleted);
  EXPECT_FALSE(deleted->has_value);
  EXPECT_EQ(deleted->timestamp_ms, 0);
  const auto action = ParseEventLine(TopicRole::kInteractions, R"({"user_id": "u", "item_id": "x"})");
  ASSERT_OK(action);
  EXPECT_EQ(action->key, "u");
}

TEST(EventFileTest, GuessesTheRole) {
  EXPECT_EQ(*GuessRole(R"({"item_id": "x", "user_id": "u"})"), TopicRole::kInteractions);
  EXPECT_EQ(*GuessRole(R"({"item_id": "x"})"), TopicRole::kItems);
  EXPECT_EQ(*GuessRole(R"({"user_id": "u"})"), TopicRole::kUsers);
  EXPECT_EQ(GuessRole("{}").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(GuessRole("[1]").status().code(), Code::kInvalidArgument);
}

TEST(EventFileTest, BrokenLinesAreInputErrors) {
  for (const char* line : {"", "x", "{}", R"({"item_id": true})", R"({"item_id": ""})",
                           R"({"item_id": "a", "deleted": 1})", R"({"item_id": "a", "timestamp": "x"})"}) {
    EXPECT_EQ(ParseEventLine(TopicRole::kItems, line).status().code(), Code::kInvalidArgument) << line;
  }
}

TEST(EventFileTest, DecodesEachLineAndNamesTheLineOfAnError) {
  const test::TempDir dir;
  const std::string path = dir / "items.jsonl";
  ASSERT_OK(WriteFileAtomically(path,
                                "{\"item_id\":\"a\",\"category\":\"c\",\"timestamp\":7}\n\n"
                                "{\"item_id\":\"b\",\"deleted\":true}\n{\"item_id\":\"c\",\"tags\":3}\n"));
  std::vector<Event> events;
  const Status status = ForEachEvent(path, TopicRole::kItems, {}, [&](Event&& event, double fraction) {
    EXPECT_GE(fraction, 0);
    EXPECT_LE(fraction, 1);
    events.push_back(std::move(event));
    return Status::Ok();
  });
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("items.jsonl:4: "), std::string::npos) << status.message();
  EXPECT_TRUE(status.message().ends_with(": correct the line, or leave it out")) << status.message();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(std::get<ItemUpdate>(events[0].body).item_id, "a");
  EXPECT_EQ(events[0].record_timestamp_ms, 7);
  EXPECT_TRUE(std::get<ItemUpdate>(events[1].body).deleted);
}

TEST(EventFileTest, StopsWhereTheHandlerStops) {
  const test::TempDir dir;
  const std::string path = dir / "users.jsonl";
  ASSERT_OK(WriteFileAtomically(path, "{\"user_id\":\"a\"}\n{\"user_id\":\"b\"}\n"));
  int seen = 0;
  const Status status = ForEachEvent(path, TopicRole::kUsers, {}, [&](Event&&, double) {
    ++seen;
    return Cancelled("enough");
  });
  EXPECT_EQ(status.code(), Code::kCancelled);
  EXPECT_EQ(seen, 1);
}

}  // namespace
}  // namespace freshet
