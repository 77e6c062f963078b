#include "kafka_ends.h"

#include <utility>

#include "kafka_common.h"

namespace freshet::kafka {
namespace {

// One connection to a broker answers in order, so an answer waits for the fetch before it (fetch.wait.max.ms).
constexpr int kTimeoutMs = 500;

}  // namespace

EndsAsker::~EndsAsker() {
  {
    const std::lock_guard lock(mu_);
    stop_ = true;
    asked_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void EndsAsker::Ask(std::vector<TopicPartition> partitions) {
  {
    const std::lock_guard lock(mu_);
    if (busy_ || partitions.empty()) return;
    busy_ = true;
    partitions_ = std::move(partitions);
    asked_.notify_one();
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

std::optional<Ends> EndsAsker::Take() {
  const std::lock_guard lock(mu_);
  return std::exchange(answer_, std::nullopt);
}

void EndsAsker::Run() {
  std::unique_lock lock(mu_);
  while (true) {
    asked_.wait(lock, [&] { return busy_ || stop_; });
    if (stop_) return;
    const std::vector<TopicPartition> partitions = std::exchange(partitions_, {});
    lock.unlock();
    Ends ends = Request(partitions);
    lock.lock();
    if (!ends.offsets.empty()) answer_ = std::move(ends);
    busy_ = false;
  }
}

Ends EndsAsker::Request(const std::vector<TopicPartition>& partitions) const {
  const PartitionListPtr list(rd_kafka_topic_partition_list_new(static_cast<int>(partitions.size())));
  for (const TopicPartition& partition : partitions) {
    rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition)->offset =
        RD_KAFKA_OFFSET_END;
  }
  Ends ends;
  ends.asked_ms = clock_->WallMs();  // before it is sent: what is acknowledged later may be missing
  if (rd_kafka_offsets_for_times(rk_, list.get(), kTimeoutMs) != RD_KAFKA_RESP_ERR_NO_ERROR) return ends;
  for (int i = 0; i < list->cnt; ++i) {
    const rd_kafka_topic_partition_t& one = list->elems[i];
    if (one.err == RD_KAFKA_RESP_ERR_NO_ERROR && one.offset >= 0) ends.offsets[{one.topic, one.partition}] = one.offset;
  }
  return ends;
}

}  // namespace freshet::kafka
