// Where the broker says that partitions end, asked beside the polling thread: what `as_of` rests on.
//
// Place in the flow: private to the consumer. A record that was acknowledged before the asking lies below the end that
// is answered (Kafka protocol, ListOffsets: the last stable offset under read_committed), so a reader that has come
// that far has seen all that was acknowledged by then. Nothing that was delivered proves as much: a broker may be late.
// Ask() and Take() are called by one thread; the blocking request is made by a thread of its own, which starts with the
// first Ask(). The handle outlives this object; destruction waits for a request under way, half a second at most.
#pragma once

#include <librdkafka/rdkafka.h>

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/ingest/event.h"
#include "kafka_readings.h"

namespace freshet::kafka {

class EndsAsker {
 public:
  EndsAsker(rd_kafka_t* rk, const Clock* clock) : rk_(rk), clock_(clock) {}
  ~EndsAsker();

  // Asks where these end. Ignored while a request is under way.
  void Ask(std::vector<TopicPartition> partitions);
  // The answer, once. A partition whose leader did not answer is not in it; where nobody answers there is none.
  [[nodiscard]] std::optional<Ends> Take();

 private:
  void Run();
  [[nodiscard]] Ends Request(const std::vector<TopicPartition>& partitions) const;

  rd_kafka_t* const rk_;
  const Clock* const clock_;
  std::thread thread_;  // the caller's thread only
  std::mutex mu_;
  std::condition_variable asked_;
  // Guarded by mu_:
  std::vector<TopicPartition> partitions_;
  bool busy_ = false;
  bool stop_ = false;
  std::optional<Ends> answer_;
};

}  // namespace freshet::kafka
