#include "freshet/query/follow_stage.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/changelog.h"

namespace freshet {
namespace {

constexpr auto kPollWait = std::chrono::milliseconds(20);
constexpr std::int64_t kPositionsEveryUs = 10'000'000;

// A batch being filled: the last write of each item wins here already, as it does in the encode stage.
class Filling {
 public:
  [[nodiscard]] std::size_t records() const { return records_; }
  [[nodiscard]] std::size_t bytes() const { return batch_.bytes; }

  // The progress entry of the record's partition; nullptr when this batch holds another epoch of it and has to go
  // first.
  PartitionProgress* Source(const RawRecord& record, const ChangelogRecord& decoded, std::size_t* index) {
    const TopicPartition partition{std::string(record.topic), record.partition};
    const auto [it, added] = index_.emplace(partition, batch_.progress.size());
    if (added) {
      PartitionProgress progress;
      progress.partition = partition;
      progress.epoch = decoded.epoch;
      batch_.progress.push_back(progress);
    }
    *index = it->second;
    PartitionProgress* source = &batch_.progress[it->second];
    return source->epoch == decoded.epoch ? source : nullptr;
  }

  void Cover(const RawRecord& record, const ChangelogRecord& decoded, PartitionProgress* source) {
    source->next_offset = record.offset + 1;
    source->last_timestamp_ms = record.timestamp_ms;
    source->fingerprint = Fingerprint(record);
    source->sequence = std::max(source->sequence, decoded.sequence);
    batch_.bytes += record.value ? record.value->size() : 0;
    ++records_;
  }

  void Add(ItemChange change) {
    const auto [it, added] = items_.emplace(change.update.item_id, batch_.items.size());
    if (added) {
      batch_.items.push_back(std::move(change));
    } else if (change.sequence >= batch_.items[it->second].sequence) {
      batch_.items[it->second] = std::move(change);
    }
  }
  void Own(OwnedItems owned) { batch_.owned = std::move(owned); }
  void Add(UserChange change) { batch_.users.push_back(std::move(change)); }

  EncodedBatch Take() {
    EncodedBatch batch = std::move(batch_);
    *this = Filling();
    return batch;
  }

 private:
  EncodedBatch batch_;
  std::map<TopicPartition, std::size_t> index_;
  std::unordered_map<std::string, std::size_t> items_;
  std::size_t records_ = 0;
};

}  // namespace

// State of the stage's thread between polls.
struct FollowStage::State {
  Filling filling;
  std::set<TopicPartition> assigned;
  std::map<TopicPartition, std::int64_t> as_of;  // what each partition's newest progress record said
  std::uint64_t epoch = 0;                       // as that of the options, by what was read since
  std::int64_t begun_us = 0;
  std::int64_t emitted_us = 0;
  std::int64_t emitted_as_of_ms = 0;
  std::int64_t positions_us = 0;  // when it was last told how far partitions are complete

