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

int Left(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::max<std::int64_t>(left, 1));
}

class Admin {
 public:
  static Result<std::unique_ptr<Admin>> Open(const KafkaOptions& options) {
    FRESHET_ASSIGN(kafka::ConfPtr conf, kafka::MakeConf(options, {}, {}));
    FRESHET_ASSIGN(rd_kafka_t * rk, kafka::NewHandle(RD_KAFKA_PRODUCER, std::move(conf)));
    return std::unique_ptr<Admin>(new Admin(rk));
  }
  ~Admin() { kafka::DestroyBounded(rk_, 0, milliseconds(5000)); }
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;

  // The names of all topics: a question for one by name may create it, with partitions of the broker's choosing.
  Result<std::set<std::string>> Topics(std::chrono::steady_clock::time_point deadline) {
    const rd_kafka_metadata_t* raw = nullptr;
    const rd_kafka_resp_err_t error = rd_kafka_metadata(rk_, /*all_topics=*/1, nullptr, &raw, Left(deadline));
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) return Unavailable(StrCat("list of topics: ", rd_kafka_err2str(error)));
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
  // librdkafka's mock cluster has no admin API and names a controller that does not exist, for which librdkafka would
  // wait until the deadline. It gives itself away by its cluster id.
  bool IsMockCluster(std::chrono::steady_clock::time_point deadline) {
    char* id = rd_kafka_clusterid(rk_, Left(deadline));
    const bool mock = id != nullptr && std::string_view(id).substr(0, 11) == "mockCluster";
    if (id != nullptr) rd_kafka_mem_free(rk_, id);
    return mock;
  }

  explicit Admin(rd_kafka_t* rk) : rk_(rk) {}

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

  rd_kafka_t* const rk_;
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
