// The second stage: micro-batches of events -> vectors.
//
// Place in the flow: BoundedQueue<EventBatch> -> last write per item -> ItemEncoder, one model call per batch ->
// BoundedQueue<EncodedBatch>. Runs on one thread. An item that the model cannot embed is found by bisection and becomes
// a dead letter; the rest passes; its offset is still covered by the batch. Drains its input when that is closed, then
// closes its output. Errors: permanent ones, a model that no longer answers its goldens, and lasting want of memory end
// the stage and close both queues; none of them makes dead letters.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/queue.h"
#include "freshet/encoder/encoded_batch.h"
#include "freshet/encoder/encoder.h"
#include "freshet/ingest/dead_letters.h"

namespace freshet {

// What is stored of items: who comes with the features that it has already is not embedded again. Implemented by the
// store's Applier. Thread-safe.
class KnownItems {
 public:
  virtual ~KnownItems() = default;
  // HashOf(features) as stored; 0: no such item. Errors: kCorruption, kIoError.
  [[nodiscard]] virtual Result<std::uint64_t> FeaturesHash(std::string_view item_id) const = 0;
  // How many of the batches that this stage pushed are in what FeaturesHash() says.
  [[nodiscard]] virtual std::uint64_t applied_batches() const = 0;
};

class BatchEmbedder;

class EncodeStage {
 public:
  EncodeStage(ItemEncoder* encoder, DeadLetterQueue* dead_letters, BoundedQueue<EventBatch>* in,
              BoundedQueue<EncodedBatch>* out, const Clock* clock, Metrics* metrics);
  ~EncodeStage();

  // Before Start(); `known` outlives the stage.
  void SkipUnchanged(const KnownItems* known) { known_ = known; }
  void Start();
  void Join();  // REQUIRES: the input queue is, or will be, closed
  [[nodiscard]] Status status() const;

 private:
  void Run();
  Result<EncodedBatch> Encode(EventBatch batch);
  // Gives each item its vector. Those that the model refuses go to the dead letters, and into *poison.
  Status Embed(const std::vector<Event*>& items, std::unordered_set<const Event*>* poison);
  Status WaitForMemory(std::chrono::milliseconds wait) const;
  [[nodiscard]] bool SameFeatures(const ItemUpdate& item) const;
  void ForgetApplied();
  void Remember(const EncodedBatch& batch);

  ItemEncoder* const encoder_;
  const std::unique_ptr<BatchEmbedder> embedder_;  // stage's thread only
  DeadLetterQueue* const dead_letters_;
  BoundedQueue<EventBatch>* const in_;
  BoundedQueue<EncodedBatch>* const out_;
  // Of the batch under way; kept for their memory. Stage's thread only.
  std::vector<const ItemUpdate*> updates_;
  std::vector<float> vectors_;
  const Clock* const clock_;
  const KnownItems* known_ = nullptr;
  // Stage's thread only. Items of batches that were pushed and not applied yet: what the store says of them is old.
  std::uint64_t pushed_ = 0;
  std::uint64_t barrier_ = 0;  // until this batch is applied nothing that is stored counts
  std::deque<std::pair<std::uint64_t, std::vector<std::string>>> in_flight_;
  std::unordered_map<std::string, std::uint64_t> newest_;  // item -> its newest batch in flight
  Counter& encoded_;
  Counter& kept_;
  Counter& superseded_;
  Histogram& encode_seconds_;
  std::thread thread_;
  mutable std::mutex mu_;
  Status status_;  // guarded by mu_
};

}  // namespace freshet
