// Events, batches and dead letters for tests of the encode stage.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/encoder/encode_stage.h"

namespace freshet::test {

class FakeDeadLetters final : public DeadLetterQueue {
 public:
  Status Send(std::vector<DeadLetter> letters) override {
    FRESHET_TRY(answer);
    for (DeadLetter& letter : letters) sent.push_back(std::move(letter));
    return Status::Ok();
  }
  Status answer;
  std::vector<DeadLetter> sent;
};

// What `raw` views lives as long as the tests.
inline std::string_view Lasting(const std::string& text) {
  static std::set<std::string> texts;
  return *texts.insert(text).first;
}

inline Event At(std::int32_t partition, std::int64_t offset, const std::string& topic = "items") {
  Event event;
  event.position = {partition, offset};
  event.record_timestamp_ms = 1000 + offset;
  event.raw.topic = Lasting(topic);
  return event;
}

inline Event Item(const std::string& id, double x, std::int64_t offset, std::int32_t partition = 0) {
  Event event = At(partition, offset);
  ItemUpdate item;
  item.item_id = id;
  item.features = {{"x", x}};
  event.body = std::move(item);
  event.raw.key = Lasting(id);
  return event;
}

inline Event Deleted(const std::string& id, std::int64_t offset) {
  Event event = At(0, offset);
  ItemUpdate item;
  item.item_id = id;
  item.deleted = true;
  event.body = std::move(item);
  return event;
}

// One that has come from its events' partitions.
inline EventBatch Batch(std::vector<Event> events) {
  EventBatch batch;
  for (Event& event : events) {
    const TopicPartition partition{std::string(event.raw.topic), event.position.partition};
    auto found = std::find_if(batch.progress.begin(), batch.progress.end(),
                              [&](const PartitionProgress& p) { return p.partition == partition; });
    if (found == batch.progress.end()) found = batch.progress.insert(found, {partition, 0, 0, 0, 0, 0});
    found->next_offset = event.position.offset + 1;
    event.progress_index = static_cast<std::size_t>(found - batch.progress.begin());
  }
  batch.events = std::move(events);
  batch.as_of_ms = 77;
  batch.bytes = 123;
  return batch;
}

}  // namespace freshet::test
