#include "freshet/store/publisher.h"

#include <algorithm>
#include <chrono>

#include "freshet/core/fault.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/store/changelog.h"

namespace freshet {
namespace {

constexpr int kFirstBackoffMs = 50;
constexpr int kMaxBackoffMs = 5'000;
constexpr int kIoTries = 10;  // about 20 seconds

}  // namespace

Status PublisherOptions::Validate() const {
  if (vectors_topic.empty() || user_events_topic.empty()) return ConfigError("changelog topics must have names");
  if (vectors_topic == user_events_topic) return ConfigError("the two changelog topics must differ");
  if (progress_interval_ms < 10) return ConfigError("changelog.progress_interval_ms must be at least 10");
  return Status::Ok();
}

Publisher::Publisher(const PublisherOptions& options, Store* store, const Replica* replica, RecordSink* sink,
                     const Clock* clock, Metrics* metrics)
    : options_(options),
      store_(store),
      replica_(replica),
      sink_(sink),
      clock_(clock),
      published_(metrics->GetCounter("freshet_changelog_published_total", "Changelog records acknowledged")),
      retries_(metrics->GetCounter("freshet_changelog_retries_total", "Changelog sends that had to be repeated")) {}

Publisher::~Publisher() { Stop(0); }

void Publisher::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Publisher::Wake() {
  const std::lock_guard lock(mu_);
  woken_ = true;
  wake_.notify_one();
}

void Publisher::Stop(int drain_ms) {
  {
    const std::lock_guard lock(mu_);
    if (!stopping_) stop_deadline_us_ = clock_->MonotonicUs() + std::int64_t{drain_ms} * 1000;
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

Status Publisher::status() const {
  const std::lock_guard lock(mu_);
  return status_;
}

void Publisher::Run() {
  int backoff_ms = kFirstBackoffMs;
  std::int64_t next_progress_us = 0;
  while (true) {
    Status status;
    bool more = false;
    if (auto some = PublishSome(); some.ok()) {
      more = *some;
    } else {
      status = some.status();
    }
    bool stopping = false;
    bool out_of_time = false;
    {
      const std::lock_guard lock(mu_);
      stopping = stopping_;
      out_of_time = stopping_ && clock_->MonotonicUs() > stop_deadline_us_;
    }
    if (status.ok() && !more && (stopping || clock_->MonotonicUs() >= next_progress_us)) {
      status = PublishProgress();
      next_progress_us = clock_->MonotonicUs() + std::int64_t{options_.progress_interval_ms} * 1000;
    }
    if (status.ok()) {
      io_errors_ = 0;
      if (stopping && !more) drained_ = true;
      if ((stopping && !more) || out_of_time) return;
      backoff_ms = kFirstBackoffMs;
      if (more) continue;
    } else {
      retries_.Add();
      if (backoff_ms == kFirstBackoffMs) {
        LogWarning("changelog", "cannot publish, trying again", {{"reason", status.ToString()}});
      }
      if (!MayPass(status)) {
        // Nothing is lost: the outbox keeps it. But somebody has to look.
        const std::lock_guard lock(mu_);
        status_ = status;
        return;
      }
      if (out_of_time) return;
    }
    std::unique_lock lock(mu_);
    std::chrono::microseconds wait = std::chrono::milliseconds(status.ok() ? options_.idle_wait_ms : backoff_ms);
    if (stopping_) {  // until the deadline it goes on trying, not faster than before
      wait = std::min(
          wait, std::chrono::microseconds(std::max<std::int64_t>(stop_deadline_us_ - clock_->MonotonicUs(), 0) + 1));
    }
    wake_.wait_for(lock, wait, [&] { return (status.ok() && woken_) || stopping_ != stopping; });
    woken_ = false;
    if (!status.ok()) backoff_ms = std::min(2 * backoff_ms, kMaxBackoffMs);
  }
}

// A store that is being opened again gives errors of every kind meanwhile. One that is open and cannot be read gets
// some more tries, and then somebody has to look.
bool Publisher::MayPass(const Status& status) {
  if (status.category() == Category::kTransient) return true;
  if (status.code() != Code::kIoError) return false;
  return !store_->writable() || ++io_errors_ < kIoTries;
}

Result<bool> Publisher::PublishSome() {
  // Not what was acknowledged but could not be trimmed yet: that is sent again only after a restart.
  FRESHET_ASSIGN(const std::vector<OutboxEntry> entries,
                 store_->ReadOutboxAbove(published_sequence_, options_.max_batch_records, options_.max_batch_bytes));
  if (!entries.empty()) FRESHET_TRY(SendAll(entries));
  if (trimmed_sequence_ == published_sequence_) return false;
  const Status trimmed = store_->TrimOutbox(published_sequence_);
  if (trimmed.ok()) trimmed_sequence_ = published_sequence_;
  // While the store cannot be written the rest of the outbox is sent all the same.
  if (!trimmed.ok() && (entries.empty() || trimmed.category() != Category::kTransient)) return trimmed;
  return !entries.empty();
}

Status Publisher::SendAll(const std::vector<OutboxEntry>& entries) {
  std::vector<OutRecord> records;
  records.reserve(entries.size());
  for (const OutboxEntry& entry : entries) {
    OutRecord& record = records.emplace_back();
    record.topic = entry.is_user_event ? options_.user_events_topic : options_.vectors_topic;
    record.key = entry.key;
    record.value = entry.value;
    record.headers = {{kEpochHeader, StrCat(store_->epoch())}, {kSequenceHeader, StrCat(entry.sequence)}};
  }
  // Published is durable: what a power loss takes back gets its numbers again, and followers would drop whatever is
  // numbered like something that they have.
  FRESHET_TRY(store_->MakeDurable(entries.back().sequence));
  FRESHET_TRY(FaultPoint("changelog.before_send"));
  FRESHET_TRY(sink_->Send(records, std::chrono::milliseconds(options_.send_timeout_ms)));
  FRESHET_TRY(FaultPoint("changelog.after_send"));
  published_.Add(static_cast<double>(entries.size()));
  published_sequence_ = entries.back().sequence;
  return Status::Ok();
}

Status Publisher::PublishProgress() {
  // Read before the look at the outbox: whatever as_of covers has been committed, so it is published, or still in the
  // outbox.
  const std::int64_t as_of_ms = replica_->as_of_ms();
  if (store_->outbox_records() > 0 || as_of_ms == 0) return Status::Ok();
  const std::string value = EncodeProgressValue({as_of_ms, replica_->space_id(), replica_->owned_items()});
  std::vector<OutRecord> records;
  for (const std::string& topic : {options_.vectors_topic, options_.user_events_topic}) {
    FRESHET_ASSIGN(const std::int32_t partitions, sink_->PartitionCount(topic));
    for (std::int32_t partition = 0; partition < partitions; ++partition) {
      OutRecord& record = records.emplace_back();
      record.topic = topic;
      record.partition = partition;
      record.key = std::string(kProgressKey);
      record.value = value;
      record.headers = {{kEpochHeader, StrCat(store_->epoch())}, {kSequenceHeader, StrCat(published_sequence_)}};
    }
  }
  return sink_->Send(records, std::chrono::milliseconds(options_.send_timeout_ms));
}

}  // namespace freshet
