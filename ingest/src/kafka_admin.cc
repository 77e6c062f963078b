#include <algorithm>
#include <set>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "kafka_common.h"

namespace freshet {
namespace {

using kafka::Destroyer;
using std::chrono::milliseconds;

using AdminOptionsPtr = std::unique_ptr<rd_kafka_AdminOptions_t, Destroyer<rd_kafka_AdminOptions_destroy>>;
using NewTopicPtr = std::unique_ptr<rd_kafka_NewTopic_t, Destroyer<rd_kafka_NewTopic_destroy>>;

using ResourcePtr = std::unique_ptr<rd_kafka_ConfigResource_t, Destroyer<rd_kafka_ConfigResource_destroy>>;

constexpr int kAskMs = 500;
constexpr std::int64_t kDefaultTombstonesMs = 24LL * 3600 * 1000;

int Left(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::max<std::int64_t>(left, 1));
}

class Admin {
 public:
  static Result<std::unique_ptr<Admin>> Open(const KafkaOptions& options) {
    FRESHET_ASSIGN(kafka::ConfPtr conf, kafka::MakeConf(options, {}, {}));
    std::unique_ptr<Admin> admin(new Admin());
    rd_kafka_conf_set_opaque(conf.get(), admin.get());
    rd_kafka_conf_set_error_cb(conf.get(), OnError);
    FRESHET_ASSIGN(admin->rk_, kafka::NewHandle(RD_KAFKA_PRODUCER, std::move(conf)));
    return admin;
  }
  ~Admin() {
    if (rk_ != nullptr) kafka::DestroyBounded(rk_, 0, milliseconds(5000));
  }
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  // The names of all topics: a question for one by name may create it, with partitions of the broker's choosing.
  Result<std::set<std::string>> Topics(std::chrono::steady_clock::time_point deadline) {
    const rd_kafka_metadata_t* raw = nullptr;
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__TIMED_OUT;
    // In parts, so that a broker that turns us away is not asked until the deadline.
    do {
      error = rd_kafka_metadata(rk_, /*all_topics=*/1, nullptr, &raw, std::min(Left(deadline), kAskMs));
      if (error != RD_KAFKA_RESP_ERR_NO_ERROR) (void)rd_kafka_poll(rk_, 0);  // serves OnError: why
    } while (error != RD_KAFKA_RESP_ERR_NO_ERROR && !turned_away_ && std::chrono::steady_clock::now() < deadline);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return Unavailable(
          StrCat("list of topics: ", rd_kafka_err2str(error), last_error_.empty() ? "" : " (" + last_error_ + ")"));
    }
    const kafka::MetadataPtr metadata(raw);
    std::set<std::string> names;
    for (int i = 0; i < metadata->topic_cnt; ++i) {
      if (metadata->topics[i].err == RD_KAFKA_RESP_ERR_NO_ERROR) names.insert(metadata->topics[i].topic);
    }
    return names;
  }

