#include "freshet/query/http_client.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "freshet/core/strings.h"
#include "freshet_test/test_support.h"

namespace freshet {
namespace {

// Accepts one connection and says `text`, whatever is asked; keeps the connection open until the end of the test where
// `text` is empty.
class OneAnswer {
 public:
  explicit OneAnswer(std::string text) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), text_(std::move(text)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::listen(fd_, 1), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size), 0);
    address_ = StrCat("127.0.0.1:", ntohs(at.sin_port));
    if (!text_.empty()) thread_ = std::thread([this] { Serve(); });
  }
  ~OneAnswer() {
    if (thread_.joinable()) thread_.join();
    ::close(fd_);
  }
  [[nodiscard]] const std::string& address() const { return address_; }

 private:
  void Serve() const {
    const int peer = ::accept(fd_, nullptr, nullptr);
    char bytes[4096];
    (void)!::recv(peer, bytes, sizeof bytes, 0);
    (void)!::send(peer, text_.data(), text_.size(), MSG_NOSIGNAL);
    ::close(peer);
  }

  const int fd_;
  const std::string text_;
  std::string address_;
  std::thread thread_;
};

TEST(HttpClientTest, ReadsAnAnswer) {
  const OneAnswer server("HTTP/1.1 418 Teapot\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello");
  const auto reply = HttpCall(server.address(), "GET", "/", "", 30'000);
  ASSERT_OK(reply);
  EXPECT_EQ(reply->status, 418);
  EXPECT_EQ(reply->content_type, "text/plain");
  EXPECT_EQ(reply->body, "hello");
}

TEST(HttpClientTest, RefusesABadAddressOrMethod) {
  for (const char* address : {"", "x", "127.0.0.1", "127.0.0.1:0", "example.org:80"}) {
    EXPECT_EQ(HttpCall(address, "GET", "/").status().code(), Code::kInvalidArgument) << address;
  }
  EXPECT_EQ(HttpCall("127.0.0.1:1", "SING", "/").status().code(), Code::kInvalidArgument);
}

TEST(HttpClientTest, SaysThatNobodyListens) {
  std::string address;
  {
    const OneAnswer gone("");
    address = gone.address();
  }
  EXPECT_EQ(HttpCall(address, "GET", "/", "", 30'000).status().code(), Code::kUnavailable);
}

TEST(HttpClientTest, GivesUpOnASilentServer) {
  const OneAnswer silent("");  // the kernel accepts, nobody answers
  EXPECT_EQ(HttpCall(silent.address(), "GET", "/", "", 50).status().code(), Code::kDeadlineExceeded);
}

TEST(HttpClientTest, RefusesWhatIsNotHttpAndWhatBreaksOff) {
  const OneAnswer noise("hello\r\n\r\n");
  EXPECT_EQ(HttpCall(noise.address(), "GET", "/", "", 30'000).status().code(), Code::kUnavailable);
  const OneAnswer broken("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello");
  EXPECT_EQ(HttpCall(broken.address(), "GET", "/", "", 30'000).status().code(), Code::kUnavailable);
  const OneAnswer huge("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello");
  EXPECT_EQ(HttpCall(huge.address(), "GET", "/", "", 30'000).status().code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace freshet
