#include "sidecar_load.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#include "bench.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/query/recall_binary.h"

namespace freshet::bench {
namespace {

constexpr std::string_view kLength = "Content-Length: ";
constexpr std::size_t kPiece = 64 * 1024;

double At(const std::vector<double>& sorted, double quantile) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(quantile * static_cast<double>(sorted.size())))];
}

LoadResult Summary(std::vector<double> us, double seconds) {
  std::sort(us.begin(), us.end());
  return {static_cast<double>(us.size()) / seconds, At(us, 0.5), At(us, 0.99), At(us, 0.999)};
}

// Runs `worker` on so many threads; the first error of any.
template <typename Worker>
Status OnThreads(std::size_t workers, const Worker& worker) {
  std::mutex mu;
  Status first;
  std::vector<std::thread> threads;
  for (std::size_t w = 0; w < workers; ++w) {
    threads.emplace_back([&, w] {
      const Status status = worker(w);
      const std::lock_guard lock(mu);
      if (first.ok()) first = status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return first;
}

}  // namespace

// What waking up takes longer counts for every contender.
void WaitUntil(double seconds) {
  std::mutex mu;
  std::condition_variable nobody;
  std::unique_lock lock(mu);
  for (double left = seconds - Seconds(); left > 0; left = seconds - Seconds()) {
    nobody.wait_for(lock, std::chrono::duration<double>(left));
  }
}

Result<std::unique_ptr<LoadConnection>> LoadConnection::Open(const std::string& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Unavailable("no socket");
  std::unique_ptr<LoadConnection> connection(new LoadConnection(fd));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::atoi(address.substr(address.rfind(':') + 1).c_str())));
  ::inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    return Unavailable(StrCat("cannot connect to ", address));
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return connection;
}

LoadConnection::~LoadConnection() { ::close(fd_); }

Result<std::string_view> LoadConnection::Call(std::string_view request) {
  while (!request.empty()) {
    const ssize_t sent = ::send(fd_, request.data(), request.size(), MSG_NOSIGNAL);
    if (sent <= 0) return Unavailable("the server has closed the connection");
    request.remove_prefix(static_cast<std::size_t>(sent));
  }
  received_.clear();
  std::size_t body = std::string::npos;
  std::size_t whole = 0;
  while (body == std::string::npos || received_.size() < whole) {
    const std::size_t had = received_.size();
    received_.resize(had + kPiece);
    const ssize_t got = ::recv(fd_, received_.data() + had, kPiece, 0);
    if (got <= 0) return Unavailable("the server has closed the connection");
    received_.resize(had + static_cast<std::size_t>(got));
    if (body != std::string::npos) continue;
    const std::size_t end = received_.find("\r\n\r\n");
    if (end == std::string::npos) continue;
    body = end + 4;
    const std::size_t length = received_.find(kLength);
    if (length > end) return Internal("an answer without a length");
    whole = body + static_cast<std::size_t>(std::atol(received_.c_str() + length + kLength.size()));
  }
  if (!received_.starts_with("HTTP/1.1 200 ")) return Internal(received_.substr(0, 300));
  return std::string_view(received_).substr(body);
}

std::string PostRequest(std::string_view target, std::string_view content_type, std::string_view body) {
  return StrCat("POST ", target, " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: ", content_type,
                "\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

std::string JsonRequest(std::span<const float> vector, std::size_t k) {
  JsonWriter json;
  json.BeginObject().Key("vector").BeginArray();
  for (const float x : vector) json.Double(static_cast<double>(x));
  json.EndArray().Key("k").Uint(k);
  return PostRequest("/v1/recall", "application/json", json.EndObject().Take());
}

std::string BinaryRequest(std::span<const float> vector, std::size_t k) {
  BinaryParams params;
  params.k = static_cast<std::uint32_t>(k);
  return PostRequest("/v1/recall", kBinaryRecallType, EncodeBinaryRequest(vector, params));
}

Result<LoadResult> ClosedLoop(const LoadCall& call, std::size_t workers, std::size_t calls) {
  std::atomic<std::size_t> next{0};
  std::vector<std::vector<double>> us(workers);
  const double from = Seconds();
  const Status done = OnThreads(workers, [&](std::size_t worker) {
    for (std::size_t i = next++; i < calls; i = next++) {
      const double begin = Seconds();
      FRESHET_TRY(call(worker, i));
      us[worker].push_back((Seconds() - begin) * 1e6);
    }
    return Status::Ok();
  });
  FRESHET_TRY(done);
  const double seconds = Seconds() - from;
  std::vector<double> all;
  for (const auto& one : us) all.insert(all.end(), one.begin(), one.end());
  return Summary(std::move(all), seconds);
}

Result<LoadResult> OpenLoop(const LoadCall& call, std::size_t workers, std::size_t calls, double per_second,
                            std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> pause(per_second);
  std::vector<double> at(calls);
  double next_at = 0.01;
  for (double& one : at) one = next_at += pause(random);
  std::atomic<std::size_t> next{0};
  std::vector<double> us(calls);
  const double from = Seconds();
  const Status done = OnThreads(workers, [&](std::size_t worker) {
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    for (std::size_t i = next++; i < calls; i = next++) {
      WaitUntil(from + at[i]);
      FRESHET_TRY(call(worker, i));
      us[i] = (Seconds() - from - at[i]) * 1e6;
    }
    return Status::Ok();
  });
  FRESHET_TRY(done);
  return Summary(std::move(us), Seconds() - from);
}

}  // namespace freshet::bench
