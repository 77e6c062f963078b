// A follower's first stage: changelog records -> batches that are already encoded.
//
// Place in the flow: RecordSource over `vectors` and `user-events` -> decode -> BoundedQueue<EncodedBatch> -> Applier.
// A follower encodes nothing. At a record of another embedding space than `space_id` the stage hands on what came
// before it and stops with kFailedPrecondition, so that towers and items are never mixed: the engine has changed its
// model (other_space()). Where such a record is of an older store than `epoch`, it is left from the model before, and
// is skipped: the engine of that epoch says all that still holds. A record of a newer format stops the stage too. A
// record that does not decode is counted, logged and skipped (the producer is our own engine: the metric should stay
// 0). One thread between Start() and Stop().
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/queue.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/ingest/record_source.h"

namespace freshet {

struct FollowOptions {
  std::string vectors_topic = "vectors";
  std::string user_events_topic = "user-events";
  std::string space_id;
  std::uint64_t epoch = 0;  // of the newest store that is known to speak of that space; 0: none is
  int dim = 0;
  std::size_t max_batch_records = 512;
  std::size_t max_batch_bytes = std::size_t{4} << 20;
  int linger_ms = 5;
  int heartbeat_ms = 200;
};

class FollowStage {
 public:
  FollowStage(const FollowOptions& options, RecordSource* source, BoundedQueue<EncodedBatch>* out, const Clock* clock,
              Metrics* metrics);
  ~FollowStage();
  void Start();
  void Stop();
  [[nodiscard]] Status status() const;
  // The space that the log went on in: where it stopped for that.
  [[nodiscard]] std::optional<std::string> other_space() const;
  // It stopped because the log cannot be read on from where it was: only another state can follow it.
  [[nodiscard]] bool lost_log() const { return lost_log_; }

 private:
  struct State;
  void Run();
  Status RunUntilStopped();
  Status Add(const RawRecord& record, State* state);
  Status Emit(State* state);

  const FollowOptions options_;
  RecordSource* const source_;
  BoundedQueue<EncodedBatch>* const out_;
  const Clock* const clock_;
  Counter& records_;
  Counter& undecodable_;
  Counter& other_space_records_;
  Gauge& lag_records_;

  std::atomic<bool> stop_{false};
  std::atomic<bool> lost_log_{false};
  std::thread thread_;
  mutable std::mutex mu_;
  // Guarded by mu_:
  Status status_;
  std::optional<std::string> other_space_;
};

}  // namespace freshet
