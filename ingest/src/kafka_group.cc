// Which partitions are ours: assignments, positions handed to librdkafka, pauses, losses.
#include <algorithm>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "kafka_consumer.h"

namespace freshet::kafka {
namespace {

constexpr std::size_t kMaxFenced = 3;
constexpr std::int64_t kFencedWindowUs = 300'000'000;

}  // namespace

Status Consumer::Assign(const std::vector<TopicPartition>& partitions) {
  revoked_.clear();
  revoked_since_us_ = 0;
  readings_.Assign(partitions, &changes_);
  if (!readings_.lost().empty()) return Fail(FailedPrecondition(readings_.lost()));
  return Restart();
}

// Hands librdkafka every position anew: the way to move one of them that works in every state of a partition.
Status Consumer::Restart() {
  early_.clear();
  const auto& all = readings_.all();
  const PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(all.size())));
  for (const auto& [partition, reading] : all) {
    rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition)->offset =
        Readings::StartOf(reading).value_or(RD_KAFKA_OFFSET_BEGINNING);
  }
  FRESHET_TRY(ToStatus(rd_kafka_assign(rk_, list.get()), "assigning partitions"));
  if (!paused_) return Status::Ok();
  paused_ = false;
  return Pause(true);
}

// Only on a change: resuming what is not paused rewinds it in this version.
Status Consumer::Pause(bool paused) {
  if (paused == paused_) return Status::Ok();
  const auto& all = readings_.all();
  const PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(all.size())));
  for (const auto& [partition, reading] : all) {
    (void)rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition);
  }
  paused_ = paused;
  if (list->cnt == 0) return Status::Ok();
  return ToStatus(paused ? rd_kafka_pause_partitions(rk_, list.get()) : rd_kafka_resume_partitions(rk_, list.get()),
                  "pausing");
}

void Consumer::Unassign() {
  const bool lost = rd_kafka_assignment_lost(rk_) != 0;
  // A pause outlasts the assignment in this version: partitions that are given up paused would come back paused, and
  // nobody would know.
  if (const Status resumed = Pause(false); !resumed.ok()) {
    LogWarning("kafka", "partitions could not be resumed", {{"reason", resumed.message()}});
  }
  const rd_kafka_resp_err_t error = rd_kafka_assign(rk_, nullptr);
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    LogWarning("kafka", "partitions could not be given up", {{"reason", rd_kafka_err2str(error)}});
  }
  PollResult change;
  change.kind = PollResult::Kind::kRevoked;
  for (const auto& [partition, reading] : readings_.all()) change.partitions.push_back(partition);
  readings_.Clear();
  early_.clear();
  paused_ = false;
  {
    const std::lock_guard lock(mu_);
    stored_.clear();
  }
  if (change.partitions.empty()) return;
  revoked_ = change.partitions;
  // A member that lost its partitions for good need not wait for the new arrangement to know it.
  revoked_since_us_ = lost ? NobodyElseSinceUs() : clock_->MonotonicUs();
  changes_.push_back(std::move(change));
}

// This group's protocol revokes everything each time it is arranged anew. Until that is over nobody else can own what
// was ours, unless we are no member any more: lost, or silent for longer than a session. While no broker can be reached
// nothing is known, and what was ours is still the best answer; `as_of` says how old it is. Called with every poll.
void Consumer::TellLoss() {
  if (away_ && clock_->MonotonicUs() >= next_probe_us_) (void)BrokerAnswers();
  if (revoked_since_us_ == 0 || away_) return;
  if (clock_->MonotonicUs() - revoked_since_us_ < std::int64_t{options_.session_timeout_ms} * 1000) return;
  // A session that ended may be a broker that went, or hangs, and has not been noticed yet.
  if (!BrokerAnswers()) return;
  PollResult change;
  change.kind = PollResult::Kind::kRevoked;
  change.partitions = std::move(revoked_);
  change.lost = true;
  revoked_.clear();
  revoked_since_us_ = 0;
  changes_.push_back(std::move(change));
}

// When it was last certain that nobody else owns what is ours: while no broker answered nobody could take it over. A
// broker that is back still ends the sessions that ran out meanwhile, and answers twice who asked twice; who is put out
// by that, and may have been in already, is to come back to what he had.
std::int64_t Consumer::NobodyElseSinceUs() const { return std::max<std::int64_t>(1, back_us_); }

