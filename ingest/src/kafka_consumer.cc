#include "kafka_consumer.h"

#include <algorithm>
#include <utility>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace kafka {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kCloseTimeout{5000};
constexpr int kQueryTimeoutMs = 5000;
constexpr std::int64_t kLookEveryUs = 5'000'000;
constexpr std::size_t kMaxEarly = 256;
constexpr std::int64_t kProbeEveryUs = 1'000'000;  // while the broker is away
constexpr auto kProbeTimeout = milliseconds(200);
constexpr std::int64_t kCommitEveryUs = 1'000'000;  // offsets for lag dashboards
constexpr int kLookEveryRecords = 64;
constexpr std::size_t kWorthAsking = 1'000;  // messages: less is gone before an answer is there
constexpr int kAskTimeoutMs = 2;
constexpr std::int64_t kEndsEveryUs = 10'000;  // at most so often

}  // namespace

Status Consumer::Open(milliseconds timeout) {
  FRESHET_TRY(Connect());
  FRESHET_ASSIGN(const std::vector<TopicPartition> partitions, AwaitTopics(timeout));
  if (options_.reread_lost || options_.ask_ends) {
    readings_.SetTombstoneRetention(TombstoneRetentionMs(options_.kafka, options_.topics, timeout));
  }
  look_every_us_ =
      std::min<std::int64_t>(kLookEveryUs, MilliOption(rk_, "topic.metadata.refresh.interval.ms").count() * 1000);
  next_look_us_ = clock_->MonotonicUs() + look_every_us_;
  return Join(partitions);
}

Status Consumer::Connect() {
  FRESHET_ASSIGN(ConfPtr conf, MakeConsumerConf(options_));
  self_ = std::make_shared<Self>(Self{this});
  rd_kafka_conf_set_opaque(conf.get(), self_.get());
  rd_kafka_conf_set_rebalance_cb(conf.get(), OnRebalance);
  rd_kafka_conf_set_error_cb(conf.get(), OnError);
  FRESHET_ASSIGN(rk_, NewHandle(RD_KAFKA_CONSUMER, std::move(conf)));
  return Status::Ok();
}

// Pins `partitions`, or joins the group.
Status Consumer::Join(const std::vector<TopicPartition>& partitions) {
  FRESHET_TRY(ToStatus(rd_kafka_poll_set_consumer(rk_), "consumer queue"));
  queue_.reset(rd_kafka_queue_get_consumer(rk_));
  if (options_.ask_ends) ends_ = std::make_unique<EndsAsker>(rk_, clock_);
  if (pinned()) return Assign(partitions);
  const PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(options_.topics.size())));
  for (const std::string& topic : options_.topics) {
    (void)rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), RD_KAFKA_PARTITION_UA);
  }
  return ToStatus(rd_kafka_subscribe(rk_, list.get()), "subscribing");
}

// Every partition of interest, once the broker knows every topic.
Result<std::vector<TopicPartition>> Consumer::AwaitTopics(milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  std::vector<TopicPartition> partitions;
  for (const std::string& topic : options_.topics) {
    for (;;) {
      const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
      const Result<std::int32_t> count =
          CountPartitions(rk_, topic, std::clamp(left, milliseconds(1), milliseconds(1000)));
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
      if (steady_clock::now() >= deadline || turned_away_) {
        return Unavailable(StrCat("Kafka at ", options_.kafka.bootstrap_servers, ": ", count.status().message(),
                                  last_error_.empty() ? "" : " (" + last_error_ + ")"));
      }
    }
  }
  return partitions;
}

Consumer::~Consumer() { Close(); }

void Consumer::Close() {
  if (rk_ == nullptr) return;
  ends_.reset();
  message_.reset();
  early_.clear();
  self_->consumer = nullptr;  // who is called back by now only gives up what is left
  rd_kafka_t* const rk = std::exchange(rk_, nullptr);
  rd_kafka_queue_t* const queue = queue_.release();
  // As rd_kafka_consumer_close(), which may hang in this version; so may rd_kafka_assign(), called back by it, when the
  // group is done with that moment: the answer it waits for is thrown away. Hence a thread that can be left behind.
  const auto leave = [rk, queue, self = self_] {
    const QueuePtr until_left(queue);
    const ErrorPtr refused(rd_kafka_consumer_close_queue(rk, queue));
    const auto deadline = steady_clock::now() + kCloseTimeout;
    while (refused == nullptr && rd_kafka_consumer_closed(rk) == 0 && steady_clock::now() < deadline) {
      const MessagePtr dropped(rd_kafka_consumer_poll(rk, 50));
    }
  };
  if (queue != nullptr && !RunBounded(leave, kCloseTimeout + milliseconds(500))) {
    LogWarning("kafka", "the consumer did not leave its group in time; its handle is left behind");
    return;
  }
  DestroyBounded(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE, kCloseTimeout);
}

