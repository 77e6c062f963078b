#include "freshet_test/kafka_transactions.h"

#include <librdkafka/rdkafka.h>

namespace freshet::test {
namespace {

constexpr int kTimeoutMs = 60'000;

std::string TextOf(rd_kafka_error_t* error) {
  if (error == nullptr) return "";
  std::string text = rd_kafka_error_string(error);
  rd_kafka_error_destroy(error);
  return text;
}
std::string TextOf(rd_kafka_resp_err_t error) {
  return error == RD_KAFKA_RESP_ERR_NO_ERROR ? "" : rd_kafka_err2str(error);
}

}  // namespace

struct TransactionalProducer::Client {
  rd_kafka_t* rk = nullptr;
  std::string error;
};

TransactionalProducer::TransactionalProducer(const std::string& bootstrap_servers, const std::string& transactional_id)
    : client_(std::make_unique<Client>()) {
  char error[512] = "";
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap_servers.c_str(), error, sizeof(error));
  rd_kafka_conf_set(conf, "transactional.id", transactional_id.c_str(), error, sizeof(error));
  client_->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
  if (client_->rk == nullptr) {
    rd_kafka_conf_destroy(conf);
    client_->error = error;
  } else {
    client_->error = TextOf(rd_kafka_init_transactions(client_->rk, kTimeoutMs));
  }
}

TransactionalProducer::~TransactionalProducer() {
  if (client_->rk != nullptr) rd_kafka_destroy(client_->rk);
}

std::string TransactionalProducer::Begin() {
  return client_->error.empty() ? TextOf(rd_kafka_begin_transaction(client_->rk)) : client_->error;
}

std::string TransactionalProducer::Write(const std::string& topic, const std::string& key, const std::string& value) {
  if (!client_->error.empty()) return client_->error;
  std::string error =
      TextOf(rd_kafka_producev(client_->rk, RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_KEY(key.data(), key.size()),
                               RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
                               RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END));
  return error.empty() ? TextOf(rd_kafka_flush(client_->rk, kTimeoutMs)) : error;
}

std::string TransactionalProducer::End(bool commit) {
  if (!client_->error.empty()) return client_->error;
  return TextOf(commit ? rd_kafka_commit_transaction(client_->rk, kTimeoutMs)
                       : rd_kafka_abort_transaction(client_->rk, kTimeoutMs));
}

}  // namespace freshet::test
