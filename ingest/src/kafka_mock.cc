// clang-format off
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
// clang-format on

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "kafka_common.h"

namespace freshet {
namespace {

constexpr std::int32_t kBrokerId = 1;

class Mock final : public MockBroker {
 public:
  Mock(rd_kafka_t* rk, rd_kafka_mock_cluster_t* cluster) : rk_(rk), cluster_(cluster) {}
  ~Mock() override {
    rd_kafka_mock_cluster_destroy(cluster_);
    kafka::DestroyBounded(rk_, 0, std::chrono::milliseconds(5000));
  }

  std::string bootstrap_servers() const override { return rd_kafka_mock_cluster_bootstraps(cluster_); }

  Status CreateTopic(const std::string& name, std::int32_t partitions) override {
    if (partitions < 1) return InvalidArgument(StrCat("topic ", name, " needs at least one partition"));
    const rd_kafka_resp_err_t error = rd_kafka_mock_topic_create(cluster_, name.c_str(), partitions, 1);
    if (error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return FailedPrecondition(StrCat("topic ", name, " exists"));
    return kafka::ToStatus(error, StrCat("topic ", name));
  }

  Status SetUp(bool up) override {
    return kafka::ToStatus(
        up ? rd_kafka_mock_broker_set_up(cluster_, kBrokerId) : rd_kafka_mock_broker_set_down(cluster_, kBrokerId),
        up ? "taking the broker up" : "taking the broker down");
  }

 private:
  rd_kafka_t* const rk_;  // the cluster lives in a client handle
  rd_kafka_mock_cluster_t* const cluster_;
};

}  // namespace

Result<std::unique_ptr<MockBroker>> StartMockBroker() {
  kafka::ConfPtr conf(rd_kafka_conf_new());
  char error[256] = "";
  // The handle connects nowhere: it only lends its memory and threads, and has nothing to say.
  if (rd_kafka_conf_set(conf.get(), "log_level", "3", error, sizeof(error)) != RD_KAFKA_CONF_OK) return Internal(error);
  FRESHET_ASSIGN(rd_kafka_t * rk, kafka::NewHandle(RD_KAFKA_PRODUCER, std::move(conf)));
  rd_kafka_mock_cluster_t* cluster = rd_kafka_mock_cluster_new(rk, kBrokerId);
  if (cluster == nullptr) {
    kafka::DestroyBounded(rk, 0, std::chrono::milliseconds(5000));
    return Unavailable("the embedded broker found no free port on loopback");
  }
  return std::unique_ptr<MockBroker>(new Mock(rk, cluster));
}

}  // namespace freshet
