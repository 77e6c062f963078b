// The consumer over librdkafka: offsets from the store, groups, ends of partitions, `as_of`, lag.
//
// Place in the flow: private to the Kafka adapters; kafka_consumer.cc polls and delivers, kafka_group.cc owns and gives
// up partitions. Thread-safety and errors: see OpenKafkaConsumer().
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/ingest/kafka.h"
#include "kafka_common.h"
#include "kafka_ends.h"
#include "kafka_readings.h"

namespace freshet::kafka {

class Consumer final : public RecordSource {
 public:
  Consumer(ConsumerOptions options, OffsetLookup stored_offsets, const Clock* clock)
      : options_(std::move(options)),
        clock_(clock),
        readings_(std::move(stored_offsets), options_.reread_lost, clock, options_.quiet) {}
  ~Consumer() override;

  Status Open(std::chrono::milliseconds timeout);

  Result<PollResult> Poll(std::chrono::milliseconds timeout) override;
  Status KeepAlive() override;
  [[nodiscard]] std::vector<TopicPartition> Owned() const override;
  [[nodiscard]] std::vector<PartitionProgress> Positions() const override;
  std::int64_t AsOfMs() const override { return readings_.AsOfMs(); }
  std::int64_t LagRecords() const override;
  void ReportStored(const std::vector<PartitionProgress>& progress) override;

 private:
  [[nodiscard]] bool pinned() const { return options_.assign_all || !options_.assign.empty(); }
  Status Connect();
  Status Join(const std::vector<TopicPartition>& partitions);
  void Close();
  void OnFatal();
  void OnFenced();
  Status JoinAnew();
  Result<std::vector<TopicPartition>> AwaitTopics(std::chrono::milliseconds timeout);
  Status Assign(const std::vector<TopicPartition>& partitions);
  Status Restart();
  Status Pause(bool paused);
  void Unassign();
  void TellLoss();
  [[nodiscard]] std::int64_t NobodyElseSinceUs() const;
  void LookForPartitions();
  Result<PollResult> After(Readings::Verdict verdict, PollResult result);
  Result<PollResult> Deliver();
  Result<PollResult> HandleError(const rd_kafka_message_t& message);
  Result<PollResult> HandleLost(const TopicPartition& partition);
  Status Fail(Status status);
  void SetAway(bool away, std::string_view reason);
  bool BrokerAnswers();
  void CommitForDashboards();
  void AskForMore();
  void FollowEnds();

  static void OnRebalance(rd_kafka_t* rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t* partitions,
                          void* self);
  static void OnError(rd_kafka_t* rk, int error, const char* reason, void* self);

  // What librdkafka calls back. Outlives the consumer where the handle does.
  struct Self {
    Consumer* consumer;  // null: it is being closed
  };

  // Constant after Open():
  const ConsumerOptions options_;
  const Clock* const clock_;
  std::int64_t look_every_us_ = 0;  // for new partitions, where all are pinned

  // Polling thread only (librdkafka calls back on it):
  std::shared_ptr<Self> self_;
  rd_kafka_t* rk_ = nullptr;
  Readings readings_;
  std::deque<PollResult> changes_;  // changes of partitions not yet returned
  bool paused_ = false;
  std::deque<MessagePtr> early_;         // came while paused, which they should not: returned first afterwards
  std::vector<TopicPartition> revoked_;  // while the group is being arranged anew
  std::int64_t revoked_since_us_ = 0;
  std::int64_t next_look_us_ = 0;
  MessagePtr message_;        // what the last record's views point into
  bool undelivered_ = false;  // message_ came behind ownership changes
  Status failed_;             // permanent
  bool away_ = false;         // no broker can be reached
  std::int64_t next_probe_us_ = 0;
  std::int64_t back_us_ = 0;         // when a broker answered again; 0: none was away
  std::unique_ptr<EndsAsker> ends_;  // null: nobody wants to know
  std::int64_t next_ends_us_ = 0;
  std::int64_t next_commit_us_ = 0;
  QueuePtr queue_;           // of what was fetched and not yet polled
  std::size_t fullest_ = 0;  // messages in it at most, since more was asked for
  int until_look_ = 0;       // records
  int until_chores_ = 0;     // polls that do not wait
  std::string last_error_;
  bool turned_away_ = false;               // by a broker, while opening
  bool fenced_ = false;                    // out of the group; the next poll joins it anew
  std::deque<std::int64_t> fenced_at_us_;  // lately

  std::mutex mu_;
  std::map<TopicPartition, std::int64_t> stored_;  // guarded by mu_: reported, not yet committed
};

}  // namespace freshet::kafka
