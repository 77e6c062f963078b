#include "changelog_watch.h"

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet/store/changelog.h"

namespace freshet {
namespace {

constexpr auto kTimeout = std::chrono::seconds(10);

}  // namespace

Status CheckChangelogIsOurs(const Config& config, std::uint64_t epoch, const Clock* clock,
                            std::chrono::milliseconds timeout) {
  Status newer;
  const auto look = [&](const RawRecord& record) {
    for (const auto& [key, value] : record.headers) {
      const auto number = key == kEpochHeader ? ParseInt(value) : std::nullopt;
      if (!number || *number < 0 || static_cast<std::uint64_t>(*number) <= epoch) continue;
      newer = FailedPrecondition(StrCat(
          record.topic, "[", record.partition, "] holds the changelog of a newer store (epoch ", *number,
          ", this engine's is ", epoch,
          "): sidecars drop what this engine says. Give each engine topics of its own "
          "(changelog.vectors_topic, changelog.user_events_topic); where this engine is to take the place of the "
          "other, stop that one and delete the two topics"));
    }
  };
  // Whatever else there is, a broker that is away or a topic that is made anew this moment: it is asked again.
  (void)ReadEnds(config.kafka, {config.publisher.vectors_topic, config.publisher.user_events_topic}, clock, timeout,
                 look);
  return newer;
}

void ChangelogWatch::Start() {
  thread_ = std::thread([this] { Run(); });
}

void ChangelogWatch::Stop() {
  {
    const std::lock_guard lock(mu_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

Status ChangelogWatch::status() const {
  const std::lock_guard lock(mu_);
  return status_;
}

void ChangelogWatch::Run() {
  std::unique_lock lock(mu_);
  while (!wake_.wait_for(lock, std::chrono::milliseconds(config_.changelog_check_ms), [this] { return stopping_; })) {
    lock.unlock();
    Status checked = CheckChangelogIsOurs(config_, epoch_, clock_, kTimeout);
    lock.lock();
    if (checked.ok()) continue;
    status_ = std::move(checked);
    return;
  }
}

}  // namespace freshet
