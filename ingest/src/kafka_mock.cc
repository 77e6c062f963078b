// clang-format off
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
// clang-format on

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "kafka_common.h"

namespace freshet {
namespace {

class Mock final : public MockBroker {
 public:
  Mock(rd_kafka_t* rk, rd_kafka_mock_cluster_t* cluster, std::int32_t brokers)
      : rk_(rk), cluster_(cluster), brokers_(brokers) {}
  ~Mock() override {
    rd_kafka_mock_cluster_destroy(cluster_);
    kafka::DestroyBounded(rk_, 0, std::chrono::milliseconds(5000));
  }

  std::string bootstrap_servers() const override { return rd_kafka_mock_cluster_bootstraps(cluster_); }

  Status CreateTopic(const std::string& name, std::int32_t partitions) override {
    if (partitions < 1) return InvalidArgument(StrCat("topic ", name, " needs at least one partition"));
    const rd_kafka_resp_err_t error = rd_kafka_mock_topic_create(cluster_, name.c_str(), partitions, brokers_);
    if (error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return FailedPrecondition(StrCat("topic ", name, " exists"));
    return kafka::ToStatus(error, StrCat("topic ", name));
  }

  Status SetUp(bool up) override {
    for (std::int32_t id = 1; id <= brokers_; ++id) {
      FRESHET_TRY(
          kafka::ToStatus(up ? rd_kafka_mock_broker_set_up(cluster_, id) : rd_kafka_mock_broker_set_down(cluster_, id),
                          up ? "taking the broker up" : "taking the broker down"));
    }
    return Status::Ok();
  }

  void Expel() override {
    constexpr std::int16_t kHeartbeat = 12;  // as the protocol numbers its requests
    rd_kafka_mock_push_request_errors(cluster_, kHeartbeat, 1, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
  }

  void Forget(const std::string& topic, bool forgotten) override {
    rd_kafka_mock_topic_set_error(cluster_, topic.c_str(),
                                  forgotten ? RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART : RD_KAFKA_RESP_ERR_NO_ERROR);
  }

  Status MoveLeader(const TopicPartition& partition, std::int32_t broker) override {
    return kafka::ToStatus(
        rd_kafka_mock_partition_set_leader(cluster_, partition.topic.c_str(), partition.partition, broker),
        "moving a leader");
  }

 private:
  rd_kafka_t* const rk_;  // the cluster lives in a client handle
  rd_kafka_mock_cluster_t* const cluster_;
  const std::int32_t brokers_;  // with ids from 1
};

}  // namespace

Result<std::unique_ptr<MockBroker>> StartMockBroker(std::int32_t brokers) {
  kafka::ConfPtr conf(rd_kafka_conf_new());
  char error[256] = "";
  // The handle connects nowhere: it only lends its memory and threads, and has nothing to say.
  if (rd_kafka_conf_set(conf.get(), "log_level", "3", error, sizeof(error)) != RD_KAFKA_CONF_OK) return Internal(error);
  FRESHET_ASSIGN(rd_kafka_t * rk, kafka::NewHandle(RD_KAFKA_PRODUCER, std::move(conf)));
  rd_kafka_mock_cluster_t* cluster = rd_kafka_mock_cluster_new(rk, brokers);
  if (cluster == nullptr) {
    kafka::DestroyBounded(rk, 0, std::chrono::milliseconds(5000));
    return Unavailable("the embedded broker found no free port on loopback");
  }
  return std::unique_ptr<MockBroker>(new Mock(rk, cluster, brokers));
}

}  // namespace freshet
