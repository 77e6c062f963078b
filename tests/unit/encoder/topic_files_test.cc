#include "freshet/encoder/topic_files.h"

#include <deque>

#include "freshet/core/file.h"
#include "freshet/ingest/event_file.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

struct Sent {
  std::string topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::string key;
  std::string value;
};

// A log that ends: then it is idle, and says where it stands.
class FakeLog final : public RecordSource {
 public:
  Result<PollResult> Poll(std::chrono::milliseconds) override {
    PollResult result;
    if (left.empty() && endless.empty()) return result;
    if (left.empty()) {
      if (++polls_ > 1'000'000) return Internal("nobody stops reading");
      ++endless.front().offset;
      now_ = endless.front();
    } else {
      now_ = std::move(left.front());
      left.pop_front();
    }
    result.kind = PollResult::Kind::kRecord;
    result.record.topic = now_.topic;
    result.record.partition = now_.partition;
    result.record.offset = now_.offset;
    result.record.timestamp_ms = 1000 + now_.offset;
    result.record.key = now_.key;
    if (!now_.value.empty()) result.record.value = now_.value;
    return result;
  }
  std::vector<PartitionProgress> Positions() const override { return left.empty() ? at_end : decltype(at_end){}; }
  std::int64_t AsOfMs() const override { return 0; }
  std::int64_t LagRecords() const override { return 0; }
  void ReportStored(const std::vector<PartitionProgress>&) override {}

  std::deque<Sent> left;
  std::vector<Sent> endless;  // its one record comes again and again then, at the next offset
  std::vector<PartitionProgress> at_end;

 private:
  int polls_ = 0;
  Sent now_;
};

class TopicFilesTest : public ::testing::Test {
 protected:
  TopicFilesTest() {
    for (const TopicRole role : {TopicRole::kItems, TopicRole::kInteractions, TopicRole::kUsers}) {
      auto decoder = MakeJsonDecoder(role, DefaultSchema(role), DecodeLimits{});
      EXPECT_OK(decoder);
      decoders_.push_back(std::move(*decoder));
      const char* names[] = {"goods", "clicks", "people"};
      options_.topics[names[static_cast<int>(role)]] = {role, decoders_.back().get()};
    }
    options_.directory = dir_ / "events";
    options_.patience_seconds = 0;
    log_.left = {
        {"goods", 0, 0, "a",
         R"({"category": "cups", "tags": ["red"], "features": {"price": 2.5, "title": "A \"cup\""}})"},
        {"goods", 0, 1, "b", R"({"features": {"price": 1}})"},
        {"clicks", 1, 5, "u1", R"({"user_id": "u1", "item_id": "a", "event": "buy", "value": 2, "timestamp": 77})"},
        {"goods", 0, 2, "c", "{broken"},
        {"people", 0, 0, "u1", R"({"features": {"age": 30}})"},
        {"goods", 0, 3, "b", ""},
        {"goods", 0, 4, "late", R"({"features": {"price": 9}})"}};
    options_.until = {{{"goods", 0}, 4}, {{"clicks", 1}, 6}, {{"people", 0}, 1}};
  }

  std::vector<Event> EventsOf(const std::string& file, TopicRole role) {
    std::vector<Event> events;
    EXPECT_OK(ForEachEvent(file, role, DecodeLimits{}, [&](Event&& event, double) {
      events.push_back(std::move(event));
      return Status::Ok();
    }));
    return events;
  }

  const test::TempDir dir_;
  std::vector<std::unique_ptr<EventDecoder>> decoders_;
  TopicFilesOptions options_;
  FakeLog log_;
};

// What training reads from the files is what the stream's decoders said.
TEST_F(TopicFilesTest, KeepsEventsUpToTheirOffsets) {
  const Result<TopicFiles> files = WriteTopicFiles(&log_, options_, nullptr);
  ASSERT_OK(files);
  EXPECT_EQ(files->records, 6);
  EXPECT_EQ(files->poison, 1);
  const std::vector<Event> items = EventsOf(files->items_file, TopicRole::kItems);
  ASSERT_EQ(items.size(), 3U) << "the broken one and what lies behind the offset are not in it";
  const auto& cup = std::get<ItemUpdate>(items[0].body);
  EXPECT_EQ(cup.item_id, "a");
  EXPECT_EQ(std::get<std::string>(*FindFeature(cup.features, "category")), "cups");
  EXPECT_EQ(std::get<std::string>(*FindFeature(cup.features, "title")), "A \"cup\"");
  EXPECT_EQ(std::get<double>(*FindFeature(cup.features, "price")), 2.5);
  EXPECT_EQ(std::get<std::vector<std::string>>(*FindFeature(cup.features, "tags")), std::vector<std::string>{"red"});
  EXPECT_EQ(items[1].record_timestamp_ms, 1001);
  EXPECT_TRUE(std::get<ItemUpdate>(items[2].body).deleted);
  const std::vector<Event> clicks = EventsOf(files->interactions_file, TopicRole::kInteractions);
  ASSERT_EQ(clicks.size(), 1U);
  const auto& click = std::get<Interaction>(clicks[0].body);
  EXPECT_EQ(click.event, "buy");
  EXPECT_EQ(click.value, 2);
  EXPECT_EQ(click.timestamp_ms, 77);
  const std::vector<Event> people = EventsOf(files->users_file, TopicRole::kUsers);
  ASSERT_EQ(people.size(), 1U);
  EXPECT_EQ(std::get<double>(*FindFeature(std::get<UserUpdate>(people[0].body).features, "age")), 30);

  const Result<TopicFiles> found = FindTopicFiles(options_.directory);
  ASSERT_OK(found);
  EXPECT_EQ(found->items_file, files->items_file);
  EXPECT_EQ(found->records, 6);
}