void Consumer::OnError(rd_kafka_t*, int code, const char* reason, void* self) {
  if (static_cast<Self*>(self)->consumer == nullptr) return;
  Consumer& consumer = *static_cast<Self*>(self)->consumer;
  const auto error = static_cast<rd_kafka_resp_err_t>(code);
  if (error == RD_KAFKA_RESP_ERR__FATAL) return consumer.OnFatal();
  if (error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || consumer.last_error_.empty()) {
    consumer.last_error_ = reason != nullptr ? reason : rd_kafka_err2str(error);
  }
  consumer.turned_away_ = consumer.turned_away_ || IsRefusal(error);
  // A single broker's trouble is librdkafka's to mend; it logs it. All of them gone is a state of ours.
  if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) consumer.SetAway(true, consumer.last_error_);
}

void Consumer::OnFatal() {
  char text[512] = "";
  const rd_kafka_resp_err_t cause = rd_kafka_fatal_error(rk_, text, sizeof(text));
  if (cause == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID) return OnFenced();
  (void)Fail(FailedPrecondition(StrCat("Kafka ended this consumer: ", rd_kafka_err2str(cause), ": ", text)));
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
    next_probe_us_ = clock_->MonotonicUs() + kProbeEveryUs;
    LogWarning("kafka", "no broker can be reached; waiting", {{"reason", std::string(reason)}});
  } else {
    last_error_.clear();
    // Nobody could take over meanwhile. Whoever lost his partitions has a session's time from now to get them back.
    back_us_ = clock_->MonotonicUs();
    if (revoked_since_us_ != 0) revoked_since_us_ = back_us_;
    LogInfo("kafka", "the broker is back");
  }
}

// Asks a broker now. What is delivered says nothing: it may have been fetched before the broker went.
bool Consumer::BrokerAnswers() {
  next_probe_us_ = clock_->MonotonicUs() + kProbeEveryUs;
  const Status status = CountPartitions(rk_, options_.topics.front(), kProbeTimeout).status();
  const bool answers = status.ok() || status.code() == Code::kNotFound;
  SetAway(!answers, answers ? "" : status.message());
  return answers;
}