  // Everything up to here is in what was read: the partition that is furthest behind decides.
  [[nodiscard]] std::int64_t AsOf() const {
    if (assigned.empty() || as_of.size() < assigned.size()) return 0;
    std::int64_t oldest = as_of.begin()->second;
    for (const auto& [partition, ms] : as_of) oldest = std::min(oldest, ms);
    return oldest;
  }
};

FollowStage::FollowStage(const FollowOptions& options, RecordSource* source, BoundedQueue<EncodedBatch>* out,
                         const Clock* clock, Metrics* metrics)
    : options_(options),
      source_(source),
      out_(out),
      clock_(clock),
      records_(metrics->GetCounter("freshet_follow_records_total", "Changelog records read")),
      undecodable_(metrics->GetCounter("freshet_follow_undecodable_total",
                                       "Changelog records that do not decode; other than 0 is a defect")),
      other_space_records_(metrics->GetCounter("freshet_follow_other_space_total",
                                               "Changelog records skipped, left in the log by the model before")),
      lag_records_(metrics->GetGauge("freshet_consumer_lag_records", "Records in the log that were not read yet")) {}

FollowStage::~FollowStage() { Stop(); }

void FollowStage::Start() {
  thread_ = std::thread([this] { Run(); });
}

void FollowStage::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

Status FollowStage::status() const {
  const std::lock_guard lock(mu_);
  return status_;
}

std::optional<std::string> FollowStage::other_space() const {
  const std::lock_guard lock(mu_);
  return other_space_;
}

void FollowStage::Run() {
  const Status status = RunUntilStopped();
  if (!status.ok()) {
    LogError("follow", "stopped following", {{"reason", status.ToString()}});
    const std::lock_guard lock(mu_);
    status_ = status;
  }
  out_->Close();
}

Status FollowStage::RunUntilStopped() {
  State state;
  state.epoch = options_.epoch;
  while (!stop_) {
    auto polled = source_->Poll(state.filling.records() > 0 ? std::chrono::milliseconds(1) : kPollWait);
    if (!polled.ok()) {
      if (polled.status().category() != Category::kTransient) {
        lost_log_ = true;
        return polled.status();
      }
    } else if (polled->kind == PollResult::Kind::kRecord) {
      FRESHET_TRY(Add(polled->record, &state));
    } else if (polled->kind == PollResult::Kind::kAssigned) {
      state.assigned.insert(polled->partitions.begin(), polled->partitions.end());
    } else if (polled->kind == PollResult::Kind::kRevoked) {
      for (const TopicPartition& partition : polled->partitions) {
        state.assigned.erase(partition);
        state.as_of.erase(partition);
      }
    }
    const std::int64_t now_us = clock_->MonotonicUs();
    const bool full =
        state.filling.records() >= options_.max_batch_records || state.filling.bytes() >= options_.max_batch_bytes;
    const bool lingered =
        state.filling.records() > 0 && now_us - state.begun_us >= std::int64_t{options_.linger_ms} * 1000;
    const bool heartbeat = now_us - state.emitted_us >= std::int64_t{options_.heartbeat_ms} * 1000 &&
                           (state.AsOf() != state.emitted_as_of_ms ||
                            (state.positions_us != 0 && now_us - state.positions_us >= kPositionsEveryUs));
    if (full || lingered || heartbeat) FRESHET_TRY(Emit(&state));
  }
  state.positions_us = 0;  // the last word, so that the next start knows how long nothing was read
  return Emit(&state);
}

Status FollowStage::Emit(State* state) {
  EncodedBatch batch = state->filling.Take();
  if (const std::int64_t now_us = clock_->MonotonicUs(); now_us - state->positions_us >= kPositionsEveryUs) {
    state->positions_us = now_us;
    AddPositions(source_->Positions(), &batch.progress);
  }
  batch.space_id = options_.space_id;
  batch.as_of_ms = state->AsOf();
  batch.encoded_at_us = clock_->MonotonicUs();
  state->emitted_us = batch.encoded_at_us;
  state->emitted_as_of_ms = batch.as_of_ms;
  lag_records_.Set(static_cast<double>(source_->LagRecords()));
  const std::size_t bytes = batch.bytes;
  if (!out_->Push(std::move(batch), bytes)) return Cancelled("the next stage has stopped");
  return Status::Ok();
}

Status FollowStage::Add(const RawRecord& record, State* state) {
  records_.Add();
  const bool vectors = record.topic == options_.vectors_topic;
  auto decoded = DecodeChangelogRecord(record, vectors);
  // A newer engine's: to skip it would leave what it said unknown for ever.
  if (decoded.status().code() == Code::kFailedPrecondition) return decoded.status();
  if (!decoded.ok()) {
    if (undecodable_.Value() == 0) {
      LogError("follow", "a changelog record does not decode and is skipped",
               {{"reason", decoded.status().message()},
                {"topic", std::string(record.topic)},
                {"offset", StrCat(record.offset)}});
    }
    undecodable_.Add();
    return Status::Ok();
  }
  const bool carries_vector = decoded->item && !decoded->item->update.deleted;
  const bool speaks_of_space = carries_vector || decoded->progress;
  if (speaks_of_space && decoded->space_id != options_.space_id) {
    if (decoded->epoch < state->epoch) {
      other_space_records_.Add();
      return Status::Ok();
    }
    FRESHET_TRY(Emit(state));
    const std::lock_guard lock(mu_);
    other_space_ = decoded->space_id;
    return FailedPrecondition(StrCat("the changelog goes on in embedding space ", decoded->space_id, ", this is of ",
                                     options_.space_id, ": following it takes the package that the engine runs"));
  }
  if (carries_vector && decoded->item->update.vector.size() != static_cast<std::size_t>(options_.dim)) {
    return FailedPrecondition(StrCat("the changelog holds ", decoded->item->update.vector.size(),
                                     "-dimensional vectors, this model makes ", options_.dim));
  }
  if (speaks_of_space) state->epoch = std::max(state->epoch, decoded->epoch);
  if (state->filling.records() == 0) state->begun_us = clock_->MonotonicUs();
  std::size_t index = 0;
  PartitionProgress* source = state->filling.Source(record, *decoded, &index);
  if (source == nullptr) {
    FRESHET_TRY(Emit(state));
    state->begun_us = clock_->MonotonicUs();
    source = state->filling.Source(record, *decoded, &index);
  }
  const LogPosition position{record.partition, record.offset};
  if (decoded->item) {
    decoded->item->position = position;
    decoded->item->progress_index = index;
    state->filling.Add(std::move(*decoded->item));
  } else if (decoded->user) {
    // Sent again after the publisher's crash: seen in this very batch.
    if (decoded->sequence > source->sequence) {
      decoded->user->position = position;
      decoded->user->progress_index = index;
      state->filling.Add(std::move(*decoded->user));
    }
  } else if (decoded->progress) {
    state->as_of[{std::string(record.topic), record.partition}] = decoded->progress->as_of_ms;
    // It is said in every partition; in one of them there is an order.
    if (vectors && record.partition == 0) state->filling.Own(std::move(decoded->progress->owned));
  }
  state->filling.Cover(record, *decoded, source);
  return Status::Ok();
}

}  // namespace freshet
