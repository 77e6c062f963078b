#include <algorithm>
#include <atomic>
#include <deque>
#include <limits>
#include <mutex>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "kafka_common.h"

namespace freshet {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kCloseTimeout{5000};
constexpr std::int64_t kProbeEveryUs = 1'000'000;   // while the broker is away
constexpr std::int64_t kCommitEveryUs = 1'000'000;  // offsets for lag dashboards

// Where reading of one owned partition stands. Polling thread only.
struct Reading {
  std::int64_t next_offset = -1;  // of the last record returned + 1, or where reading started; -1: the earliest
  std::int64_t last_timestamp_ms = 0;
  bool answered = false;  // a record or the end came
  bool at_end = false;
};

class Consumer final : public RecordSource {
 public:
  Consumer(ConsumerOptions options, OffsetLookup stored_offsets, const Clock* clock)
      : options_(std::move(options)), stored_offsets_(std::move(stored_offsets)), clock_(clock) {}
  ~Consumer() override;

  Status Open(milliseconds timeout);

  Result<PollResult> Poll(milliseconds timeout) override;
  std::int64_t AsOfMs() const override;
  std::int64_t LagRecords() const override;
  void ReportStored(const std::vector<PartitionProgress>& progress) override;

 private:
  [[nodiscard]] bool pinned() const { return options_.assign_all || !options_.assign.empty(); }
  Result<std::vector<TopicPartition>> AwaitTopics(milliseconds timeout);
  Status Assign(rd_kafka_topic_partition_list_t* partitions);
  void Unassign(bool tell);
  Result<PollResult> Deliver();
  Result<PollResult> HandleError(const rd_kafka_message_t& message);
  Status Fail(Status status);
  void SetAway(bool away, std::string_view reason);
  void ProbeBroker();
  void CommitForDashboards();

  static void OnRebalance(rd_kafka_t* rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t* partitions,
                          void* self);
  static void OnError(rd_kafka_t* rk, int error, const char* reason, void* self);

  // Constant after Open():
  const ConsumerOptions options_;
  const OffsetLookup stored_offsets_;
  const Clock* const clock_;
  rd_kafka_t* rk_ = nullptr;

  // Polling thread only (librdkafka calls back on it):
  std::map<TopicPartition, Reading> readings_;
  std::deque<PollResult> changes_;  // ownership changes not yet returned
  kafka::MessagePtr message_;       // what the last record's views point into
  bool undelivered_ = false;        // message_ came behind ownership changes
  Status failed_;                   // permanent
  bool away_ = false;               // no broker can be reached ...
  std::int64_t away_since_ms_ = 0;  // ... since then (wall)
  std::int64_t next_probe_us_ = 0;
  std::int64_t next_commit_us_ = 0;
  std::string last_error_;
  bool closing_ = false;

  std::mutex mu_;
  std::map<TopicPartition, std::int64_t> stored_;  // guarded by mu_: reported, not yet committed
};

Status Consumer::Open(milliseconds timeout) {
  FRESHET_ASSIGN(kafka::ConfPtr conf, kafka::MakeConsumerConf(options_));
  rd_kafka_conf_set_opaque(conf.get(), this);
  rd_kafka_conf_set_rebalance_cb(conf.get(), OnRebalance);
  rd_kafka_conf_set_error_cb(conf.get(), OnError);
  FRESHET_ASSIGN(rk_, kafka::NewHandle(RD_KAFKA_CONSUMER, std::move(conf)));
  FRESHET_ASSIGN(const std::vector<TopicPartition> partitions, AwaitTopics(timeout));
  FRESHET_TRY(kafka::ToStatus(rd_kafka_poll_set_consumer(rk_), "consumer queue"));

  const kafka::PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(partitions.size())));
  if (pinned()) {
    for (const TopicPartition& p : partitions) {
      (void)rd_kafka_topic_partition_list_add(list.get(), p.topic.c_str(), p.partition);
    }
    return Assign(list.get());
  }
  for (const std::string& topic : options_.topics) {
    (void)rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), RD_KAFKA_PARTITION_UA);
  }
  return kafka::ToStatus(rd_kafka_subscribe(rk_, list.get()), "subscribing");
}