Result<PollResult> Consumer::Poll(milliseconds timeout) {
  if (!failed_.ok()) return failed_;
  if (!undelivered_ && changes_.empty()) {
    message_.reset();
    if (fenced_) FRESHET_TRY(JoinAnew());
    FRESHET_TRY(Pause(false));
    // Whoever takes what is there, without waiting, need not be held up by these for each record.
    const bool chores = timeout.count() > 0 || --until_chores_ <= 0;
    if (chores) {
      until_chores_ = kLookEveryRecords;
      CommitForDashboards();
      LookForPartitions();
    }
    if (!early_.empty()) {
      message_ = std::move(early_.front());
      early_.pop_front();
    } else if (changes_.empty()) {
      message_.reset(rd_kafka_consumer_poll(rk_, static_cast<int>(timeout.count())));
    }
    if (chores || message_ == nullptr) FollowEnds();
    undelivered_ = message_ != nullptr;
    TellLoss();
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

Status Consumer::KeepAlive() {
  if (!failed_.ok()) return failed_;
  FRESHET_TRY(Pause(true));
  // What comes although reading is paused is little: an end of each partition. Errors may be many, and come again.
  MessagePtr message(rd_kafka_consumer_poll(rk_, 0));
  const bool error = message != nullptr && message->err != RD_KAFKA_RESP_ERR_NO_ERROR &&
                     message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF;
  if (message != nullptr && (!error || early_.size() < kMaxEarly)) early_.push_back(std::move(message));
  TellLoss();
  return failed_;
}

std::vector<PartitionProgress> Consumer::Positions() const {
  std::vector<PartitionProgress> positions;
  for (const auto& [partition, reading] : readings_.all()) {
    PartitionProgress& position = positions.emplace_back();
    position.partition = partition;
    position.next_offset = reading.next_offset;
    // Who starts again after it was late has to see that.
    position.complete_ms = reading.late ? reading.complete_ms : std::max(reading.complete_ms, reading.AsOf());
  }
  return positions;
}

Result<PollResult> Consumer::Deliver() {
  const rd_kafka_message_t& message = *message_;
  if (message.err != RD_KAFKA_RESP_ERR_NO_ERROR) return HandleError(message);

  Result<PollResult> result{PollResult{}};
  result->kind = PollResult::Kind::kRecord;
  RawRecord& record = result->record;
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

  AskForMore();
  const Readings::Verdict verdict = readings_.OnRecord(record, &changes_);
  if (verdict != Readings::Verdict::kReturn || !readings_.lost().empty()) return After(verdict, std::move(*result));
  return result;
}

// librdkafka 2.0 that has found its queue full looks again only when a second is over, or when something is asked of
// the broker: until then nothing is fetched, however fast the queue is drained (measured: 98,000 records a second, with
// a processor to spare). So when half of the queue is gone something is asked, and the answer hardly waited for.
void Consumer::AskForMore() {
  if (--until_look_ > 0 || queue_ == nullptr) return;
  until_look_ = kLookEveryRecords;
  const std::size_t queued = rd_kafka_queue_length(queue_.get());
  fullest_ = std::max(fullest_, queued);
  if (fullest_ < kWorthAsking || queued > fullest_ / 2) return;
  fullest_ = queued;
  const PartitionListPtr more(rd_kafka_topic_partition_list_new(static_cast<int>(readings_.all().size())));
  for (const auto& [partition, reading] : readings_.all()) {
    if (reading.at_end) continue;
    rd_kafka_topic_partition_list_add(more.get(), partition.topic.c_str(), partition.partition)->offset =
        RD_KAFKA_OFFSET_END;
  }
  // One request to each leader of these partitions; that it was sent is all that is wanted.
  if (more->cnt > 0) (void)rd_kafka_offsets_for_times(rk_, more.get(), kAskTimeoutMs);
}

Result<PollResult> Consumer::HandleError(const rd_kafka_message_t& message) {
  const std::string topic = message.rkt != nullptr ? rd_kafka_topic_name(message.rkt) : "";
  const TopicPartition partition{topic, message.partition};
  switch (message.err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
      return After(readings_.OnEnd(partition, message.offset, &changes_), PollResult{});
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
      return HandleLost(partition);
    case RD_KAFKA_RESP_ERR__FATAL:
      OnFatal();
      return failed_.ok() ? Result<PollResult>(PollResult{}) : failed_;
    default:
      break;
  }
  if (IsUnknownTopic(message.err)) readings_.Doubt(topic);
  if (IsTransport(message.err)) {
    SetAway(true, rd_kafka_message_errstr(&message));
    return PollResult{};
  }
  // Anything else (a topic that vanished, missing rights, a poll that came too late): librdkafka tries again by itself.
  const std::string reason = rd_kafka_message_errstr(&message);
  if (reason != last_error_) LogWarning("kafka", "the consumer reports an error and goes on", {{"reason", reason}});
  last_error_ = reason;
  return PollResult{};
}

Result<PollResult> Consumer::HandleLost(const TopicPartition& partition) {
  if (readings_.Find(partition) == nullptr) return PollResult{};
  std::int64_t low = -1;
  std::int64_t high = -1;
  const rd_kafka_resp_err_t asked =
      rd_kafka_query_watermark_offsets(rk_, partition.topic.c_str(), partition.partition, &low, &high, kQueryTimeoutMs);
  // Without an answer it is not known what was lost: the position is asked for once more, and found lost again.
  if (asked != RD_KAFKA_RESP_ERR_NO_ERROR) return After(Readings::Verdict::kRestart, PollResult{});
  readings_.OnLost(partition, low, high, &changes_);
  return After(Readings::Verdict::kRestart, PollResult{});
}

// Where the partitions end is asked again and again, so that `as_of` moves on.
void Consumer::FollowEnds() {
  if (ends_ == nullptr || clock_->MonotonicUs() < next_ends_us_) return;
  next_ends_us_ = clock_->MonotonicUs() + kEndsEveryUs;
  if (const std::optional<Ends> ends = ends_->Take()) readings_.OnEnds(*ends);
  if (away_) return;
  std::vector<TopicPartition> partitions;
  for (const auto& [partition, reading] : readings_.all()) partitions.push_back(partition);
  ends_->Ask(std::move(partitions));
}

std::int64_t Consumer::LagRecords() const {
  std::int64_t lag = 0;
  for (const auto& [partition, reading] : readings_.all()) {
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
  if (pinned() || away_ || readings_.all().empty() || clock_->MonotonicUs() < next_commit_us_) return;
  next_commit_us_ = clock_->MonotonicUs() + kCommitEveryUs;
  std::map<TopicPartition, std::int64_t> stored;
  {
    const std::lock_guard lock(mu_);
    stored.swap(stored_);
  }
  const PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(stored.size())));
  for (const auto& [partition, offset] : stored) {
    if (readings_.Find(partition) == nullptr) continue;
    rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition)->offset = offset;
  }
  if (list->cnt > 0) (void)rd_kafka_commit(rk_, list.get(), /*async=*/1);
}

}  // namespace kafka

Result<std::unique_ptr<RecordSource>> OpenKafkaConsumer(const ConsumerOptions& options, OffsetLookup stored_offsets,
                                                        const Clock* clock, std::chrono::milliseconds timeout) {
  auto consumer = std::make_unique<kafka::Consumer>(options, std::move(stored_offsets), clock);
  FRESHET_TRY(consumer->Open(timeout));
  return std::unique_ptr<RecordSource>(std::move(consumer));
}

}  // namespace freshet