std::vector<TopicPartition> Consumer::Owned() const {
  if (readings_.all().empty()) return revoked_;
  std::vector<TopicPartition> owned;
  for (const auto& [partition, reading] : readings_.all()) owned.push_back(partition);
  return owned;
}

// Somebody with our instance id joined the group. That may be ourselves: a join that a broker which was killed had
// taken, and whose answer never came (Apache Kafka's issue KAFKA-20985). So the group is joined anew, which fences the
// other one if there is one; of two that do this for long one gives up.
void Consumer::OnFenced() {
  if (fenced_) return;
  const std::int64_t now_us = clock_->MonotonicUs();
  fenced_at_us_.push_back(now_us);
  while (now_us - fenced_at_us_.front() > kFencedWindowUs) fenced_at_us_.pop_front();
  if (fenced_at_us_.size() > kMaxFenced) {
    (void)Fail(
        FailedPrecondition(StrCat("the consumer group ", options_.group_id, " has another member that is called `",
                                  options_.group_instance_id, "`: each needs a kafka.group_instance_id of its own")));
    return;
  }
  fenced_ = true;
  LogWarning("kafka", "a member with the same instance id took this one's place in the group; joining anew",
             {{"group", options_.group_id}, {"instance", options_.group_instance_id}});
}

Status Consumer::JoinAnew() {
  if (rk_ != nullptr) Unassign();
  if (!revoked_.empty()) revoked_since_us_ = NobodyElseSinceUs();  // the other one may own them by now
  Close();
  FRESHET_TRY(Connect());
  FRESHET_TRY(Join({}));
  fenced_ = false;
  return Status::Ok();
}

// A group is told of new partitions, and arranged anew when a topic vanishes; who pins his has to look.
void Consumer::LookForPartitions() {
  const std::int64_t now_us = clock_->MonotonicUs();
  if (!pinned() || away_ || look_every_us_ <= 0 || now_us < next_look_us_) return;
  next_look_us_ = now_us + look_every_us_;
  std::vector<TopicPartition> found;
  for (const std::string& topic : options_.topics) {
    const Result<std::int32_t> count = CountPartitions(rk_, topic, std::chrono::milliseconds(1000));
    if (count.status().code() == Code::kNotFound) readings_.Doubt(topic);
    for (std::int32_t p = 0; options_.assign_all && count.ok() && p < *count; ++p) {
      if (readings_.Find({topic, p}) == nullptr) found.push_back({topic, p});
    }
  }
  if (found.empty()) return;
  for (const TopicPartition& partition : found) readings_.Add(partition, &changes_);
  PollResult change;
  change.kind = PollResult::Kind::kAssigned;
  for (const auto& [partition, reading] : readings_.all()) change.partitions.push_back(partition);
  changes_.push_back(std::move(change));
  if (const Status restarted = Restart(); !restarted.ok()) {
    LogWarning("kafka", "new partitions could not be assigned", {{"reason", restarted.message()}});
  }
}

Result<PollResult> Consumer::After(Readings::Verdict verdict, PollResult result) {
  if (!readings_.lost().empty()) return Fail(FailedPrecondition(readings_.lost()));
  if (verdict == Readings::Verdict::kReturn) return result;
  if (verdict == Readings::Verdict::kRestart) FRESHET_TRY(Restart());
  return PollResult{};
}

void Consumer::OnRebalance(rd_kafka_t* rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t* partitions,
                           void* self) {
  if (static_cast<Self*>(self)->consumer == nullptr) {
    (void)rd_kafka_assign(rk, nullptr);
    return;
  }
  Consumer& consumer = *static_cast<Self*>(self)->consumer;
  if (error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
    std::vector<TopicPartition> assigned;
    assigned.reserve(static_cast<std::size_t>(partitions->cnt));
    for (int i = 0; i < partitions->cnt; ++i) {
      assigned.push_back({partitions->elems[i].topic, partitions->elems[i].partition});
    }
    if (const Status status = consumer.Assign(assigned); !status.ok()) {
      LogError("kafka", "assignment failed", {{"reason", status.message()}});
      consumer.Unassign();
    }
  } else {
    if (error != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS && error != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
      LogWarning("kafka", "rebalance failed", {{"reason", rd_kafka_err2str(error)}});
    }
    consumer.Unassign();
  }
  rd_kafka_yield(rk);  // lets Poll() return the change now
}

}  // namespace freshet::kafka
