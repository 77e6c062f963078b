#include "topic_checks.h"

#include <algorithm>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"

namespace freshet {
namespace {

constexpr std::int64_t kWeekMs = 7LL * 24 * 3600 * 1000;  // Kafka's default
constexpr std::int64_t kIntervals = 4;                    // of snapshots: some may fail, and restoring takes time

}  // namespace

std::vector<std::string> TopicsOf(const Config& config) {
  std::vector<std::string> topics = {config.items.name, config.interactions.name};
  if (config.users) topics.push_back(config.users->name);
  return topics;
}

Status CheckLogIsComplete(const Config& config, std::chrono::milliseconds timeout) {
  FRESHET_ASSIGN(const auto marks, QueryWatermarks(config.kafka, TopicsOf(config), timeout));
  for (const auto& [partition, mark] : marks) {
    const bool is_read = config.assign.empty() || std::find(config.assign.begin(), config.assign.end(),
                                                            partition.partition) != config.assign.end();
    if (!is_read || mark.low == 0) continue;
    return FailedPrecondition(StrCat("no snapshot can be used, and ", partition.topic, "[", partition.partition,
                                     "] begins at offset ", mark.low,
                                     ": restore a snapshot, or empty data_dir to begin with what the log holds"));
  }
  return Status::Ok();
}

std::int64_t UserEventsNeedMs(const Config& config) {
  if (!config.changelog || config.snapshots.directory.empty()) return 0;
  return std::int64_t{config.snapshots.interval_seconds} * 1000;
}

std::int64_t UserEventsRetentionMs(const Config& config) {
  const std::int64_t need_ms = UserEventsNeedMs(config);
  return need_ms == 0 ? 0 : std::max(kWeekMs, kIntervals * need_ms);
}

bool WarnOfShortRetention(const Config& config, std::chrono::milliseconds timeout) {
  const std::int64_t need_ms = UserEventsNeedMs(config);
  if (need_ms == 0) return false;
  const std::string& topic = config.publisher.user_events_topic;
  const auto kept_ms = RetentionMs(config.kafka, topic, timeout);
  if (!kept_ms || *kept_ms >= need_ms) return false;
  LogWarning("changelog",
             "user events are kept for less time than passes between two snapshots: a sidecar that restores one misses "
             "what is gone by then; raise the topic's retention.ms, or lower snapshots.interval_seconds",
             {{"topic", topic}, {"retention.ms", StrCat(*kept_ms)}, {"snapshots_every_ms", StrCat(need_ms)}});
  return true;
}

}  // namespace freshet