  Status AddWatermarks(const std::string& topic, std::chrono::steady_clock::time_point deadline,
                       std::map<TopicPartition, Watermarks>* all) {
    FRESHET_ASSIGN(const std::int32_t partitions, kafka::CountPartitions(rk_, topic, milliseconds(Left(deadline))));
    for (std::int32_t partition = 0; partition < partitions; ++partition) {
      Watermarks marks;
      const rd_kafka_resp_err_t error =
          rd_kafka_query_watermark_offsets(rk_, topic.c_str(), partition, &marks.low, &marks.high, Left(deadline));
      if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return Unavailable(StrCat("offsets of ", topic, "[", partition, "]: ", rd_kafka_err2str(error)));
      }
      (*all)[{topic, partition}] = marks;
    }
    return Status::Ok();
  }

  // Nothing: not compacted.
  std::optional<std::int64_t> TombstoneRetentionMs(const std::string& topic,
                                                   std::chrono::steady_clock::time_point deadline) {
    constexpr std::int64_t kDefaultMs = kDefaultTombstonesMs;
    const auto config = Describe(topic, deadline);
    if (!config) return kDefaultMs;
    if (!Keeps(*config, "compact")) return std::nullopt;
    const auto found = config->find("delete.retention.ms");
    return found == config->end() ? kDefaultMs : ParseInt(found->second).value_or(kDefaultMs);
  }

  // Nothing: for ever, or it is not known.
  std::optional<std::int64_t> RetentionMs(const std::string& topic, std::chrono::steady_clock::time_point deadline) {
    const auto config = Describe(topic, deadline);
    if (!config || !Keeps(*config, "delete")) return std::nullopt;
    const auto found = config->find("retention.ms");
    const auto ms = found == config->end() ? std::nullopt : ParseInt(found->second);
    return ms && *ms >= 0 ? ms : std::nullopt;
  }

  Status Create(const NewTopic& topic, std::chrono::steady_clock::time_point deadline) {
    if (IsMockCluster(deadline)) return CreateByAsking(topic, deadline);
    char error[256] = "";
    const NewTopicPtr wanted(
        rd_kafka_NewTopic_new(topic.name.c_str(), topic.partitions, /*replication_factor=*/-1, error, sizeof(error)));
    if (wanted == nullptr) return InvalidArgument(StrCat("topic ", topic.name, ": ", error));
    if (topic.compact &&
        rd_kafka_NewTopic_set_config(wanted.get(), "cleanup.policy", "compact") != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return Internal("cleanup.policy could not be set");
    }
    if (topic.retention_ms > 0 &&
        rd_kafka_NewTopic_set_config(wanted.get(), "retention.ms", StrCat(topic.retention_ms).c_str()) !=
            RD_KAFKA_RESP_ERR_NO_ERROR) {
      return Internal("retention.ms could not be set");
    }
    const AdminOptionsPtr admin_options(rd_kafka_AdminOptions_new(rk_, RD_KAFKA_ADMIN_OP_CREATETOPICS));
    for (const auto set : {rd_kafka_AdminOptions_set_request_timeout, rd_kafka_AdminOptions_set_operation_timeout}) {
      if (set(admin_options.get(), Left(deadline), error, sizeof(error)) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return Internal(error);
      }
    }
    const kafka::QueuePtr queue(rd_kafka_queue_new(rk_));
    rd_kafka_NewTopic_t* topics[] = {wanted.get()};
    rd_kafka_CreateTopics(rk_, topics, 1, admin_options.get(), queue.get());
    const kafka::EventPtr event(rd_kafka_queue_poll(queue.get(), Left(deadline) + 500));
    if (event == nullptr) return Unavailable(StrCat("topic ", topic.name, ": the broker does not answer"));
    const rd_kafka_resp_err_t failed = rd_kafka_event_error(event.get());
    if (failed == RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE) return CreateByAsking(topic, deadline);
    if (failed != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return Unavailable(StrCat("topic ", topic.name, ": ", rd_kafka_event_error_string(event.get())));
    }
    const rd_kafka_CreateTopics_result_t* result = rd_kafka_event_CreateTopics_result(event.get());
    std::size_t count = 0;
    const rd_kafka_topic_result_t** outcomes = rd_kafka_CreateTopics_result_topics(result, &count);
    for (std::size_t i = 0; i < count; ++i) {
      const rd_kafka_resp_err_t outcome = rd_kafka_topic_result_error(outcomes[i]);
      if (outcome == RD_KAFKA_RESP_ERR_NO_ERROR || outcome == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) continue;
      if (outcome == RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION) return CreateByAsking(topic, deadline);
      const char* text = rd_kafka_topic_result_error_string(outcomes[i]);
      return kafka::ToStatus(outcome, StrCat("topic ", topic.name, " (", text != nullptr ? text : "", ")"));
    }
    return Status::Ok();
  }

 private:
  using TopicConfig = std::map<std::string, std::string>;
  static bool Keeps(const TopicConfig& config, std::string_view policy) {
    const auto found = config.find("cleanup.policy");
    return found != config.end() && found->second.find(policy) != std::string::npos;
  }

  // A topic's configuration, by name; nothing: the broker does not say.
  std::optional<TopicConfig> Describe(const std::string& topic, std::chrono::steady_clock::time_point deadline) {
    if (IsMockCluster(deadline)) return std::nullopt;
    const ResourcePtr resource(rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.c_str()));
    const AdminOptionsPtr admin_options(rd_kafka_AdminOptions_new(rk_, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS));
    char error[256] = "";
    (void)rd_kafka_AdminOptions_set_request_timeout(admin_options.get(), Left(deadline), error, sizeof(error));
    const kafka::QueuePtr queue(rd_kafka_queue_new(rk_));
    rd_kafka_ConfigResource_t* resources[] = {resource.get()};
    rd_kafka_DescribeConfigs(rk_, resources, 1, admin_options.get(), queue.get());
    const kafka::EventPtr event(rd_kafka_queue_poll(queue.get(), Left(deadline) + 500));
    if (event == nullptr || rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR) return std::nullopt;
    std::size_t count = 0;
    const rd_kafka_ConfigResource_t** answers =
        rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event.get()), &count);
    if (count != 1 || rd_kafka_ConfigResource_error(answers[0]) != RD_KAFKA_RESP_ERR_NO_ERROR) return std::nullopt;
    const rd_kafka_ConfigEntry_t** entries = rd_kafka_ConfigResource_configs(answers[0], &count);
    TopicConfig config;
    for (std::size_t i = 0; i < count; ++i) {
      const char* value = rd_kafka_ConfigEntry_value(entries[i]);
      if (value != nullptr) config[rd_kafka_ConfigEntry_name(entries[i])] = value;
    }
    return config;
  }

  // librdkafka's mock cluster has no admin API and names a controller that does not exist, for which librdkafka would
  // wait until the deadline. It gives itself away by its cluster id.
  bool IsMockCluster(std::chrono::steady_clock::time_point deadline) {
    char* id = rd_kafka_clusterid(rk_, Left(deadline));
    const bool mock = id != nullptr && std::string_view(id).substr(0, 11) == "mockCluster";
    if (id != nullptr) rd_kafka_mem_free(rk_, id);
    return mock;
  }

  Admin() = default;
  static void OnError(rd_kafka_t*, int code, const char* reason, void* self) {
    auto& admin = *static_cast<Admin*>(self);
    const auto error = static_cast<rd_kafka_resp_err_t>(code);
    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && !admin.last_error_.empty()) return;
    admin.last_error_ = reason != nullptr ? reason : rd_kafka_err2str(error);
    admin.turned_away_ = admin.turned_away_ || kafka::IsRefusal(error);
  }

  // A broker without the admin API (the embedded one) creates a topic when its metadata is asked for, if at all.
  Status CreateByAsking(const NewTopic& topic, std::chrono::steady_clock::time_point deadline) {
    const Result<std::int32_t> partitions = kafka::CountPartitions(rk_, topic.name, milliseconds(Left(deadline)));
    if (!partitions.ok()) return partitions.status();
    if (*partitions != topic.partitions) {
      LogWarning("kafka", "the broker has no admin API and chose the partition count itself",
                 {{"topic", topic.name}, {"partitions", StrCat(*partitions)}, {"wanted", StrCat(topic.partitions)}});
    }
    return Status::Ok();
  }

  rd_kafka_t* rk_ = nullptr;
  std::string last_error_;
  bool turned_away_ = false;
};

}  // namespace

