// Records that come many at a time are decoded together, by several threads: nobody may see the difference.
#include <algorithm>
#include <random>
#include <set>

#include "decode_pool.h"
#include "stage_fixture.h"

namespace freshet {
namespace {

TEST(DecodePoolTest, EachIndexIsDoneOnceWhateverTheThreads) {
  for (const std::size_t threads : {1U, 2U, 5U}) {
    DecodePool pool(threads);
    for (std::size_t count = 0; count < 200; ++count) {
      std::vector<std::atomic<int>> done(count);
      pool.Run(count, [&](std::size_t i) { ++done[i]; });
      EXPECT_TRUE(std::all_of(done.begin(), done.end(), [](const auto& times) { return times == 1; }))
          << threads << " threads, " << count;
    }
  }
}

// A helper that is at its slice when the caller is done with all others: the round is not over before.
TEST(DecodePoolTest, WaitsForWhoHasTakenASlice) {
  DecodePool pool(2);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> helped{false};
  std::atomic<int> done{0};
  pool.Run(128, [&](std::size_t) {
    if (std::this_thread::get_id() == caller) {
      // Until the helper has come there is no end.
      EXPECT_TRUE(WaitFor([&] { return helped.load(); }));
    }
    helped = helped || std::this_thread::get_id() != caller;
    ++done;
  });
  EXPECT_EQ(done, 128);
}

class IngestChunkTest : public IngestStageTest {
 protected:
  // All of it is there before the stage begins, so that it comes in whole chunks.
  void FeedItems(std::int64_t count, const std::set<std::int64_t>& poison = {}) {
    for (std::int64_t i = 0; i < count; ++i) {
      source_.Item(i, poison.contains(i) ? "no JSON" : R"({"category": "c)" + std::to_string(i) + R"("})");
    }
  }
  // Every event up to offset `last`, checked for order, and for being whole.
  std::vector<Event> Events(std::int64_t last) {
    std::vector<Event> events;
    std::int64_t next = 0;
    while (next <= last) {
      std::optional<EventBatch> batch = NextBatch();
      if (!batch) break;
      EXPECT_LE(batch->events.size(), options_.max_batch_records);
      std::size_t bytes = 0;
      for (Event& event : batch->events) {
        EXPECT_EQ(event.position.offset, next++);
        bytes += event.raw.key.value_or("").size() + event.raw.value.value_or("").size();
        EXPECT_EQ(event.raw.key, "i" + std::to_string(event.position.offset)) << "the arena's, not the source's";
        events.push_back(event);
      }
      EXPECT_EQ(batch->bytes, bytes);
      EXPECT_EQ(batch->progress.at(0).next_offset, next);
    }
    return events;
  }
};

TEST_F(IngestChunkTest, OrderAndPoisonAreAsIfOneThreadReadOneRecordAfterTheOther) {
  const std::uint64_t seed = test::TestSeed();
  std::mt19937_64 random(seed);
  std::set<std::int64_t> poison;
  while (poison.size() < 30) poison.insert(static_cast<std::int64_t>(random() % 3'000));
  options_ = {
      .max_batch_records = 256, .max_batch_bytes = 1 << 20, .linger_ms = 5, .heartbeat_ms = 100, .decode_threads = 4};
  FeedItems(3'000, poison);
  Start();
  const std::vector<Event> events = Events(2'999);
  ASSERT_EQ(events.size(), 3'000U) << "seed " << seed;
  for (const Event& event : events) {
    const bool bad = poison.contains(event.position.offset);
    ASSERT_EQ(std::holds_alternative<Skipped>(event.body), bad) << event.position.offset << ", seed " << seed;
    if (bad) continue;
    const FeatureValue* category = FindFeature(std::get<ItemUpdate>(event.body).features, "category");
    ASSERT_NE(category, nullptr);
    EXPECT_EQ(std::get<std::string>(*category), "c" + std::to_string(event.position.offset));
  }
  const std::vector<DeadLetter> letters = letters_.taken();
  ASSERT_EQ(letters.size(), poison.size());
  auto expected = poison.begin();
  for (const DeadLetter& letter : letters) EXPECT_EQ(letter.position.offset, *expected++);
}

TEST_F(IngestChunkTest, ABatchThatIsFullByItsBytesEndsAChunk) {
  options_ = {
      .max_batch_records = 256, .max_batch_bytes = 500, .linger_ms = 5, .heartbeat_ms = 100, .decode_threads = 2};
  FeedItems(300);
  Start();
  EXPECT_EQ(Events(299).size(), 300U);
}

// Away for the records of some offsets, each for its first tries.
class AwayAtDecoder final : public EventDecoder {
 public:
  explicit AwayAtDecoder(std::map<std::int64_t, int> away) : away_(std::move(away)) {}
  Status Decode(const RawRecord& record, Event* event) const override {
    const std::lock_guard lock(mu_);
    if (const auto away = away_.find(record.offset); away != away_.end() && away->second > 0) {
      --away->second;
      event->key_is_poison = true;  // what a failed try leaves behind is not the record's
      return Unavailable("the registry is away");
    }
    if (event->key_is_poison) return Internal("left over from the try before");
    event->body = ItemUpdate{std::string(*record.key), false, {}, {}, {}};
    return Status::Ok();
  }

 private:
  mutable std::mutex mu_;
  mutable std::map<std::int64_t, int> away_;
};

TEST_F(IngestChunkTest, ARegistryThatGoesAwayInTheMiddleOfAChunkCostsNeitherOrderNorRecords) {
  options_ = {
      .max_batch_records = 256, .max_batch_bytes = 1 << 20, .linger_ms = 5, .heartbeat_ms = 100, .decode_threads = 3};
  FeedItems(400);
  IngestStage::Decoders decoders;
  // The first of a chunk, one in its middle, its neighbour, the last of a chunk, and the last of all.
  decoders["items"] = std::make_unique<AwayAtDecoder>(
      std::map<std::int64_t, int>{{0, 2}, {50, 1}, {51, 2}, {127, 1}, {128, 1}, {399, 3}});
  Start(std::move(decoders));
  EXPECT_EQ(Events(399).size(), 400U);
  EXPECT_TRUE(letters_.taken().empty());
  stage_->Stop();
  EXPECT_OK(stage_->status());
}

// It may take its timeout to say that it is away; a chunk of such records would take minutes, and nobody would poll.
TEST_F(IngestChunkTest, ARegistryThatIsAwayIsAskedForOneRecordOfAChunkByEachThread) {
  options_ = {
      .max_batch_records = 256, .max_batch_bytes = 1 << 20, .linger_ms = 5, .heartbeat_ms = 100, .decode_threads = 2};
  FeedItems(120);
  constexpr int kMany = 1'000'000;
  std::atomic<int> away{kMany};
  IngestStage::Decoders decoders;
  decoders["items"] = std::make_unique<AwayDecoder>(&away);
  Counter& retries = metrics_.GetCounter(
      "freshet_ingest_retries_total", "Attempts to decode a record that failed because the schema registry was away");
  Start(std::move(decoders));
  ASSERT_TRUE(WaitFor([&] { return retries.Value() >= 2; }));
  const int asked = kMany - away.load();  // before the retries are: one more may come in between
  EXPECT_LE(asked, static_cast<int>(retries.Value()) + 2);
  away = 0;
  EXPECT_EQ(Events(119).size(), 120U);
  EXPECT_TRUE(letters_.taken().empty());
}

TEST_F(IngestChunkTest, StoppingDropsTheRestOfAChunkWhoseDecoderIsAway) {
  options_ = {.max_batch_records = 256,
              .max_batch_bytes = 1 << 20,
              .linger_ms = 60'000,
              .heartbeat_ms = 100,
              .decode_threads = 2};
  FeedItems(100);
  FakeSource::Fed caught_up;
  caught_up.kind = PollResult::Kind::kCaughtUp;
  source_.Feed(caught_up);
  IngestStage::Decoders decoders;
  decoders["items"] = std::make_unique<AwayAtDecoder>(std::map<std::int64_t, int>{{60, 1'000'000}});
  Start(std::move(decoders));
  const auto before = NextBatch();
  ASSERT_TRUE(before.has_value());
  EXPECT_EQ(before->events.size(), 60U);
  EXPECT_EQ(before->as_of_ms, 0) << "more was polled than is in it";
  EXPECT_EQ(before->progress.at(0).next_offset, 60);
  stage_->Stop();
  EXPECT_OK(stage_->status());
  while (const auto late = out_.PopFor(milliseconds(0))) {
    EXPECT_TRUE(late->events.empty());
    EXPECT_TRUE(late->marks.empty()) << "the records before it were not applied";
    EXPECT_EQ(late->as_of_ms, 0) << "nor is that claimed";
  }
}

}  // namespace
}  // namespace freshet
