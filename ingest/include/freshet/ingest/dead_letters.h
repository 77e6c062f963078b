// Poison leaves the stream with a reason.
//
// Place in the flow: used by ingest (undecodable bytes) and by the encoder (an item the model cannot embed). The record
// is copied (key, value, headers, timestamp) with Kafka Connect's context headers `__connect.errors.*`; Send returns
// only once the dead letters are acknowledged, so that their offsets may then be stored. At least once: the letters of
// one Send may be there once more for each time that the broker took them and its acknowledgement was lost (a
// connection cut at that moment, an answer later than five seconds, a killed process), however long an outage lasts.
// Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/ingest/event.h"
#include "freshet/ingest/kafka.h"
#include "freshet/ingest/record_source.h"

namespace freshet {

struct DeadLetter {
  RawCopy record;
  LogPosition position;
  std::int64_t timestamp_ms = 0;
  std::string stage;   // "VALUE_CONVERTER", "KEY_CONVERTER" or "TRANSFORMATION", as Connect names them
  std::string reason;  // for people; never holds the value
};

class DeadLetterQueue {
 public:
  virtual ~DeadLetterQueue() = default;
  // Errors: kCancelled when stopping; permanent ones when a letter can never be written. Transient faults are retried
  // inside, with bounded backoff, for as long as it takes: a dead letter is never dropped.
  virtual Status Send(std::vector<DeadLetter> letters) = 0;
};

struct DeadLetterOptions {
  std::string topic;  // errors.deadletterqueue.topic.name; empty: letters are only counted and logged
  std::string connector_name = "freshet";
  bool context_headers = true;  // errors.deadletterqueue.context.headers.enable
  bool tolerate = true;  // errors.tolerance: all; false (none): the first letter stops the stream, kFailedPrecondition
};

// The producer for a dead-letter queue, and for nothing else: a record that the broker does not take expires in it
// before the queue's attempt gives up, so that the next attempt adds to nothing that still waits. Errors: see
// OpenKafkaProducer().
[[nodiscard]] Result<std::unique_ptr<KafkaProducer>> OpenDeadLetterProducer(const KafkaOptions& options);

// `sink` outlives the queue. `stopping` turns endless retries into kCancelled.
[[nodiscard]] std::unique_ptr<DeadLetterQueue> MakeDeadLetterQueue(const DeadLetterOptions& options, RecordSink* sink,
                                                                   Metrics* metrics, const std::atomic<bool>* stopping);

}  // namespace freshet
