#include "freshet/deploy/sidecar.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "freshet/core/log.h"
#include "freshet/core/queue.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/follow_stage.h"
#include "log_position.h"
#include "node.h"

namespace freshet {
namespace {

constexpr auto kConnectTimeout = std::chrono::seconds(30);
// With a state of its own it answers, whatever becomes of Kafka; so it does not wait for long.
constexpr auto kFirstConnect = std::chrono::seconds(5);
constexpr auto kStopCheck = std::chrono::milliseconds(50);
constexpr std::int64_t kRetryUs = 2'000'000;

class SidecarImpl final : public Sidecar {
 public:
  explicit SidecarImpl(const Config& config)
      : config_(config), encoded_(config.queue_max_batches, config.queue_max_bytes) {}
  ~SidecarImpl() override {
    if (const Status status = Stop(); !status.ok()) LogError("sidecar", "stop", {{"reason", status.ToString()}});
  }

  Status Open(const std::function<void(double)>& rebuild_progress) {
    FRESHET_ASSIGN(node_, OpenWhereTheLogIs(config_, rebuild_progress, &forgotten_));
    const bool has_state = node_->applier->sequence() > 0;
    auto source = Connect(has_state ? kFirstConnect : kConnectTimeout);
    if (!source.ok() && (!has_state || source.status().category() != Category::kTransient)) return source.status();
    started_ = true;
    node_->applier->Start(&encoded_, {});
    if (source.ok()) {
      Follow(std::move(*source));
    } else {
      LogWarning("sidecar", "answers from what it has; it follows as soon as Kafka can be reached",
                 {{"reason", source.status().message()}});
      connector_ = std::thread([this] { ConnectLater(); });
    }
    node_->StartAuditing(config_.audit_interval_seconds);
    return node_->Serve(
        config_, "sidecar", [this] { return Readiness(); }, &stopping_);
  }

  [[nodiscard]] Status status() const override {
    if (!started_) return Status::Ok();
    const Status applying = node_->applier->status();
    if (!applying.ok()) return applying;
    const std::lock_guard lock(mu_);
    if (!failed_.ok()) return failed_;
    return follow_ == nullptr ? Status::Ok() : follow_->status();
  }

  Status Stop() override {
    if (!started_) return Status::Ok();
    stopping_ = true;
    if (connector_.joinable()) connector_.join();
    node_->StopAuditing();
    if (follow_ != nullptr) {
      follow_->Stop();
      if (follow_->lost_log()) RememberLoss(config_, *node_, follow_->status());
    }
    encoded_.Close();
    node_->applier->Join();
    node_->StopServing();
    const Status first_failure = status();
    started_ = false;
    FRESHET_TRY(node_->Close());
    return first_failure;
  }

  [[nodiscard]] std::string http_address() const override { return node_->http ? node_->http->address() : ""; }
  [[nodiscard]] const Applier& applier() const override { return *node_->applier; }
  [[nodiscard]] const Store& store() const override { return *node_->store; }
  [[nodiscard]] const RecallService& recall() const override { return *node_->recall; }

 private:
  [[nodiscard]] Status Readiness() const {
    if (Status now = status(); !now.ok()) return now;
    const std::lock_guard lock(mu_);
    return follow_ == nullptr ? Unavailable("Kafka could not be reached yet: nothing is followed") : Status::Ok();
  }

  Result<std::unique_ptr<RecordSource>> Connect(std::chrono::milliseconds timeout) {
    ConsumerOptions consumer;
    consumer.kafka = config_.kafka;
    consumer.topics = {config_.publisher.vectors_topic, config_.publisher.user_events_topic};
    consumer.assign_all = true;
    consumer.ask_ends = true;
    const auto stored = [this](const std::vector<TopicPartition>& wanted) {
      StoredPositions positions = node_->applier->Stored(wanted);
      for (const TopicPartition& partition : forgotten_) positions.erase(partition);
      return positions;
    };
    return OpenKafkaConsumer(consumer, stored, &node_->clock, timeout);
  }

  void Follow(std::unique_ptr<RecordSource> source) {
    FollowOptions options;
    options.vectors_topic = config_.publisher.vectors_topic;
    options.user_events_topic = config_.publisher.user_events_topic;
    options.space_id = node_->applier->space_id();
    options.dim = node_->applier->dim();
    options.linger_ms = config_.ingest.linger_ms;
    const std::lock_guard lock(mu_);
    source_ = std::move(source);
    follow_ = std::make_unique<FollowStage>(options, source_.get(), &encoded_, &node_->clock, &node_->metrics);
    follow_->Start();
  }

  // Until Kafka is there, or it turns out that the log cannot be followed from here. Then the process ends: the next
  // start restores what can.
  void ConnectLater() {
    std::int64_t next_us = 0;
    while (!stopping_) {
      if (node_->clock.MonotonicUs() < next_us) {
        std::this_thread::sleep_for(kStopCheck);
        continue;
      }
      next_us = node_->clock.MonotonicUs() + kRetryUs;
      const auto lost = FindLoss(config_, *node_);
      auto source = lost ? FailedPrecondition(lost->why) : Connect(kFirstConnect);
      if (source.ok()) return Follow(std::move(*source));
      if (source.status().category() == Category::kTransient) continue;
      const std::lock_guard lock(mu_);
      failed_ = source.status();
      return;
    }
  }

  const Config config_;
  std::unique_ptr<Node> node_;
  std::vector<TopicPartition> forgotten_;  // read from where the log begins, whatever is stored
  std::atomic<bool> stopping_{false};
  bool started_ = false;
  BoundedQueue<EncodedBatch> encoded_;
  std::thread connector_;
  mutable std::mutex mu_;
  // Guarded by mu_; set once, by Open() or by the connector, whose end Stop() awaits:
  std::unique_ptr<RecordSource> source_;
  std::unique_ptr<FollowStage> follow_;
  Status failed_;
};

}  // namespace

Result<std::unique_ptr<Sidecar>> Sidecar::Start(const Config& config,
                                                const std::function<void(double)>& rebuild_progress) {
  auto sidecar = std::make_unique<SidecarImpl>(config);
  FRESHET_TRY(sidecar->Open(rebuild_progress));
  return std::unique_ptr<Sidecar>(std::move(sidecar));
}

}  // namespace freshet
