// A schema registry for tests: loopback HTTP that answers the documented GET calls from a table.
//
// One connection at a time, one request a connection. Thread-safe. A port of its own, kept while it is down, so that it
// comes back under the same address.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace freshet::test {

class RegistryServer {
 public:
  struct Answer {
    int status = 200;
    std::string body;
  };

  RegistryServer() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    ::listen(socket_, 16);
    socklen_t size = sizeof(address);
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~RegistryServer() {
    stop_ = true;
    ::shutdown(socket_, SHUT_RDWR);  // wakes accept()
    thread_.join();
    ::close(socket_);
  }
  RegistryServer(const RegistryServer&) = delete;
  RegistryServer& operator=(const RegistryServer&) = delete;

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  void Set(const std::string& path, const Answer& answer) {
    const std::lock_guard lock(mu_);
    answers_[path] = answer;
  }
  // Connections are closed without an answer.
  void SetDown(bool down) { down_ = down; }
  [[nodiscard]] int requests() const { return requests_; }
  [[nodiscard]] std::string last_request() const {
    const std::lock_guard lock(mu_);
    return last_request_;
  }

 private:
  void Serve() {
    while (!stop_) {
      const int connection = ::accept(socket_, nullptr, nullptr);
      if (connection < 0) continue;
      Talk(connection);
      ::close(connection);
    }
  }

  void Talk(int connection) {
    std::string request;
    char bytes[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t got = ::read(connection, bytes, sizeof(bytes));
      if (got <= 0) return;
      request.append(bytes, static_cast<std::size_t>(got));
    }
    ++requests_;
    if (down_) return;
    const std::size_t begin = request.find(' ') + 1;
    const std::string path = request.substr(begin, request.find(' ', begin) - begin);
    Answer answer{404, R"({"error_code": 40403, "message": "Schema not found"})"};
    {
      const std::lock_guard lock(mu_);
      last_request_ = request;
      if (const auto found = answers_.find(path); found != answers_.end()) answer = found->second;
    }
    const std::string response = "HTTP/1.1 " + std::to_string(answer.status) +
                                 " X\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nConnection: close\r\n"
                                 "Content-Length: " +
                                 std::to_string(answer.body.size()) + "\r\n\r\n" + answer.body;
    std::size_t sent = 0;
    while (sent < response.size()) {
      const ssize_t wrote = ::send(connection, response.data() + sent, response.size() - sent, MSG_NOSIGNAL);
      if (wrote <= 0) return;
      sent += static_cast<std::size_t>(wrote);
    }
  }

  const int socket_;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<bool> down_{false};
  std::atomic<int> requests_{0};
  mutable std::mutex mu_;
  std::map<std::string, Answer> answers_;  // guarded by mu_
  std::string last_request_;               // guarded by mu_
  std::thread thread_;
};

}  // namespace freshet::test
