#include "freshet/deploy/engine.h"

#include <atomic>
#include <chrono>

#include "changelog_watch.h"
#include "freshet/core/log.h"
#include "freshet/core/queue.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/encode_stage.h"
#include "freshet/ingest/ingest_stage.h"
#include "freshet/ingest/kafka.h"
#include "node.h"
#include "topic_checks.h"

namespace freshet {
namespace {

constexpr auto kConnectTimeout = std::chrono::seconds(15);
constexpr auto kAskTimeout = std::chrono::seconds(5);
constexpr int kDrainOutboxMs = 5'000;

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(const Config& config)
      : config_(config),
        events_(config.queue_max_batches, config.queue_max_bytes),
        encoded_(config.queue_max_batches, config.queue_max_bytes) {}
  ~EngineImpl() override {
    if (const Status status = Stop(); !status.ok()) LogError("engine", "stop", {{"reason", status.ToString()}});
  }

  Status Open(const std::function<void(double)>& rebuild_progress);
  [[nodiscard]] Status status() const override;
  Status Stop() override;
  [[nodiscard]] std::string http_address() const override { return node_->http ? node_->http->address() : ""; }
  [[nodiscard]] const Applier& applier() const override { return *node_->applier; }
  [[nodiscard]] const Store& store() const override { return *node_->store; }
  [[nodiscard]] const RecallService& recall() const override { return *node_->recall; }

 private:
  Status CreateMissingTopics();
  Result<IngestStage::Decoders> MakeDecoders() const;
  [[nodiscard]] ConsumerOptions Consumer() const;
  [[nodiscard]] SnapshotContext Context() const;
  void Own(const std::vector<TopicPartition>& partitions);
  [[nodiscard]] Status Readiness() const;

