// A recommender in C++ that asks without HTTP: it follows the changelog in its own process and calls RecallService.
//
//   recall_example DIRECTORY [SNAPSHOTS]
//
// DIRECTORY keeps what was followed: the next start goes on from there. An empty one begins with the newest snapshot in
// SNAPSHOTS, where that is given. The changelog is here a few records in the embedded broker; yours is what `freshet
// run` publishes: then connect to your broker, with the space id and the dimension of your model (/v1/status has both).
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "freshet/ingest/kafka.h"
#include "freshet/query/filter_text.h"
#include "freshet/query/follow_stage.h"
#include "freshet/query/recall_service.h"
#include "freshet/store/applier.h"
#include "freshet/store/changelog.h"
#include "freshet/store/index_files.h"
#include "freshet/store/restore.h"

namespace {

using freshet::Result;
using freshet::Status;

constexpr auto kBrokerTimeout = std::chrono::seconds(30);
constexpr std::int64_t kWrittenMs = 1'700'000'000'000;
constexpr int kDim = 2;

struct FollowerOptions {
  std::string directory;
  std::string snapshots;  // empty: none
  std::string bootstrap_servers;
  std::string space_id;
  int dim = 0;
};

// Snapshot and changelog -> store and index -> answers. Members are in order of construction.
class Follower {
 public:
  static Result<std::unique_ptr<Follower>> Start(const FollowerOptions& options) {
    auto follower = std::make_unique<Follower>();
    FRESHET_TRY(follower->OpenStore(options));
    FRESHET_TRY(follower->Follow(options));
    return follower;
  }
  ~Follower() {
    if (!follow_) return;
    follow_->Stop();   // closes the queue ...
    applier_->Join();  // ... which is applied to its end
  }
  // Any number of threads may ask. It answers while it follows.
  [[nodiscard]] const freshet::RecallService& recall() const { return *recall_; }

 private:
  Status OpenStore(const FollowerOptions& options) {
    freshet::StoreOptions store;
    store.directory = options.directory;
    store.space_id = options.space_id;
    store.dim = options.dim;
    std::unique_ptr<freshet::SnapshotRepository> snapshots;
    if (!options.snapshots.empty()) snapshots = freshet::OpenLocalRepository(options.snapshots);
    FRESHET_ASSIGN(freshet::OpenedStore opened,
                   freshet::OpenOrRestore(store, snapshots.get(), /*follower=*/true, /*damaged=*/false, {}, {}));
    store_ = std::move(opened.store);
    freshet::ApplierOptions apply;
    apply.role = freshet::ApplierOptions::Role::kFollower;
    apply.outbox = false;
    applier_ = std::make_unique<freshet::Applier>(apply, store, store_.get(), &clock_, &metrics_);
    freshet::HnswOptions index;
    index.dim = store.dim;
    index.metric = store.metric;
    FRESHET_TRY(applier_->Rebuild([&] {
      return freshet::IndexFiles(store_.get())
          .Open([&](const std::string& path) { return freshet::OpenHnswIndex(path, index); },
                [&] { return freshet::MakeHnswIndex(index); });
    }));
    // With a model, LoadUserEncoder() of its package (OpenModelPackage) in place of null: then by `user` too; and its
    // LoadReranker(), where it has one, as the last argument.
    recall_ = std::make_unique<freshet::RecallService>(applier_.get(), nullptr, &clock_, &metrics_);
    return Status::Ok();
  }

  Status Follow(const FollowerOptions& options) {
    freshet::FollowOptions follow;
    follow.space_id = options.space_id;
    follow.dim = options.dim;
    freshet::ConsumerOptions consumer;
    consumer.kafka.bootstrap_servers = options.bootstrap_servers;
    consumer.topics = {follow.vectors_topic, follow.user_events_topic};
    consumer.assign_all = true;
    FRESHET_ASSIGN(source_, freshet::OpenKafkaConsumer(
                                consumer, [this](const auto& wanted) { return applier_->Stored(wanted); }, &clock_,
                                kBrokerTimeout));
    applier_->Start(&queue_, {});
    follow_ = std::make_unique<freshet::FollowStage>(follow, source_.get(), &queue_, &clock_, &metrics_);
    follow_->Start();
    return Status::Ok();
  }

