#include "freshet/deploy/sidecar.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "freshet/core/log.h"
#include "freshet/core/queue.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet/query/follow_stage.h"
#include "log_position.h"
#include "node.h"
#include "space_move.h"

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
      : given_(config), config_(WithMovedModel(config)), encoded_(config.queue_max_batches, config.queue_max_bytes) {}
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
    }
    watcher_ = std::thread([this] { Watch(); });
    node_->why_behind = [this] {
      const std::lock_guard lock(mu_);
      return not_moved_;
    };
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
    // In another space it only waits.
    return follow_ == nullptr || follow_->other_space() ? Status::Ok() : follow_->status();
  }

  Status Stop() override {
    if (!started_) return Status::Ok();
    stopping_ = true;
    if (watcher_.joinable()) watcher_.join();
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

  [[nodiscard]] bool wants_restart() const override { return wants_restart_; }
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
      for (const auto& [partition, row] : positions) stored_epoch_ = std::max(stored_epoch_.load(), row.epoch);
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
    options.epoch = EpochOfSpace();
    options.linger_ms = config_.ingest.linger_ms;
    const std::lock_guard lock(mu_);
    source_ = std::move(source);
    follow_ = std::make_unique<FollowStage>(options, source_.get(), &encoded_, &node_->clock, &node_->metrics);
    follow_->Start();
  }

  // The newest store that is known to speak of our space: as this state has it, else as the log ends. A log that was
  // begun by an older model holds what that one said until it is compacted.
  std::uint64_t EpochOfSpace() {
    if (stored_epoch_ > 0) return stored_epoch_;
    const auto end = SpaceOfLog(config_, &node_->clock);
    return end && end->space_id == node_->applier->space_id() ? end->epoch : 0;
  }

  // While it runs: a connection that could not be made at start, then whether the log has gone on in another space.
  void Watch() {
    if (!Connected()) ConnectLater();
    Gauge& waits = node_->metrics.GetGauge(
        "freshet_other_space", "1: the engine has changed its model, and answers are still of the space before");
    std::int64_t next_us = 0;
    for (; !stopping_ && !wants_restart_; std::this_thread::sleep_for(kStopCheck)) {
      if (!OtherSpace() || node_->clock.MonotonicUs() < next_us) continue;
      next_us = node_->clock.MonotonicUs() + kRetryUs;
      waits.Set(1);
      std::string why = TryToMove();
      if (why.empty()) {
        wants_restart_ = true;
        return;
      }
      const std::lock_guard lock(mu_);
      if (node_->applier->catalog().live() == 0) {  // and nothing to answer with meanwhile
        failed_ = FailedPrecondition(why);
        return;
      }
      if (why != not_moved_) LogWarning("sidecar", why);
      not_moved_ = std::move(why);
    }
  }

  // Empty, or why not yet. Where the log ends counts: it may have gone on more than once, and come back.
  std::string TryToMove() {
    const auto end = SpaceOfLog(config_, &node_->clock);
    const std::string& ours = node_->applier->space_id();
    if (!end)
      return StrCat("the engine has changed its model, and where the log ends cannot be seen; answers are of ", ours);
    if (end->space_id == ours) {
      LogInfo("sidecar", "the log is of its embedding space: what it met was left by an older model");
      return "";
    }
    const Status prepared =
        node_->repository == nullptr
            ? Unavailable(
                  "without snapshots.directory it cannot go there: start it again with the package of that space "
                  "and an empty data_dir")
            : PrepareMove(given_, *node_->repository, end->space_id, node_->applier->as_of_ms());
    if (!prepared.ok()) {
      return StrCat("the engine has moved to embedding space ", end->space_id, ", answers are of ", ours,
                    " as it was then: ", prepared.message());
    }
    LogInfo("sidecar", "moves to the engine's embedding space", {{"from", ours}, {"to", end->space_id}});
    return "";
  }

  [[nodiscard]] bool Connected() const {
    const std::lock_guard lock(mu_);
    return follow_ != nullptr;
  }
  [[nodiscard]] bool OtherSpace() const {
    const std::lock_guard lock(mu_);
    return follow_ != nullptr && follow_->other_space().has_value();
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

  const Config given_;
  const Config config_;  // with the model that the last move left
  std::unique_ptr<Node> node_;
  std::atomic<std::uint64_t> stored_epoch_{0};  // the newest of what the state covers
  std::vector<TopicPartition> forgotten_;       // read from where the log begins, whatever is stored
  std::atomic<bool> stopping_{false};
  bool started_ = false;
  BoundedQueue<EncodedBatch> encoded_;
  std::atomic<bool> wants_restart_{false};
  std::thread watcher_;
  mutable std::mutex mu_;
  // Guarded by mu_; set once, by Open() or by the watcher, whose end Stop() awaits:
  std::unique_ptr<RecordSource> source_;
  std::unique_ptr<FollowStage> follow_;
  Status failed_;
  std::string not_moved_;  // why it is still in the space before; empty: it is in the engine's
};

}  // namespace

Result<std::unique_ptr<Sidecar>> Sidecar::Start(const Config& config,
                                                const std::function<void(double)>& rebuild_progress) {
  auto sidecar = std::make_unique<SidecarImpl>(config);
  FRESHET_TRY(sidecar->Open(rebuild_progress));
  return std::unique_ptr<Sidecar>(std::move(sidecar));
}

}  // namespace freshet