  const Config config_;
  std::unique_ptr<Node> node_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> owns_{false};  // any partition
  bool started_ = false;
  std::unique_ptr<SchemaRegistry> registry_;  // null without one; the decoders of ingest_ use it
  std::unique_ptr<KafkaProducer> producer_;
  std::unique_ptr<KafkaProducer> letter_producer_;
  std::unique_ptr<DeadLetterQueue> dead_letters_;
  std::unique_ptr<RecordSource> source_;
  BoundedQueue<EventBatch> events_;
  BoundedQueue<EncodedBatch> encoded_;
  std::unique_ptr<IngestStage> ingest_;
  std::unique_ptr<EncodeStage> encode_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<ChangelogWatch> watch_;
};

Status EngineImpl::CreateMissingTopics() {
  std::vector<NewTopic> topics;
  if (config_.create_topics) {
    topics.push_back({config_.items.name, config_.items.partitions, /*compact=*/true});
    topics.push_back({config_.interactions.name, config_.interactions.partitions, false});
    if (config_.users) topics.push_back({config_.users->name, config_.users->partitions, /*compact=*/true});
    if (!config_.dead_letters.topic.empty()) topics.push_back({config_.dead_letters.topic, 1, false});
  }
  if (config_.changelog) {
    // Ours, so we make them, whatever `topics.create` says of the producers' topics.
    topics.push_back({config_.publisher.vectors_topic, config_.changelog_partitions, /*compact=*/true});
    topics.push_back(
        {config_.publisher.user_events_topic, config_.changelog_partitions, false, UserEventsRetentionMs(config_)});
  }
  if (topics.empty()) return Status::Ok();
  return CreateTopics(config_.kafka, topics, kConnectTimeout).Prefixed("Kafka at " + config_.kafka.bootstrap_servers);
}

SnapshotContext EngineImpl::Context() const {
  SnapshotContext context;
  context.version = FRESHET_VERSION;
  if (node_->package) {
    context.model = StrCat(node_->package->manifest().name, " ", node_->package->manifest().version);
    context.model_directory = config_.encoder.package;
    context.model_files = node_->package->files();
  }
  if (!config_.changelog) return context;
  context.vectors_topic = config_.publisher.vectors_topic;
  context.user_events_topic = config_.publisher.user_events_topic;
  context.changelog_ends = [this] {
    return ReadEnds(config_.kafka, {config_.publisher.vectors_topic, config_.publisher.user_events_topic},
                    &node_->clock, kConnectTimeout);
  };
  return context;
}

Result<IngestStage::Decoders> EngineImpl::MakeDecoders() const {
  DecodeLimits limits;
  if (config_.encoder.passthrough) limits.vector_dim = config_.encoder.dim;
  IngestStage::Decoders decoders;
  const auto add = [&](TopicRole role, const TopicConfig& topic) -> Status {
    FormatOptions format = topic.format;
    format.registry = registry_.get();
    FRESHET_ASSIGN(decoders[topic.name], MakeDecoder(role, format, topic.schema, limits));
    return Status::Ok();
  };
  FRESHET_TRY(add(TopicRole::kItems, config_.items));
  limits.vector_dim = 0;
  FRESHET_TRY(add(TopicRole::kInteractions, config_.interactions));
  if (config_.users) FRESHET_TRY(add(TopicRole::kUsers, *config_.users));
  if (decoders.size() != (config_.users ? 3U : 2U)) return ConfigError("two of `topics` have the same name");
  return decoders;
}

ConsumerOptions EngineImpl::Consumer() const {
  ConsumerOptions consumer;
  consumer.kafka = config_.kafka;
  consumer.topics = TopicsOf(config_);
  consumer.group_id = config_.group_id;
  consumer.group_instance_id = config_.group_instance_id;
  consumer.assign_all = config_.assign_all;
  consumer.assign = config_.assign;
  consumer.reread_lost = true;
  consumer.ask_ends = true;
  consumer.session_timeout_ms = config_.session_timeout_ms;
  return consumer;
}

Status EngineImpl::Open(const std::function<void(double)>& rebuild_progress) {
  if (!config_.registry.url.empty()) {
    FRESHET_ASSIGN(registry_, OpenSchemaRegistry(config_.registry));
  }
  FRESHET_ASSIGN(IngestStage::Decoders decoders, MakeDecoders());
  FRESHET_ASSIGN(node_, Node::Open(
                            config_, ApplierOptions::Role::kEngine,
                            [this] { return CheckLogIsComplete(config_, kConnectTimeout); }, rebuild_progress));
  FRESHET_TRY(CreateMissingTopics());
  (void)WarnOfShortRetention(config_, kAskTimeout);
  // A changelog record may be late, but none may give up while a later one of its partition goes through: followers
  // order by sequence and would take the one sent again for an old one. So no record ever expires in the producer's
  // queue, which is bounded; who waits for it has a timeout of its own.
  KafkaOptions producer = config_.kafka;
  producer.librdkafka_options["message.timeout.ms"] = "0";
  FRESHET_ASSIGN(producer_, OpenKafkaProducer(producer));
  FRESHET_ASSIGN(letter_producer_, OpenDeadLetterProducer(config_.kafka));
  dead_letters_ = MakeDeadLetterQueue(config_.dead_letters, letter_producer_.get(), &node_->metrics, &stopping_);
  const auto stored = [this](const std::vector<TopicPartition>& wanted) { return node_->applier->Stored(wanted); };
  FRESHET_ASSIGN(source_, OpenKafkaConsumer(Consumer(), stored, &node_->clock, kConnectTimeout));
  if (config_.changelog) {
    FRESHET_TRY(CheckChangelogIsOurs(config_, node_->store->epoch(), &node_->clock, kAskTimeout));
    watch_ = std::make_unique<ChangelogWatch>(config_, node_->store->epoch(), &node_->clock);
    publisher_ = std::make_unique<Publisher>(config_.publisher, node_->store.get(), node_->applier.get(),
                                             producer_.get(), &node_->clock, &node_->metrics);
  }
  encode_ = std::make_unique<EncodeStage>(node_->item_encoder.get(), dead_letters_.get(), &events_, &encoded_,
                                          &node_->clock, &node_->metrics);
  ingest_ = std::make_unique<IngestStage>(config_.ingest, source_.get(), std::move(decoders), dead_letters_.get(),
                                          &events_, &node_->clock, &node_->metrics);
  if (node_->repository) {
    node_->snapshotter =
        std::make_unique<Snapshotter>(config_.snapshots, Context(), node_->repository.get(), node_->store.get(),
                                      node_->applier.get(), &node_->clock, &node_->metrics);
  }
  encode_->SkipUnchanged(node_->applier.get());
  if (config_.assign_all) {
    owns_ = true;
  } else {
    // What is pinned is ours at once. In a group others may own by now what is stored here: nothing is shown before the
    // first assignment.
    std::vector<TopicPartition> pinned;
    for (const std::int32_t partition : config_.assign) pinned.push_back({config_.items.name, partition});
    Own(pinned);
  }
  ingest_->OnOwned([this](const std::vector<TopicPartition>& partitions) { Own(partitions); },
                   [this] { return source_->Owned(); });
  // From right to left, so that nobody pushes into the void.
  started_ = true;
  if (publisher_) publisher_->Start();
  if (watch_) watch_->Start();
  node_->applier->Start(&encoded_, [this](const std::vector<PartitionProgress>& progress) {
    if (publisher_) publisher_->Wake();
    source_->ReportStored(progress);
  });
  encode_->Start();
  ingest_->Start();
  if (node_->snapshotter) node_->snapshotter->Start();
  node_->StartAuditing(config_.audit_interval_seconds);
  return node_->Serve(
      config_, "engine", [this] { return Readiness(); }, &stopping_);
}

void EngineImpl::Own(const std::vector<TopicPartition>& partitions) {
  node_->applier->Own(partitions);
  owns_ = !partitions.empty();
}

Status EngineImpl::Readiness() const {
  FRESHET_TRY(status());
  return owns_ ? Status::Ok() : Unavailable("no partition is assigned to this engine, so it answers with nothing");
}

Status EngineImpl::status() const {
  if (!started_) return Status::Ok();
  for (const Status& status : {node_->applier->status(), encode_->status(), ingest_->status()}) {
    if (!status.ok()) return status;
  }
  if (watch_) FRESHET_TRY(watch_->status());
  return publisher_ ? publisher_->status() : Status::Ok();
}

Status EngineImpl::Stop() {
  if (!started_) return Status::Ok();
  stopping_ = true;
  node_->StopAuditing();
  if (watch_) watch_->Stop();
  if (node_->snapshotter) node_->snapshotter->Stop();
  node_->applier->ReleaseBackpressure();
  ingest_->Stop();
  encode_->Join();
  node_->applier->Join();
  if (publisher_) {
    publisher_->Stop(kDrainOutboxMs);
    if (!publisher_->drained()) {
      LogWarning("changelog", "stopped before all was published; the next start continues");
    }
  }
  node_->StopServing();
  const Status first_failure = status();
  started_ = false;
  if (node_->snapshotter && config_.snapshots.at_stop && first_failure.ok() && node_->snapshotter->IsBehind()) {
    (void)node_->snapshotter->Create(/*hurry=*/true);  // logged; the store holds everything anyhow
  }
  FRESHET_TRY(node_->Close());
  return first_failure;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Start(const Config& config,
                                              const std::function<void(double)>& rebuild_progress) {
  auto engine = std::make_unique<EngineImpl>(config);
  FRESHET_TRY(engine->Open(rebuild_progress));
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace freshet
