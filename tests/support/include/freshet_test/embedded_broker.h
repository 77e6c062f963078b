// The embedded broker with the topics of a whole engine, and a producer: the ground of tests that run engine and
// sidecar.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "freshet/core/strings.h"
#include "freshet/ingest/kafka.h"
#include "freshet_test/configs.h"
#include "freshet_test/test_support.h"

namespace freshet::test {

class EmbeddedBrokerTest : public ::testing::Test {
 protected:
  EmbeddedBrokerTest() {
    auto broker = StartMockBroker();
    EXPECT_OK(broker);
    broker_ = std::move(*broker);
    for (const char* topic : {"items", "interactions", "users", "vectors", "user-events", "dead-letters"}) {
      EXPECT_OK(broker_->CreateTopic(topic, 2));
    }
    KafkaOptions kafka;
    kafka.bootstrap_servers = broker_->bootstrap_servers();
    auto producer = OpenKafkaProducer(kafka);
    EXPECT_OK(producer);
    producer_ = std::move(*producer);
  }
  // `value`: nothing deletes.
  void Send(const std::string& topic, const std::string& key, std::optional<std::string> value) {
    OutRecord record;
    record.topic = topic;
    record.key = key;
    record.value = std::move(value);
    ASSERT_OK(producer_->Send({record}, std::chrono::seconds(60)));
  }
  // `yaml` of configs.h with a model package where it had passthrough.
  static std::string WithPackage(std::string yaml, const std::string& package, const std::string& allowed_root) {
    const std::string passthrough = StrCat("encoder: {kind: passthrough, dim: ", kTestDim, ", metric: cosine}");
    return yaml.replace(yaml.find(passthrough), passthrough.size(),
                        StrCat("encoder: {package: ", package, ", allowed_root: ", allowed_root, "}"));
  }

  TempDir dir_;
  std::unique_ptr<MockBroker> broker_;
  std::unique_ptr<KafkaProducer> producer_;
};

}  // namespace freshet::test
