// Outbox -> changelog topics.
//
// Place in the flow: beside the Applier, on a thread of its own. Reads the outbox in sequence order, makes it durable,
// sends (at least once, acknowledged by all in-sync replicas), trims. Between records, every progress_interval_ms, it
// puts a progress record into every partition of both topics, so that a follower can say how fresh it is. While the
// broker is away it retries with bounded backoff and the outbox grows in the store, where outbox_max_bytes turns into
// backpressure on the Applier. While the store cannot be written, what it holds is sent once if it can be synced, and
// trimmed when the Applier has opened it again. Errors: what is permanent ends it, see status(); nothing is lost, the
// outbox keeps it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/ingest/record_source.h"
#include "freshet/store/replica.h"
#include "freshet/store/store.h"

namespace freshet {

struct PublisherOptions {
  std::string vectors_topic = "vectors";
  std::string user_events_topic = "user-events";
  int progress_interval_ms = 250;
  int idle_wait_ms = 20;  // between looks at the outbox when nobody calls Wake()
  std::size_t max_batch_records = 512;
  std::size_t max_batch_bytes = std::size_t{2} << 20;
  int send_timeout_ms = 10'000;
  Status Validate() const;
};

class Publisher {
 public:
  // All outlive the publisher. `replica` tells as_of for progress records.
  Publisher(const PublisherOptions& options, Store* store, const Replica* replica, RecordSink* sink, const Clock* clock,
            Metrics* metrics);
  ~Publisher();

  void Start();
  void Wake();  // the outbox has something; any thread
  // Publishes what is in the outbox, for at most drain_ms, then stops; what is left stays in the store for the next
  // start.
  void Stop(int drain_ms);
  [[nodiscard]] Status status() const;
  [[nodiscard]] bool drained() const { return drained_.load(); }

 private:
  void Run();
  Result<bool> PublishSome();
  Status SendAll(const std::vector<OutboxEntry>& entries);
  Status PublishProgress();
  [[nodiscard]] bool MayPass(const Status& status);

  const PublisherOptions options_;
  Store* const store_;
  const Replica* const replica_;
  RecordSink* const sink_;
  const Clock* const clock_;
  Counter& published_;
  Counter& retries_;

  std::atomic<bool> drained_{false};
  // Its own thread only:
  std::uint64_t published_sequence_ = 0;  // acknowledged
  std::uint64_t trimmed_sequence_ = 0;    // out of the outbox as well
  int io_errors_ = 0;                     // in a row, from a store that is open
  std::thread thread_;
  mutable std::mutex mu_;
  std::condition_variable wake_;
  // Guarded by mu_:
  bool woken_ = false;
  bool stopping_ = false;
  std::int64_t stop_deadline_us_ = 0;
  Status status_;
};

}  // namespace freshet
