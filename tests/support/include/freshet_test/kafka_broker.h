// A real Apache Kafka broker of this test's own, by deploy/kafka/broker: free loopback ports, own directory.
#pragma once

#include <string>
#include <vector>

namespace freshet::test {

class KafkaBroker {
 public:
  // Starts it; `version` as deploy/kafka/broker knows it, empty for its default.
  // `settings`: broker properties, "key=value".
  explicit KafkaBroker(const std::string& directory, const std::string& version = "",
                       const std::vector<std::string>& settings = {});
  ~KafkaBroker();
  KafkaBroker(const KafkaBroker&) = delete;
  KafkaBroker& operator=(const KafkaBroker&) = delete;

  [[nodiscard]] const std::string& bootstrap_servers() const { return bootstrap_servers_; }
  void Kill() const;                                       // SIGKILL
  void Signal(int signal) const;                           // SIGSTOP: it hangs; SIGCONT
  void Start();                                            // again, on the same ports and data
  void DeleteTopic(const std::string& name) const;         // returns when it is gone
  void Tool(const std::vector<std::string>& words) const;  // a class of Kafka's own tools and its arguments
  void CreateTopic(const std::string& name, int partitions, bool compact) const;

 private:
  const std::string directory_;
  const std::string version_;
  const std::vector<std::string> settings_;
  std::string bootstrap_servers_;
};

}  // namespace freshet::test
