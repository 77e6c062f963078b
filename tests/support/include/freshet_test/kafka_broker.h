// A real Apache Kafka broker of this test's own, by deploy/kafka/broker: free loopback ports, own directory.
#pragma once

#include <string>

namespace freshet::test {

class KafkaBroker {
 public:
  // Starts it; `version` as deploy/kafka/broker knows it, empty for its default.
  explicit KafkaBroker(const std::string& directory, const std::string& version = "");
  ~KafkaBroker();
  KafkaBroker(const KafkaBroker&) = delete;
  KafkaBroker& operator=(const KafkaBroker&) = delete;

  [[nodiscard]] const std::string& bootstrap_servers() const { return bootstrap_servers_; }
  void Kill() const;  // SIGKILL
  void Start();       // again, on the same ports and data
  void CreateTopic(const std::string& name, int partitions, bool compact) const;

 private:
  const std::string directory_;
  const std::string version_;
  std::string bootstrap_servers_;
};

}  // namespace freshet::test