Result<std::map<TopicPartition, Watermarks>> QueryWatermarks(const KafkaOptions& options,
                                                             const std::vector<std::string>& topics,
                                                             milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  FRESHET_ASSIGN(const std::unique_ptr<Admin> admin, Admin::Open(options));
  std::map<TopicPartition, Watermarks> all;
  for (const std::string& topic : topics) FRESHET_TRY(admin->AddWatermarks(topic, deadline, &all));
  return all;
}

Result<std::vector<PartitionProgress>> ReadEnds(const KafkaOptions& options, const std::vector<std::string>& topics,
                                                const Clock* clock, milliseconds timeout,
                                                const std::function<void(const RawRecord&)>& last_record) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  FRESHET_ASSIGN(const auto marks, QueryWatermarks(options, topics, timeout));
  std::map<TopicPartition, PartitionProgress> ends;
  StoredPositions last;
  for (const auto& [partition, mark] : marks) {
    ends[partition].partition = last[partition].partition = partition;
    ends[partition].next_offset = mark.high;
    last[partition].next_offset = std::max<std::int64_t>(mark.high - 1, 0);
  }
  ConsumerOptions consumer;
  consumer.kafka = options;
  consumer.topics = topics;
  consumer.assign_all = true;
  consumer.quiet = true;
  FRESHET_ASSIGN(const std::unique_ptr<RecordSource> source,
                 OpenKafkaConsumer(
                     consumer, [&](const auto&) { return last; }, clock, timeout));
  const auto all_read = [&] {
    const auto positions = source->Positions();
    return std::all_of(positions.begin(), positions.end(), [&](const PartitionProgress& position) {
      const auto end = ends.find(position.partition);
      return end == ends.end() || position.next_offset >= end->second.next_offset;
    });
  };
  while (!all_read()) {
    if (std::chrono::steady_clock::now() >= deadline) return DeadlineExceeded("reading the ends of the changelog");
    FRESHET_ASSIGN(const PollResult polled, source->Poll(milliseconds(20)));
    if (polled.kind != PollResult::Kind::kRecord) continue;
    const RawRecord& record = polled.record;
    const auto end = ends.find({std::string(record.topic), record.partition});
    if (end == ends.end() || record.offset != end->second.next_offset - 1) continue;
    end->second.fingerprint = Fingerprint(record);
    if (last_record) last_record(record);
  }
  std::vector<PartitionProgress> all;
  all.reserve(ends.size());
  for (auto& [partition, end] : ends) all.push_back(std::move(end));
  return all;
}

std::map<std::string, std::int64_t> TombstoneRetentionMs(const KafkaOptions& options,
                                                         const std::vector<std::string>& topics, milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::map<std::string, std::int64_t> retention;
  const Result<std::unique_ptr<Admin>> admin = Admin::Open(options);
  for (const std::string& topic : topics) {
    if (!admin.ok()) {
      retention[topic] = kDefaultTombstonesMs;
      continue;
    }
    if (const auto ms = (*admin)->TombstoneRetentionMs(topic, deadline)) retention[topic] = *ms;
  }
  return retention;
}

std::optional<std::int64_t> RetentionMs(const KafkaOptions& options, const std::string& topic, milliseconds timeout) {
  const Result<std::unique_ptr<Admin>> admin = Admin::Open(options);
  if (!admin.ok()) return std::nullopt;
  return (*admin)->RetentionMs(topic, std::chrono::steady_clock::now() + timeout);
}

Status CreateTopics(const KafkaOptions& options, const std::vector<NewTopic>& topics, milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  FRESHET_ASSIGN(const std::unique_ptr<Admin> admin, Admin::Open(options));
  FRESHET_ASSIGN(const std::set<std::string> existing, admin->Topics(deadline));
  for (const NewTopic& topic : topics) {
    if (!existing.contains(topic.name)) FRESHET_TRY(admin->Create(topic, deadline));
  }
  return Status::Ok();
}

}  // namespace freshet