  freshet::SystemClock clock_;
  freshet::Metrics metrics_;
  std::unique_ptr<freshet::Store> store_;
  std::unique_ptr<freshet::Applier> applier_;
  std::unique_ptr<freshet::RecallService> recall_;
  std::unique_ptr<freshet::RecordSource> source_;
  freshet::BoundedQueue<freshet::EncodedBatch> queue_{64, std::size_t{64} << 20};
  std::unique_ptr<freshet::FollowStage> follow_;
};

// What an engine would have published: four films, of which one is deleted again.
Status Publish(freshet::RecordSink* changelog) {
  std::vector<freshet::OutRecord> records;
  const auto add = [&](const std::string& id, std::optional<std::string> value) {
    freshet::OutRecord& record = records.emplace_back();
    record.topic = "vectors";
    record.key = id;
    record.value = std::move(value);
    record.headers = {{freshet::kEpochHeader, "1"}, {freshet::kSequenceHeader, std::to_string(records.size())}};
  };
  const auto film = [](std::vector<float> vector, std::int64_t year) {
    freshet::ItemChange change;
    (void)freshet::PrepareVector(freshet::Metric::kCosine, kDim, vector);  // of length 1, as an encoder leaves them
    change.update.vector = std::move(vector);
    change.update.attributes = {{"category", std::string("film")}, {"year", year}};
    return freshet::EncodeItemValue(change, "example");
  };
  add("alien", film({1, 0.1F}, 1979));
  add("aliens", film({1, 0.2F}, 1986));
  add("alien3", film({1, 0.3F}, 1992));
  add("prometheus", film({0.5F, 1}, 2012));
  add("aliens", std::nullopt);
  // "Everything up to then is before me", in each partition.
  for (const char* topic : {"vectors", "user-events"}) {
    add(std::string(freshet::kProgressKey), freshet::EncodeProgressValue({kWrittenMs, "example"}));
    records.back().topic = topic;
    records.back().headers[1].second = "5";
  }
  return changelog->Send(records, kBrokerTimeout);
}

Status Run(const FollowerOptions& asked) {
  FollowerOptions options = asked;
  FRESHET_ASSIGN(const std::unique_ptr<freshet::MockBroker> broker, freshet::StartMockBroker());
  for (const char* topic : {"vectors", "user-events"}) FRESHET_TRY(broker->CreateTopic(topic, 1));
  options.bootstrap_servers = broker->bootstrap_servers();
  freshet::KafkaOptions kafka;
  kafka.bootstrap_servers = options.bootstrap_servers;
  FRESHET_ASSIGN(const std::unique_ptr<freshet::KafkaProducer> producer, freshet::OpenKafkaProducer(kafka));
  FRESHET_TRY(Publish(producer.get()));

  FRESHET_ASSIGN(const std::unique_ptr<Follower> follower, Follower::Start(options));
  const freshet::RecallService& recall = follower->recall();
  freshet::RecallRequest request;
  request.item = "alien";
  request.k = 10;
  // Read your own writes: waits until everything up to then is in the answer, at most so long.
  request.min_as_of_ms = kWrittenMs;
  request.timeout_ms = 30'000;
  request.with_attributes = true;
  // As people write them; or made by the functions of freshet/store/filter.h.
  FRESHET_ASSIGN(const std::string json, freshet::FilterTextToJson("category = \"film\" and year >= 1980"));
  FRESHET_ASSIGN(const auto document, freshet::ParseJson(json));
  FRESHET_ASSIGN(request.filter, freshet::ParseFilter(*document));
  FRESHET_ASSIGN(const freshet::RecallResponse answer, recall.Recall(request));
  std::printf("like alien:");
  for (const freshet::RecallHit& hit : answer.results) {
    const auto* year = std::get_if<std::int64_t>(freshet::FindAttribute(hit.attributes, "year"));
    std::printf(" %s (%lld, %.3f)", hit.id.c_str(), year != nullptr ? static_cast<long long>(*year) : 0,
                static_cast<double>(hit.score));
  }
  std::printf("; index version %llu, model %s\n", static_cast<unsigned long long>(answer.index_version),
              answer.model_version.c_str());
  return Status::Ok();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    (void)std::fprintf(stderr, "usage: recall_example DIRECTORY [SNAPSHOTS]\n");
    return 2;
  }
  FollowerOptions options;
  options.directory = argv[1];
  options.snapshots = argc == 3 ? argv[2] : "";
  options.space_id = "example";
  options.dim = kDim;
  const Status status = Run(options);
  if (!status.ok()) (void)std::fprintf(stderr, "recall_example: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
