#include "freshet/ingest/ingest_stage.h"

#include <algorithm>
#include <future>

#include "backoff.h"
#include "decode_pool.h"
#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kReservedRecords = 256;
constexpr std::size_t kChunk = 128;     // records that are decoded together, where so many are there
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

std::size_t BytesOf(const RawRecord& record) {
  return record.key.value_or(std::string_view()).size() + record.value.value_or(std::string_view()).size() +
         HeaderBytes(record);
}

// The batch's events from `begin` on, as a batch of their own; their bytes stay where they are.
EventBatch SplitOff(std::size_t begin, EventBatch* batch) {
  EventBatch rest;
  rest.arena = batch->arena;
  const auto first = batch->events.begin() + static_cast<std::ptrdiff_t>(begin);
  rest.events.assign(std::make_move_iterator(first), std::make_move_iterator(batch->events.end()));
  batch->events.erase(first, batch->events.end());
  for (const Event& event : rest.events) rest.bytes += BytesOf(event.raw);
  batch->bytes -= rest.bytes;
  return rest;
}

}  // namespace

Status IngestOptions::Validate() const {
  if (max_batch_records < 1) return ConfigError("ingest.max_batch_records must be at least 1");
  if (max_batch_bytes < 1) return ConfigError("ingest.max_batch_bytes must be at least 1");
  if (linger_ms < 0 || linger_ms > 60'000) return ConfigError("ingest.linger_ms must be between 0 and 60000");
  if (heartbeat_ms < 1 || heartbeat_ms > 60'000) return ConfigError("ingest.heartbeat_ms must be between 1 and 60000");
  if (decode_threads < 1 || decode_threads > 64) return ConfigError("ingest.decode_threads must be between 1 and 64");
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
  pool_ = std::make_unique<DecodePool>(options_.decode_threads);
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
  std::int64_t last_emit_us = clock_->MonotonicUs();
  Backoff backoff(kFirstBackoff, kMaxBackoff);
  while (!stop_.load()) {
    const std::int64_t now_us = clock_->MonotonicUs();
    const std::int64_t due_us = batch.events.empty() ? last_emit_us + std::int64_t{options_.heartbeat_ms} * 1000
                                                     : batch_since_us_ + std::int64_t{options_.linger_ms} * 1000;
    if (IsFull(batch) || now_us >= due_us) {
      FRESHET_TRY(Emit(&batch, &letters));
      last_emit_us = clock_->MonotonicUs();
      continue;
    }
    // Rounded up: a wait that ends just before the deadline would spin.
    const milliseconds wait(std::clamp<std::int64_t>((due_us - now_us + 999) / 1000, 1, kStopCheck.count()));
    Status away;
    FRESHET_TRY(Fill(wait, &batch, &letters, &away));
    if (away.ok()) {
      backoff.Reset();
      continue;
    }
    if (backoff.fresh()) LogWarning("ingest", "the source is away; retrying", {{"reason", away.message()}});
    FRESHET_TRY(Wait(backoff.Next()));
  }
  positions_told_us_ = 0;  // the last word, so that the next start knows how long nothing was read
  return Emit(&batch, &letters, /*complete=*/!dropped_);
}

bool IngestStage::IsFull(const EventBatch& batch) const {
  return batch.events.size() >= options_.max_batch_records || batch.bytes >= options_.max_batch_bytes;
}

Status IngestStage::Fill(milliseconds wait, EventBatch* batch, std::vector<DeadLetter>* letters, Status* away) {
  Result<PollResult> polled = source_->Poll(wait);
  std::size_t taken = 0;
  for (; polled.ok() && polled->kind == PollResult::Kind::kRecord; polled = source_->Poll(milliseconds(0))) {
    FRESHET_TRY(Take(polled->record, batch));
    if (++taken == kChunk || IsFull(*batch)) return DecodeTaken(batch, letters);
  }
  FRESHET_TRY(DecodeTaken(batch, letters));
  if (!polled.ok()) {
    if (polled.status().category() != Category::kTransient) return polled.status();
    *away = polled.status();
    return Status::Ok();
  }
  // A change may not pass a record that was dropped because we are stopping; it is met again.
  if (polled->kind == PollResult::Kind::kIdle || dropped_) return Status::Ok();
  return HandlePartitions(*polled, batch, letters);
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

Status IngestStage::Take(const RawRecord& record, EventBatch* batch) {
  if (!decoders_.contains(record.topic)) {
    return Internal(StrCat("a record of topic ", record.topic, " came, which nobody asked for"));
  }
  if (batch->events.empty()) {
    batch_since_us_ = clock_->MonotonicUs();
    batch->events.reserve(std::min(options_.max_batch_records, kReservedRecords));
    batch->arena = std::make_shared<ByteArena>(last_bytes_);
  }
  ByteArena& arena = *batch->arena;
  const std::string_view topic = batch->events.empty() ? std::string_view() : batch->events.back().raw.topic;
  // In its place: an event is large.
  Event& event = batch->events.emplace_back();
  event.position = {record.partition, record.offset};
  event.record_timestamp_ms = record.timestamp_ms;
  event.raw.topic = topic == record.topic ? topic : arena.Keep(record.topic);
  event.raw.partition = record.partition;
  event.raw.offset = record.offset;
  event.raw.timestamp_ms = record.timestamp_ms;
  if (record.key) event.raw.key = arena.Keep(*record.key);
  if (record.value) event.raw.value = arena.Keep(*record.value);
  event.raw.headers.reserve(record.headers.size());
  for (const auto& [name, value] : record.headers) event.raw.headers.emplace_back(arena.Keep(name), arena.Keep(value));
  batch->bytes += BytesOf(record);
  return Status::Ok();
}

Status IngestStage::Decode(Event* event) const {
  return decoders_.find(event->raw.topic)->second->Decode(event->raw, event);
}

Status IngestStage::DecodeTaken(EventBatch* batch, std::vector<DeadLetter>* letters) {
  const std::size_t taken = batch->events.size() - finished_;
  if (taken == 0) return Status::Ok();
  decoded_.assign(taken, std::nullopt);
  // A registry that does not answer takes its timeout each time: who has met that asks for no other record.
  std::atomic<bool> held_up{false};
  pool_->Run(taken, [&, begin = finished_](std::size_t i) {
    if (held_up.load()) return;
    decoded_[i] = Decode(&batch->events[begin + i]);
    if (decoded_[i]->category() == Category::kTransient) held_up = true;
  });
  for (std::optional<Status>& decoded : decoded_) {
    if (!decoded) decoded = Decode(&batch->events[finished_]);
    if (decoded->category() == Category::kTransient) {
      FRESHET_TRY(DecodeAgain(std::move(*decoded), batch, letters));
      if (finished_ == batch->events.size()) break;  // stopping, or it was the last
    } else {
      if (!decoded->ok() && decoded->category() != Category::kInput) return *decoded;
      Finish(*decoded, batch, letters);
    }
  }
  return Status::Ok();
}

Status IngestStage::DecodeAgain(Status failed, EventBatch* batch, std::vector<DeadLetter>* letters) {
  Backoff backoff(kFirstBackoff, kMaxBackoff);
  while (failed.category() == Category::kTransient && !stop_.load()) {
    // What is at hand need not wait; but it is not all that was polled, so it says nothing of how far it is complete.
    if (finished_ > 0) {
      EventBatch rest = SplitOff(finished_, batch);
      FRESHET_TRY(Emit(batch, letters, /*complete=*/false));
      *batch = std::move(rest);
    }
    if (backoff.fresh()) {
      LogWarning("ingest", "a record cannot be decoded yet; retrying", {{"reason", failed.message()}});
    }
    retries_.Add();
    FRESHET_TRY(Wait(backoff.Next()));
    Event& event = batch->events[finished_];
    event.body = Skipped{};
    event.key_is_poison = false;
    failed = Decode(&event);
  }
  if (failed.category() == Category::kTransient) {
    // Stopping: neither it nor what came after it was applied, and all of it is read again.
    (void)SplitOff(finished_, batch);
    dropped_ = true;
    return Status::Ok();
  }
  if (!failed.ok() && failed.category() != Category::kInput) return failed;
  Finish(failed, batch, letters);
  return Status::Ok();
}

void IngestStage::Finish(const Status& decoded, EventBatch* batch, std::vector<DeadLetter>* letters) {
  Event& event = batch->events[finished_++];
  const RawRecord& record = event.raw;
  records_.Add();
  if (!decoded.ok()) {
    poison_.Add();
    event.body = Skipped{};
    letters->push_back({CopyOf(record), event.position, record.timestamp_ms,
                        event.key_is_poison ? "KEY_CONVERTER" : "VALUE_CONVERTER", decoded.message()});
  }
  event.progress_index = ProgressIndexOf(batch, record);
  PartitionProgress& progress = batch->progress[event.progress_index];
  progress.next_offset = record.offset + 1;
  progress.last_timestamp_ms = record.timestamp_ms;
  progress.fingerprint = Fingerprint(record);
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
  if (!batch->events.empty()) last_bytes_ = batch->bytes;
  EventBatch full = std::move(*batch);
  *batch = EventBatch{};
  finished_ = 0;
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
