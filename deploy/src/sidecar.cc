#include "freshet/deploy/sidecar.h"

#include <atomic>
#include <chrono>

#include "freshet/core/log.h"
#include "freshet/core/queue.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/follow_stage.h"
#include "freshet/store/restore.h"
#include "node.h"

namespace freshet {
namespace {

constexpr auto kConnectTimeout = std::chrono::seconds(30);

class SidecarImpl final : public Sidecar {
 public:
  explicit SidecarImpl(const Config& config)
      : config_(config), encoded_(config.queue_max_batches, config.queue_max_bytes) {}
  ~SidecarImpl() override {
    if (const Status status = Stop(); !status.ok()) LogError("sidecar", "stop", {{"reason", status.ToString()}});
  }

  Status Open(const std::function<void(double)>& rebuild_progress) {
    FRESHET_ASSIGN(node_, Node::Open(config_, ApplierOptions::Role::kFollower, {}, rebuild_progress));
    if (FellBehind()) FRESHET_TRY(Restore(rebuild_progress));
    ConsumerOptions consumer;
    consumer.kafka = config_.kafka;
    consumer.topics = {config_.publisher.vectors_topic, config_.publisher.user_events_topic};
    consumer.assign_all = true;
    const auto stored = [this](const std::vector<TopicPartition>& wanted) { return node_->applier->Stored(wanted); };
    FRESHET_ASSIGN(source_, OpenKafkaConsumer(consumer, stored, &node_->clock, kConnectTimeout));
    FollowOptions follow;
    follow.vectors_topic = config_.publisher.vectors_topic;
    follow.user_events_topic = config_.publisher.user_events_topic;
    follow.space_id = node_->applier->space_id();
    follow.dim = node_->applier->dim();
    follow.linger_ms = config_.ingest.linger_ms;
    follow_ = std::make_unique<FollowStage>(follow, source_.get(), &encoded_, &node_->clock, &node_->metrics);
    started_ = true;
    node_->applier->Start(&encoded_, {});
    follow_->Start();
    node_->StartAuditing(config_.audit_interval_seconds);
    return node_->Serve(
        config_, "sidecar", [this] { return status(); }, &stopping_);
  }

  [[nodiscard]] Status status() const override {
    if (!started_) return Status::Ok();
    const Status applying = node_->applier->status();
    return applying.ok() ? follow_->status() : applying;
  }

  Status Stop() override {
    if (!started_) return Status::Ok();
    stopping_ = true;
    node_->StopAuditing();
    follow_->Stop();
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
  // What user-events no longer holds was missed; a snapshot of the engine has it. (The vectors topic is compacted.)
  [[nodiscard]] bool FellBehind() const {
    if (!node_->repository || !node_->restored.empty()) return false;
    const auto marks = QueryWatermarks(config_.kafka, {config_.publisher.user_events_topic}, kConnectTimeout);
    if (!marks.ok()) return false;  // told when following begins
    for (const auto& [partition, mark] : *marks) {
      const auto stored = node_->applier->StoredOffsets({partition});
      // Nothing stored: it would begin where the log begins, which is no longer its beginning.
      if ((stored.empty() ? 0 : stored.begin()->second) < mark.low) return true;
    }
    return false;
  }
  Status Restore(const std::function<void(double)>& progress) {
    LogWarning("sidecar", "was away for longer than user-events is kept: restores the newest snapshot");
    RestoreOptions options;
    options.data_dir = config_.data_dir;
    options.follower = true;
    options.space_id = node_->applier->space_id();
    options.dim = node_->applier->dim();
    options.metric = MetricName(node_->applier->metric());
    options.progress = progress;
    const std::unique_ptr<SnapshotRepository> repository = std::move(node_->repository);
    node_.reset();
    const auto restored = RestoreSnapshot(*repository, options);
    if (!restored.ok()) {
      LogWarning("sidecar", "no snapshot can be used; events of users that were missed stay missed",
                 {{"reason", restored.status().ToString()}});
    }
    FRESHET_ASSIGN(node_, Node::Open(config_, ApplierOptions::Role::kFollower, {}, progress));
    if (restored.ok()) node_->restored = restored->manifest.id;
    return Status::Ok();
  }

  const Config config_;
  std::unique_ptr<Node> node_;
  std::atomic<bool> stopping_{false};
  bool started_ = false;
  std::unique_ptr<RecordSource> source_;
  BoundedQueue<EncodedBatch> encoded_;
  std::unique_ptr<FollowStage> follow_;
};

}  // namespace

Result<std::unique_ptr<Sidecar>> Sidecar::Start(const Config& config,
                                                const std::function<void(double)>& rebuild_progress) {
  auto sidecar = std::make_unique<SidecarImpl>(config);
  FRESHET_TRY(sidecar->Open(rebuild_progress));
  return std::unique_ptr<Sidecar>(std::move(sidecar));
}

}  // namespace freshet