// Every partition of interest, once the broker knows every topic.
Result<std::vector<TopicPartition>> Consumer::AwaitTopics(milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  std::vector<TopicPartition> partitions;
  for (const std::string& topic : options_.topics) {
    for (;;) {
      const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
      const Result<std::int32_t> count =
          kafka::CountPartitions(rk_, topic, std::clamp(left, milliseconds(1), milliseconds(1000)));
      (void)rd_kafka_poll(rk_, 50);  // serves OnError: why a connection failed
      if (count.ok()) {
        for (std::int32_t p = 0; p < *count; ++p) {
          if (options_.assign_all) partitions.push_back({topic, p});
        }
        for (const std::int32_t p : options_.assign) {
          if (p < 0 || p >= *count) {
            return ConfigError(
                StrCat("topic ", topic, " has ", *count, " partitions; partition ", p, " was asked for"));
          }
          partitions.push_back({topic, p});
        }
        break;
      }
      if (steady_clock::now() >= deadline) {
        return Unavailable(StrCat("Kafka at ", options_.kafka.bootstrap_servers, ": ", count.status().message(),
                                  last_error_.empty() ? "" : " (" + last_error_ + ")"));
      }
    }
  }
  return partitions;
}

Consumer::~Consumer() {
  if (rk_ == nullptr) return;
  closing_ = true;
  message_.reset();
  // As rd_kafka_consumer_close(), which may hang in this version, but with a deadline.
  const kafka::QueuePtr queue(rd_kafka_queue_get_consumer(rk_));
  const auto deadline = steady_clock::now() + kCloseTimeout;
  if (queue != nullptr) {
    const kafka::ErrorPtr error(rd_kafka_consumer_close_queue(rk_, queue.get()));
    while (error == nullptr && rd_kafka_consumer_closed(rk_) == 0 && steady_clock::now() < deadline) {
      const kafka::MessagePtr dropped(rd_kafka_consumer_poll(rk_, 50));
    }
    if (rd_kafka_consumer_closed(rk_) == 0) LogWarning("kafka", "the consumer did not leave its group in time");
  }
  kafka::DestroyBounded(rk_, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE, kCloseTimeout);
}

Status Consumer::Assign(rd_kafka_topic_partition_list_t* partitions) {
  PollResult change;
  change.kind = PollResult::Kind::kAssigned;
  for (int i = 0; i < partitions->cnt; ++i) {
    change.partitions.push_back({partitions->elems[i].topic, partitions->elems[i].partition});
  }
  const std::map<TopicPartition, std::int64_t> stored = stored_offsets_(change.partitions);
  readings_.clear();
  for (int i = 0; i < partitions->cnt; ++i) {
    rd_kafka_topic_partition_t& element = partitions->elems[i];
    const auto found = stored.find(change.partitions[static_cast<std::size_t>(i)]);
    element.offset = found == stored.end() ? RD_KAFKA_OFFSET_BEGINNING : found->second;
    readings_[change.partitions[static_cast<std::size_t>(i)]].next_offset = found == stored.end() ? -1 : found->second;
    LogInfo("kafka", "partition assigned",
            {{"topic", element.topic},
             {"partition", StrCat(element.partition)},
             {"from", found == stored.end() ? "the beginning" : StrCat(found->second)}});
  }
  changes_.push_back(std::move(change));
  return kafka::ToStatus(rd_kafka_assign(rk_, partitions), "assigning partitions");
}

void Consumer::Unassign(bool tell) {
  const rd_kafka_resp_err_t error = rd_kafka_assign(rk_, nullptr);
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    LogWarning("kafka", "partitions could not be given up", {{"reason", rd_kafka_err2str(error)}});
  }
  PollResult change;
  change.kind = PollResult::Kind::kRevoked;
  for (const auto& [partition, reading] : readings_) change.partitions.push_back(partition);
  readings_.clear();
  {
    const std::lock_guard lock(mu_);
    stored_.clear();
  }
  if (tell && !change.partitions.empty()) changes_.push_back(std::move(change));
}

