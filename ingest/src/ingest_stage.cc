#include "freshet/ingest/ingest_stage.h"

#include <algorithm>
#include <future>

#include "backoff.h"
#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kReservedRecords = 256;
constexpr milliseconds kStopCheck{50};  // longest wait that ignores Stop()
constexpr milliseconds kFirstBackoff{50};
constexpr milliseconds kMaxBackoff{2000};
constexpr std::int64_t kStallUs = 1'000'000;  // longer without a poll: the source is kept alive
constexpr std::int64_t kPositionsEveryUs = 10'000'000;

// Batches touch few partitions: a linear search is the fast one.
std::size_t ProgressIndexOf(EventBatch* batch, const RawRecord& record) {
  for (std::size_t i = 0; i < batch->progress.size(); ++i) {
    const TopicPartition& partition = batch->progress[i].partition;
    if (partition.partition == record.partition && partition.topic == record.topic) return i;
  }
  batch->progress.emplace_back().partition = {std::string(record.topic), record.partition};
  return batch->progress.size() - 1;
}

// What a later stage may still find unusable keeps its bytes.
bool MayBecomePoison(const Event& event) {
  const auto* item = std::get_if<ItemUpdate>(&event.body);
  return item != nullptr && !item->deleted;
}

}  // namespace

Status IngestOptions::Validate() const {
  if (max_batch_records < 1) return ConfigError("ingest.max_batch_records must be at least 1");
  if (max_batch_bytes < 1) return ConfigError("ingest.max_batch_bytes must be at least 1");
  if (linger_ms < 0 || linger_ms > 60'000) return ConfigError("ingest.linger_ms must be between 0 and 60000");
  if (heartbeat_ms < 1 || heartbeat_ms > 60'000) return ConfigError("ingest.heartbeat_ms must be between 1 and 60000");
  return Status::Ok();
}

IngestStage::IngestStage(const IngestOptions& options, RecordSource* source, Decoders decoders,
                         DeadLetterQueue* dead_letters, BoundedQueue<EventBatch>* out, const Clock* clock,
                         Metrics* metrics)
    : options_(options),
      source_(source),
      decoders_(std::move(decoders)),
      dead_letters_(dead_letters),
      out_(out),
      clock_(clock),
      records_(metrics->GetCounter("freshet_ingest_records_total", "Records read from Kafka")),
      poison_(metrics->GetCounter("freshet_ingest_poison_total", "Records that could not be decoded")),
      retries_(metrics->GetCounter("freshet_ingest_retries_total",
                                   "Attempts to decode a record that failed because the schema registry was away")),
      lag_records_(metrics->GetGauge("freshet_consumer_lag_records", "Records in the log that were not read yet")),
      queue_bytes_(
          metrics->GetGauge("freshet_ingest_queue_bytes", "Bytes of keys, values and headers waiting for the encoder")),
      stalled_(metrics->GetCounter("freshet_ingest_stalls_total",
                                   "Times that reading was paused because a later stage, the registry or the "
                                   "dead-letter topic did not take a record within a second")),
      metrics_(metrics) {}

IngestStage::~IngestStage() { Stop(); }

void IngestStage::Start() {
  if (thread_.joinable()) return;
  running_ = true;
  thread_ = std::thread([this] { Run(); });
}

void IngestStage::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  out_->Close();
}

Status IngestStage::status() const {
  const std::lock_guard lock(mu_);
  return status_;
}

void IngestStage::Run() {
  Status status = RunUntilStopped();
  // Stopping is no failure: what was not pushed was not stored, and is read again.
  if (status.code() == Code::kCancelled) status = Status::Ok();
  if (!status.ok()) LogError("ingest", "the stream ended", {{"reason", status.ToString()}});
  {
    const std::lock_guard lock(mu_);
    status_ = std::move(status);
  }
  running_ = false;
  out_->Close();
}

Status IngestStage::RunUntilStopped() {
  EventBatch batch;
  std::vector<DeadLetter> letters;
  std::int64_t batch_since_us = 0;
  std::int64_t last_emit_us = clock_->MonotonicUs();
  Backoff backoff(kFirstBackoff, kMaxBackoff);
  while (!stop_.load()) {
    const std::int64_t now_us = clock_->MonotonicUs();
    const bool filling = !batch.events.empty();
    const std::int64_t due_us =
        filling ? batch_since_us + options_.linger_ms * 1000 : last_emit_us + options_.heartbeat_ms * 1000;
    const bool full = batch.events.size() >= options_.max_batch_records || batch.bytes >= options_.max_batch_bytes;
    if (full || now_us >= due_us) {
      FRESHET_TRY(Emit(&batch, &letters));
      last_emit_us = clock_->MonotonicUs();
      continue;
    }
    // Rounded up: a wait that ends just before the deadline would spin.
    const milliseconds wait(std::clamp<std::int64_t>((due_us - now_us + 999) / 1000, 1, kStopCheck.count()));
    Result<PollResult> polled = source_->Poll(wait);
    if (!polled.ok()) {
      if (polled.status().category() != Category::kTransient) return polled.status();
      if (backoff.fresh()) {
        LogWarning("ingest", "the source is away; retrying", {{"reason", polled.status().message()}});
      }
      FRESHET_TRY(Wait(backoff.Next()));
      continue;
    }
    backoff.Reset();
    switch (polled->kind) {
      case PollResult::Kind::kIdle:
        break;
      case PollResult::Kind::kAssigned:
      case PollResult::Kind::kRevoked:
      case PollResult::Kind::kReread:
      case PollResult::Kind::kCaughtUp:
        FRESHET_TRY(HandlePartitions(*polled, &batch, &letters));
        break;
      case PollResult::Kind::kRecord:
        if (!filling) batch_since_us = clock_->MonotonicUs();
        FRESHET_TRY(AddOrRetry(polled->record, &batch, &letters));
        break;
    }
  }
  positions_told_us_ = 0;  // the last word, so that the next start knows how long nothing was read
  return Emit(&batch, &letters);
}

Status IngestStage::HandlePartitions(const PollResult& change, EventBatch* batch, std::vector<DeadLetter>* letters) {
  // What is at hand comes before the change.
  if (!batch->events.empty()) FRESHET_TRY(Emit(batch, letters));
  if (change.kind == PollResult::Kind::kAssigned || change.kind == PollResult::Kind::kRevoked) {
    if (owned_now_) {
      // Later changes may wait behind this one: what it says may be over.
      TellOwned(owned_now_());
    } else if (change.kind == PollResult::Kind::kAssigned) {
      TellOwned(change.partitions);
    } else if (change.lost) {
      TellOwned({});
    }
    return Status::Ok();
  }
  EventBatch marked;
  const bool reread = change.kind == PollResult::Kind::kReread;
  for (const TopicPartition& partition : change.partitions) {
    marked.marks.push_back({reread ? PartitionMark::Kind::kReread : PartitionMark::Kind::kCaughtUp, partition,
                            change.reason == "evicted" || change.reason == "tombstones"});
    if (!reread) continue;
    metrics_
        ->GetCounter("freshet_partition_rereads_total",
                     "Partitions read again from their beginning because the stored offset was none of their log",
                     {{"topic", partition.topic}, {"cause", change.reason}})
        .Add();
  }
  return Push(std::move(marked));
}

Status IngestStage::AddOrRetry(const RawRecord& record, EventBatch* batch, std::vector<DeadLetter>* letters) {
  Status added = Add(record, batch, letters);
  if (added.category() != Category::kTransient) return added;
  Backoff backoff(kFirstBackoff, kMaxBackoff);
  while (added.category() == Category::kTransient && !stop_.load()) {
    // What is at hand need not wait; but it is not all that was polled, so it says nothing of how far it is complete.
    if (!batch->events.empty()) FRESHET_TRY(Emit(batch, letters, /*complete=*/false));
    if (backoff.fresh()) {
      LogWarning("ingest", "a record cannot be decoded yet; retrying", {{"reason", added.message()}});
    }
    retries_.Add();
    FRESHET_TRY(Wait(backoff.Next()));
    added = Add(record, batch, letters);
  }
  // Stopping: the record was not applied, and is read again.
  return added.category() == Category::kTransient ? Status::Ok() : added;
}

Status IngestStage::Wait(milliseconds wait) {
  for (milliseconds slept{0}; slept < wait && !stop_.load(); slept += kStopCheck) {
    std::this_thread::sleep_for(std::min(kStopCheck, wait - slept));
    FRESHET_TRY(KeepAlive());
  }
  return Status::Ok();
}

Status IngestStage::KeepAlive() {
  FRESHET_TRY(source_->KeepAlive());
  if (owned_now_) TellOwned(owned_now_());
  return Status::Ok();
}

void IngestStage::TellOwned(Partitions owned) {
  if (!on_owned_ || owned == told_owned_) return;
  on_owned_(owned);
  told_owned_ = std::move(owned);
}

Status IngestStage::Add(const RawRecord& record, EventBatch* batch, std::vector<DeadLetter>* letters) {
  const auto decoder = decoders_.find(record.topic);
  if (decoder == decoders_.end())
    return Internal(StrCat("a record of topic ", record.topic, " came, which nobody asked for"));

  // In its place: an event is large. It goes again where there is none yet.
  if (batch->events.empty()) batch->events.reserve(std::min(options_.max_batch_records, kReservedRecords));
  Event& event = batch->events.emplace_back();
  event.position = {record.partition, record.offset};
  event.record_timestamp_ms = record.timestamp_ms;
  const Status decoded = decoder->second->Decode(record, &event);
  if (!decoded.ok() && decoded.category() != Category::kInput) {
    batch->events.pop_back();
    return decoded;
  }
  records_.Add();
  if (!decoded.ok()) {
    poison_.Add();
    event.body = Skipped{};
    letters->push_back({CopyOf(record), event.position, record.timestamp_ms,
                        event.key_is_poison ? "KEY_CONVERTER" : "VALUE_CONVERTER", decoded.message()});
  } else if (MayBecomePoison(event)) {
    event.raw = CopyOf(record);
  }

  event.progress_index = ProgressIndexOf(batch, record);
  PartitionProgress& progress = batch->progress[event.progress_index];
  progress.next_offset = record.offset + 1;
  progress.last_timestamp_ms = record.timestamp_ms;
  progress.fingerprint = Fingerprint(record);
  batch->bytes += record.key.value_or(std::string_view()).size() + record.value.value_or(std::string_view()).size() +
                  HeaderBytes(record);
  return Status::Ok();
}

Status IngestStage::Emit(EventBatch* batch, std::vector<DeadLetter>* letters, bool complete) {
  // Before the letters are sent, which may take long: later it might claim what is not in this batch.
  batch->as_of_ms = complete ? source_->AsOfMs() : 0;
  lag_records_.Set(static_cast<double>(source_->LagRecords()));
  if (complete) AddPositions(batch);
  if (!letters->empty()) {
    FRESHET_TRY(FaultPoint("ingest.before_dead_letters"));
    FRESHET_TRY(SendLetters(std::move(*letters)));
    letters->clear();
  }
  EventBatch full = std::move(*batch);
  *batch = EventBatch{};
  return Push(std::move(full));
}

// How far each owned partition is complete, now and then: most of them are in no batch.
void IngestStage::AddPositions(EventBatch* batch) {
  const std::int64_t now_us = clock_->MonotonicUs();
  if (positions_told_us_ != 0 && now_us - positions_told_us_ < kPositionsEveryUs) return;
  positions_told_us_ = now_us;
  freshet::AddPositions(source_->Positions(), &batch->progress);
}

Status IngestStage::SendLetters(std::vector<DeadLetter> letters) {
  auto sent = std::async(std::launch::async, [&] { return dead_letters_->Send(std::move(letters)); });
  const std::int64_t since_us = clock_->MonotonicUs();
  bool stalled = false;
  Status alive;
  while (sent.wait_for(kStopCheck) != std::future_status::ready) {
    if (clock_->MonotonicUs() - since_us < kStallUs || !alive.ok()) continue;
    if (!stalled) stalled_.Add();
    stalled = true;
    alive = KeepAlive();
  }
  FRESHET_TRY(sent.get());
  return alive;
}

// The queue is full as long as a later stage is slow: however long that is, the group must not think that we are gone.
Status IngestStage::Push(EventBatch batch) {
  const std::size_t bytes = batch.bytes;
  const std::int64_t since_us = clock_->MonotonicUs();
  bool stalled = false;
  while (!out_->PushFor(&batch, bytes, kStopCheck)) {
    if (out_->closed()) return Cancelled("the next stage has closed its queue");
    if (clock_->MonotonicUs() - since_us < kStallUs) continue;
    if (!stalled) stalled_.Add();
    stalled = true;
    FRESHET_TRY(KeepAlive());
  }
  queue_bytes_.Set(static_cast<double>(out_->bytes()));
  return Status::Ok();
}

}  // namespace freshet
