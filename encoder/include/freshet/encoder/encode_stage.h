// The second stage: micro-batches of events -> vectors.
//
// Place in the flow: BoundedQueue<EventBatch> -> last write per item -> ItemEncoder, one model call per batch ->
// BoundedQueue<EncodedBatch>. Runs on one thread. An item that the model cannot embed is found by bisection and becomes
// a dead letter; the rest passes; its offset is still covered by the batch. Drains its input when that is closed, then
// closes its output. Errors: permanent ones end the stage and close both queues.
#pragma once

#include <mutex>
#include <thread>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/queue.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/encoder/encoder.h"
#include "freshet/ingest/dead_letters.h"

namespace freshet {

class EncodeStage {
 public:
  EncodeStage(ItemEncoder* encoder, DeadLetterQueue* dead_letters, BoundedQueue<EventBatch>* in,
              BoundedQueue<EncodedBatch>* out, const Clock* clock, Metrics* metrics);
  ~EncodeStage();

  void Start();
  void Join();  // REQUIRES: the input queue is, or will be, closed
  [[nodiscard]] Status status() const;

 private:
  void Run();
  Result<EncodedBatch> Encode(EventBatch batch);
  Status EncodeRange(std::vector<Event*>* items, std::size_t begin, std::size_t end, std::vector<float>* vectors,
                     std::vector<bool>* bad, std::vector<DeadLetter>* letters);

  ItemEncoder* const encoder_;
  DeadLetterQueue* const dead_letters_;
  BoundedQueue<EventBatch>* const in_;
  BoundedQueue<EncodedBatch>* const out_;
  const Clock* const clock_;
  Counter& encoded_;
  Counter& superseded_;
  Histogram& encode_seconds_;
  std::thread thread_;
  mutable std::mutex mu_;
  Status status_;  // guarded by mu_
};

}  // namespace freshet
