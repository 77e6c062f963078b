// A TCP connection without any HTTP in it, for requests that no client would send.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace freshet::test {

class RawConnection {
 public:
  // To "127.0.0.1:<port>". `before_connecting` gets the descriptor.
  explicit RawConnection(const std::string& address, const std::function<void(int)>& before_connecting = {})
      : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::atoi(address.substr(address.rfind(':') + 1).c_str())));
    ::inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    if (before_connecting) before_connecting(fd_);
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  }
  ~RawConnection() { ::close(fd_); }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  [[nodiscard]] bool connected() const { return connected_; }

  // False once the peer has gone.
  bool Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  // Everything up to the peer's close; "TIMEOUT" at the end where that does not come within 30 s.
  std::string ReadToEnd() {
    while (ReadSome()) {
    }
    return std::exchange(received_, "");
  }

  // One answer with a Content-Length; what was read of the next one is kept.
  std::string ReadAnswer(bool has_body = true) {
    while (true) {
      const std::size_t header_end = received_.find("\r\n\r\n");
      if (header_end != std::string::npos) {
        std::size_t size = header_end + 4;
        const std::size_t length = received_.find("Content-Length: ");
        if (has_body && length < header_end)
          size += static_cast<std::size_t>(std::atol(received_.c_str() + length + 16));
        if (received_.size() >= size) {
          std::string answer = received_.substr(0, size);
          received_.erase(0, size);
          return answer;
        }
      }
      if (!ReadSome()) return std::exchange(received_, "");
    }
  }

  // True when the peer has closed; waits `timeout_ms` for it.
  bool ClosedByPeer(int timeout_ms) {
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, timeout_ms) <= 0) return false;
    char byte = 0;
    return ::recv(fd_, &byte, 1, MSG_PEEK) <= 0;
  }

 private:
  bool ReadSome() {
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, 30'000) <= 0) {
      received_ += "TIMEOUT";
      return false;
    }
    char bytes[4096];
    const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    received_.append(bytes, static_cast<std::size_t>(got));
    return true;
  }

  int fd_;
  bool connected_ = false;
  std::string received_;
};

}  // namespace freshet::test
