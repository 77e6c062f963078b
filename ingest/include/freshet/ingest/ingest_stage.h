// The first stage: records -> batches of typed events, with their offsets in-band.
//
// Place in the flow: RecordSource -> decode -> dead letters -> BoundedQueue<EventBatch>. Runs on one thread of its own
// between Start() and Stop(), and where records come many at a time decodes them on others too; order is kept. A batch
// closes at max_batch_records, max_batch_bytes, or linger_ms after its first
// record; while nothing arrives an empty batch every heartbeat_ms carries as_of on. A batch is pushed only after its
// dead letters are acknowledged. Errors: a permanent one ends the stage; status() tells it and the queue is closed.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "freshet/core/clock.h"
#include "freshet/core/metrics.h"
#include "freshet/core/queue.h"
#include "freshet/core/status.h"
#include "freshet/ingest/dead_letters.h"
#include "freshet/ingest/decoder.h"
#include "freshet/ingest/event.h"
#include "freshet/ingest/record_source.h"

namespace freshet {

class DecodePool;

struct IngestOptions {
  std::size_t max_batch_records = 256;
  std::size_t max_batch_bytes = std::size_t{4} << 20;
  int linger_ms = 5;
  int heartbeat_ms = 200;
  std::size_t decode_threads = 2;  // with the stage's own
  Status Validate() const;
};

class IngestStage {
 public:
  // topic -> decoder. Everything passed outlives the stage.
  using Decoders = std::map<std::string, std::unique_ptr<EventDecoder>, std::less<>>;
  IngestStage(const IngestOptions& options, RecordSource* source, Decoders decoders, DeadLetterQueue* dead_letters,
              BoundedQueue<EventBatch>* out, const Clock* clock, Metrics* metrics);
  ~IngestStage();

  using Partitions = std::vector<TopicPartition>;
  // `owned` is told, on the stage's thread, which partitions are owned whenever that changes. `now` says which they are
  // at this moment, counting changes that the source has met and not returned yet; it is asked also while nothing can
  // be polled, so that what others may own by now is told at once, however long a stall lasts, and records keep their
  // order. Without it ownership is told as the source returns its changes. Before Start().
  void OnOwned(std::function<void(const Partitions&)> owned, std::function<Partitions()> now = {}) {
    on_owned_ = std::move(owned);
    owned_now_ = std::move(now);
  }
  void Start();
  // Finishes the batch at hand, closes the queue, joins. Idempotent.
  void Stop();
  [[nodiscard]] Status status() const;
  [[nodiscard]] bool running() const { return running_.load(); }

 private:
  void Run();
  Status RunUntilStopped();
  // Polls, for up to `wait`; takes what comes, and what else there is without waiting, up to a chunk; decodes it.
  // `away`: the source's transient error, if it had one.
  Status Fill(std::chrono::milliseconds wait, EventBatch* batch, std::vector<DeadLetter>* letters, Status* away);
  // Puts a record at the end of the batch, still to be decoded.
  Status Take(const RawRecord& record, EventBatch* batch);
  [[nodiscard]] Status Decode(Event* event) const;
  // Decodes what was taken. A transient fault only takes time; when stopping, what it keeps back is dropped, to be read
  // again.
  Status DecodeTaken(EventBatch* batch, std::vector<DeadLetter>* letters);
  // The batch's first record that is not finished, again, until it can be decoded or is known to be poison.
  Status DecodeAgain(Status failed, EventBatch* batch, std::vector<DeadLetter>* letters);
  // The same record is done with: decoded, or poison.
  void Finish(const Status& decoded, EventBatch* batch, std::vector<DeadLetter>* letters);
  [[nodiscard]] bool IsFull(const EventBatch& batch) const;
  // complete: all that was polled is in this batch or an earlier one.
  Status Emit(EventBatch* batch, std::vector<DeadLetter>* letters, bool complete = true);
  Status HandlePartitions(const PollResult& change, EventBatch* batch, std::vector<DeadLetter>* letters);
  Status SendLetters(std::vector<DeadLetter> letters);
  Status Push(EventBatch batch);
  void AddPositions(EventBatch* batch);
  // Ends early when stopping. The source's membership is kept meanwhile.
  Status Wait(std::chrono::milliseconds wait);
  // The source's, and what it met is told.
  Status KeepAlive();
  void TellOwned(Partitions owned);

  // Constant after construction:
  const IngestOptions options_;
  RecordSource* const source_;
  const Decoders decoders_;
  DeadLetterQueue* const dead_letters_;
  BoundedQueue<EventBatch>* const out_;
  const Clock* const clock_;
  Counter& records_;
  Counter& poison_;
  Counter& retries_;
  Gauge& lag_records_;
  Gauge& queue_bytes_;
  Counter& stalled_;
  Metrics* const metrics_;
  std::function<void(const Partitions&)> on_owned_;
  std::function<Partitions()> owned_now_;

  // Stage's thread only:
  std::unique_ptr<DecodePool> pool_;
  std::size_t finished_ = 0;  // events of the batch at hand that are decoded; those after it are still to be
  std::vector<std::optional<Status>> decoded_;  // of DecodeTaken()
  bool dropped_ = false;  // records that were polled, because we are stopping: no batch is complete after it
  std::int64_t batch_since_us_ = 0;
  std::size_t last_bytes_ = 0;  // of the batch before
  std::int64_t positions_told_us_ = 0;
  std::optional<Partitions> told_owned_;

  std::atomic<bool> stop_{false};
  std::atomic<bool> running_{false};
  std::thread thread_;
  mutable std::mutex mu_;
  Status status_;  // guarded by mu_
};

}  // namespace freshet
