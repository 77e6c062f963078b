// A transactional producer, as others have them: freshet itself writes no transactions.
//
// One thread. Each call ends the test's wait in a minute at most; an error is a text, empty when there is none.
#pragma once

#include <memory>
#include <string>

namespace freshet::test {

class TransactionalProducer {
 public:
  TransactionalProducer(const std::string& bootstrap_servers, const std::string& transactional_id);
  ~TransactionalProducer();
  TransactionalProducer(const TransactionalProducer&) = delete;
  TransactionalProducer& operator=(const TransactionalProducer&) = delete;

  [[nodiscard]] std::string Begin();
  // In the log when it returns, and not yet decided.
  [[nodiscard]] std::string Write(const std::string& topic, const std::string& key, const std::string& value);
  [[nodiscard]] std::string End(bool commit);

 private:
  struct Client;
  std::unique_ptr<Client> client_;
};

}  // namespace freshet::test