// As the engine keeps it: what is said to be of the future is of when it was written.
TEST_F(TopicFilesTest, AnInteractionIsOfTheTimeThatTheEngineTakes) {
  log_.left = {{"clicks", 1, 5, "u1", R"({"user_id": "u1", "item_id": "a", "timestamp": 8000000000000})"},
               {"clicks", 1, 6, "u1", R"({"user_id": "u1", "item_id": "a", "timestamp": 500})"}};
  options_.until = {{{"clicks", 1}, 7}};
  const Result<TopicFiles> files = WriteTopicFiles(&log_, options_, nullptr);
  ASSERT_OK(files);
  const std::vector<Event> clicks = EventsOf(files->interactions_file, TopicRole::kInteractions);
  ASSERT_EQ(clicks.size(), 2U);
  EXPECT_EQ(std::get<Interaction>(clicks[0].body).timestamp_ms, 1005);
  EXPECT_EQ(std::get<Interaction>(clicks[1].body).timestamp_ms, 500);
}

// The end of a partition may hold nothing to read: then its position says that it was reached.
TEST_F(TopicFilesTest, EndsWhereTheLogHasGaps) {
  options_.until[{"clicks", 1}] = 8;
  log_.at_end.resize(1);
  log_.at_end[0].partition = {"clicks", 1};
  log_.at_end[0].next_offset = 8;
  EXPECT_OK(WriteTopicFiles(&log_, options_, nullptr));
}

// A partition that stands still is told of, however much comes of one that is read already.
TEST_F(TopicFilesTest, IsNotKeptWaitingByWhatComesBehindTheEnd) {
  options_.until[{"clicks", 1}] = 8;
  log_.endless = {{"goods", 0, 4, "z", R"({"features": {"price": 9}})"}};
  const Status status = WriteTopicFiles(&log_, options_, nullptr).status();
  EXPECT_EQ(status.code(), Code::kUnavailable) << status.ToString();
  EXPECT_NE(status.message().find("clicks: partition 1"), std::string::npos) << status.message();
  // Its position says that it has come to its end; nobody is idle for that to be seen.
  log_.left = {{"goods", 0, 3, "b", R"({"features": {"price": 1}})"},
               {"people", 0, 0, "u1", R"({"features": {"age": 30}})"}};
  log_.at_end.resize(1);
  log_.at_end[0].partition = {"clicks", 1};
  log_.at_end[0].next_offset = 8;
  EXPECT_OK(WriteTopicFiles(&log_, options_, nullptr));
}

// Within it they would be replaced with the package.
TEST_F(TopicFilesTest, LieBesideThePackage) {
  for (const char* out : {"x/model", "x/model/", "x/./model//"}) EXPECT_EQ(TopicFilesDirectory(out), "x/model.events");
}

TEST_F(TopicFilesTest, LeavesNothingThatLooksComplete) {
  ASSERT_OK(WriteTopicFiles(&log_, options_, nullptr));
  ASSERT_OK(FindTopicFiles(options_.directory));
  EXPECT_EQ(WriteTopicFiles(&log_, options_, nullptr).status().code(), Code::kUnavailable) << "nothing comes any more";
  EXPECT_EQ(FindTopicFiles(options_.directory).status().code(), Code::kNotFound);
  options_.patience_seconds = 60;
  EXPECT_EQ(WriteTopicFiles(&log_, options_, [](double) { return false; }).status().code(), Code::kCancelled);
  options_.topics.erase("clicks");
  EXPECT_EQ(WriteTopicFiles(&log_, options_, nullptr).status().code(), Code::kInvalidArgument);
  ASSERT_OK(WriteFileAtomically(options_.directory + "/offsets.json", "{}"));
  EXPECT_EQ(FindTopicFiles(options_.directory).status().code(), Code::kCorruption);
}

}  // namespace
}  // namespace freshet