void Consumer::OnRebalance(rd_kafka_t* rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t* partitions,
                           void* self) {
  auto& consumer = *static_cast<Consumer*>(self);
  if (error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !consumer.closing_) {
    const Status assigned = consumer.Assign(partitions);
    if (!assigned.ok()) {
      LogError("kafka", "assignment failed", {{"reason", assigned.message()}});
      consumer.Unassign(/*tell=*/true);
    }
  } else {
    if (error != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS && error != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
      LogWarning("kafka", "rebalance failed", {{"reason", rd_kafka_err2str(error)}});
    }
    consumer.Unassign(/*tell=*/true);
  }
  rd_kafka_yield(rk);  // lets Poll() return the change now
}

void Consumer::OnError(rd_kafka_t* rk, int code, const char* reason, void* self) {
  auto& consumer = *static_cast<Consumer*>(self);
  const auto error = static_cast<rd_kafka_resp_err_t>(code);
  if (error == RD_KAFKA_RESP_ERR__FATAL) {
    char text[512] = "";
    const rd_kafka_resp_err_t cause = rd_kafka_fatal_error(rk, text, sizeof(text));
    (void)consumer.Fail(FailedPrecondition(StrCat("Kafka ended this consumer: ", rd_kafka_err2str(cause), ": ", text)));
    return;
  }
  consumer.last_error_ = reason != nullptr ? reason : rd_kafka_err2str(error);
  // A single broker's trouble is librdkafka's to mend; it logs it. All of them gone is a state of ours.
  if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) consumer.SetAway(true, consumer.last_error_);
}

Status Consumer::Fail(Status status) {
  if (failed_.ok()) {
    failed_ = std::move(status);
    LogError("kafka", failed_.message());
  }
  return failed_;
}

void Consumer::SetAway(bool away, std::string_view reason) {
  if (away == away_) return;
  away_ = away;
  if (away) {
    away_since_ms_ = clock_->WallMs();
    next_probe_us_ = clock_->MonotonicUs() + kProbeEveryUs;
    LogWarning("kafka", "no broker can be reached; waiting", {{"reason", std::string(reason)}});
  } else {
    last_error_.clear();
    LogInfo("kafka", "the broker is back");
  }
}

// A partition at its end says nothing when the broker comes back, so it is asked.
void Consumer::ProbeBroker() {
  const std::int64_t now_us = clock_->MonotonicUs();
  if (now_us < next_probe_us_) return;
  next_probe_us_ = now_us + kProbeEveryUs;
  const Result<std::int32_t> count = kafka::CountPartitions(rk_, options_.topics.front(), milliseconds(200));
  if (count.ok()) SetAway(false, "");
}

Result<PollResult> Consumer::Poll(milliseconds timeout) {
  if (!failed_.ok()) return failed_;
  if (!undelivered_ && changes_.empty()) {
    message_.reset();
    if (away_) ProbeBroker();
    CommitForDashboards();
    message_.reset(rd_kafka_consumer_poll(rk_, static_cast<int>(timeout.count())));
    undelivered_ = message_ != nullptr;
  }
  if (!failed_.ok()) return failed_;
  if (!changes_.empty()) {
    PollResult change = std::move(changes_.front());
    changes_.pop_front();
    return change;
  }
  if (!undelivered_) return PollResult{};
  undelivered_ = false;
  return Deliver();
}

Result<PollResult> Consumer::Deliver() {
  const rd_kafka_message_t& message = *message_;
  if (message.err != RD_KAFKA_RESP_ERR_NO_ERROR) return HandleError(message);
  SetAway(false, "");

  PollResult result;
  result.kind = PollResult::Kind::kRecord;
  RawRecord& record = result.record;
  record.topic = rd_kafka_topic_name(message.rkt);
  record.partition = message.partition;
  record.offset = message.offset;
  rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  const std::int64_t timestamp = rd_kafka_message_timestamp(&message, &type);
  record.timestamp_ms = type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || timestamp < 0 ? clock_->WallMs() : timestamp;
  if (message.key != nullptr) record.key = std::string_view(static_cast<const char*>(message.key), message.key_len);
  if (message.payload != nullptr) {
    record.value = std::string_view(static_cast<const char*>(message.payload), message.len);
  }
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
         ++i) {
      record.headers.emplace_back(
          name, value != nullptr ? std::string_view(static_cast<const char*>(value), size) : std::string_view());
    }
  }

  const auto reading = readings_.find({std::string(record.topic), record.partition});
  if (reading == readings_.end()) return PollResult{};  // an old delivery of a partition given up since
  reading->second.next_offset = record.offset + 1;
  reading->second.last_timestamp_ms = record.timestamp_ms;
  reading->second.answered = true;
  reading->second.at_end = false;
  return result;
}

Result<PollResult> Consumer::HandleError(const rd_kafka_message_t& message) {
  const std::string topic = message.rkt != nullptr ? rd_kafka_topic_name(message.rkt) : "";
  const auto reading = readings_.find({topic, message.partition});
  switch (message.err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
      SetAway(false, "");
      if (reading != readings_.end()) {
        reading->second.answered = true;
        reading->second.at_end = true;
        reading->second.next_offset = message.offset;
      }
      return PollResult{};
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE: {
      const bool known = reading != readings_.end() && reading->second.next_offset >= 0;
      const std::int64_t offset = known ? reading->second.next_offset : message.offset;
      return Fail(FailedPrecondition(StrCat("the log no longer holds offset ", offset, " of ", topic, "[",
                                            message.partition, "]: start with an empty data directory")));
    }
    case RD_KAFKA_RESP_ERR__FATAL:
      return Fail(FailedPrecondition(StrCat("Kafka ended this consumer: ", rd_kafka_message_errstr(&message))));
    default:
      break;
  }
  if (kafka::IsTransport(message.err)) {
    SetAway(true, rd_kafka_message_errstr(&message));
    return PollResult{};
  }
  // Anything else (a topic that vanished, missing rights, a poll that came too late): librdkafka tries again by itself.
  const std::string reason = rd_kafka_message_errstr(&message);
  if (reason != last_error_) LogWarning("kafka", "the consumer reports an error and goes on", {{"reason", reason}});
  last_error_ = reason;
  return PollResult{};
}

std::int64_t Consumer::AsOfMs() const {
  if (readings_.empty()) return 0;
  const std::int64_t now = away_ ? away_since_ms_ : clock_->WallMs();
  std::int64_t as_of = std::numeric_limits<std::int64_t>::max();
  for (const auto& [partition, reading] : readings_) {
    if (!reading.answered) return 0;
    as_of = std::min(as_of, reading.at_end ? now : reading.last_timestamp_ms);
  }
  return as_of;
}

std::int64_t Consumer::LagRecords() const {
  std::int64_t lag = 0;
  for (const auto& [partition, reading] : readings_) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    if (rd_kafka_get_watermark_offsets(rk_, partition.topic.c_str(), partition.partition, &low, &high) !=
            RD_KAFKA_RESP_ERR_NO_ERROR ||
        high < 0) {
      continue;
    }
    const std::int64_t position = reading.next_offset >= 0 ? reading.next_offset : std::max<std::int64_t>(low, 0);
    lag += std::max<std::int64_t>(0, high - position);
  }
  return lag;
}

void Consumer::ReportStored(const std::vector<PartitionProgress>& progress) {
  if (pinned()) return;
  const std::lock_guard lock(mu_);
  for (const PartitionProgress& p : progress) stored_[p.partition] = p.next_offset;
}

// On the polling thread and only for owned partitions: in this version a commit during a rebalance can lose the
// assignment.
void Consumer::CommitForDashboards() {
  if (pinned() || away_ || readings_.empty() || clock_->MonotonicUs() < next_commit_us_) return;
  next_commit_us_ = clock_->MonotonicUs() + kCommitEveryUs;
  std::map<TopicPartition, std::int64_t> stored;
  {
    const std::lock_guard lock(mu_);
    stored.swap(stored_);
  }
  const kafka::PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(stored.size())));
  for (const auto& [partition, offset] : stored) {
    if (!readings_.contains(partition)) continue;
    rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition)->offset = offset;
  }
  if (list->cnt > 0) (void)rd_kafka_commit(rk_, list.get(), /*async=*/1);
}

}  // namespace

Result<std::unique_ptr<RecordSource>> OpenKafkaConsumer(const ConsumerOptions& options, OffsetLookup stored_offsets,
                                                        const Clock* clock, milliseconds timeout) {
  auto consumer = std::make_unique<Consumer>(options, std::move(stored_offsets), clock);
  FRESHET_TRY(consumer->Open(timeout));
  return std::unique_ptr<RecordSource>(std::move(consumer));
}

}  // namespace freshet
