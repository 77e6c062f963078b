// Boost.Asio's side of the door: the listening socket and the threads. A connection's life is in http_session.cc, what
// is answered in http_api.cc.
#include "freshet/query/http_server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <exception>
#include <thread>

#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "grpc_door.h"
#include "http_api.h"
#include "http_net.h"
#include "http_session.h"
#include "http_slots.h"
#include "http_waiters.h"

namespace freshet {
namespace {

namespace net = boost::asio;
using std::chrono::milliseconds;
using tcp = net::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr milliseconds kAcceptBackoff{100};
constexpr milliseconds kStopSlack{1'000};
constexpr milliseconds kHealthEvery{200};
constexpr std::uint64_t kOtherFiles = 1'024;  // of the store, the log of the broker and the like, about

// A program that the process around us starts would otherwise keep the port, and connections, open.
void KeepFromChildren(int fd) { (void)::fcntl(fd, F_SETFD, FD_CLOEXEC); }

int OpenSpareFile() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

class BeastHttpServer final : public HttpServer {
 public:
  BeastHttpServer(const HttpOptions& options, const RecallService* service, Metrics* metrics, ReadyCheck ready,
                  StatusReport report, SnapshotRequest snapshot, BeforeMetrics before_metrics)
      : options_(options),
        metrics_(metrics),
        api_(options, service, metrics, std::move(ready), std::move(report), std::move(snapshot),
             std::move(before_metrics)),
        refused_(metrics->GetCounter("freshet_http_refused_connections_total",
                                     "Connections refused because max_connections were open, or no file was left")),
        sessions_(options, &api_, metrics),
        slots_(static_cast<std::size_t>(options.threads), options.max_queued, &sessions_.clock, metrics),
        waiters_(
            &context_, options.max_waiting,
            [service] { return service == nullptr ? std::int64_t{0} : service->as_of_ms(); }, metrics),
        acceptor_(net::make_strand(context_)),
        backoff_(acceptor_.get_executor()),
        health_(net::make_strand(context_)) {
    metrics->GetGauge("freshet_http_max_connections", "More connections than these are refused")
        .Set(static_cast<double>(options.max_connections));
    sessions_.slots = &slots_;
    sessions_.waiters = &waiters_;
    sessions_.post = [this](std::function<void()> task) { net::post(context_, std::move(task)); };
  }

  ~BeastHttpServer() override {
    Stop();
    if (spare_ >= 0) ::close(spare_);
  }

  Status Start() override {
    FRESHET_TRY(options_.Validate());
    if (!options_.tls.certificate.empty()) {
      FRESHET_ASSIGN(tls_, MakeServerTls(options_.tls));
      sessions_.tls = tls_.get();
    }
    if (!options_.token_file.empty()) {
      FRESHET_ASSIGN(HttpTokens tokens, HttpTokens::Load(options_.token_file));
      api_.Demand(std::move(tokens));
    }
    if (!threads_.empty() || sessions_.stopping) return FailedPrecondition("an HTTP server starts once");
    try {
      FRESHET_TRY(Listen(*ParseEndpoint(options_.listen)));
      if (!options_.grpc_listen.empty()) FRESHET_TRY(StartGrpc());
      net::post(acceptor_.get_executor(), [this] { Accept(); });
      // One more than there are places to search, for all that needs none.
      for (int i = 0; i < options_.threads + 1; ++i) threads_.emplace_back([this] { RunThread(); });
    } catch (const std::exception& error) {
      Stop();
      return Internal(StrCat("HTTP server: ", error.what()));
    }
    return Status::Ok();
  }

  void Stop() override {
    if (sessions_.stopping.exchange(true)) return;
    const auto until = std::chrono::steady_clock::now() + milliseconds(options_.request_timeout_ms) + kStopSlack;
    waiters_.Stop();
    if (grpc_) grpc_->BeginStop();
    net::post(acceptor_.get_executor(), [this] {
      ErrorCode ignored;
      acceptor_.close(ignored);
      backoff_.cancel();
    });
    if (!threads_.empty()) {
      std::vector<std::shared_ptr<HttpSession>> open;  // outlives the lock: a session's end takes it
      {
        const std::lock_guard lock(sessions_.mu);
        for (const auto& [raw, weak] : sessions_.open) {
          if (auto session = weak.lock()) open.push_back(std::move(session));
        }
      }
      for (const auto& session : open) session->Stop();
      open.clear();
      std::unique_lock lock(sessions_.mu);
      sessions_.changed.wait_until(lock, until, [this] { return sessions_.open.empty(); });
      lock.unlock();
      const auto left = std::chrono::duration_cast<milliseconds>(until - std::chrono::steady_clock::now());
      if (grpc_) grpc_->AwaitCalls(std::max(left, milliseconds(0)));
    }
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
    slots_.Close();
    if (grpc_) grpc_->End();
  }

  [[nodiscard]] std::string address() const override { return address_; }
  [[nodiscard]] std::string grpc_address() const override { return grpc_ ? grpc_->address() : ""; }

 private:
  Status StartGrpc() {
    FRESHET_ASSIGN(std::unique_ptr<GrpcDoor> door, MakeGrpcDoor(options_, &sessions_, metrics_));
    FRESHET_TRY(door->Start());
    grpc_ = std::move(door);
    net::post(health_.get_executor(), [this] { TellHealth(); });
    return Status::Ok();
  }

  // Who asks gRPC's health service is told what /readyz would say now, or a moment ago.
  void TellHealth() {
    health_.expires_after(kHealthEvery);
    health_.async_wait([this](ErrorCode cancelled) {
      if (!cancelled && !sessions_.stopping) TellHealth();
    });
    const bool ready = api_.NotReady().empty();
    grpc_->SetReady(ready);
  }

  Status Listen(const tcp::endpoint& endpoint) {
    ErrorCode error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) KeepFromChildren(acceptor_.native_handle());
    if (!error) acceptor_.set_option(net::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.non_blocking(true, error);
    if (!error) acceptor_.listen(net::socket_base::max_listen_connections, error);
    if (error) return Unavailable(StrCat("cannot listen on ", options_.listen, ": ", error.message()));
    address_ = EndpointText(acceptor_.local_endpoint());
    WarnOfFewFiles();
    return Status::Ok();
  }

  void WarnOfFewFiles() const {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= options_.max_connections + kOtherFiles) return;
    LogWarning("query", "too few open files are allowed for max_connections: raise the hard limit (LimitNOFILE)",
               {{"max_connections", StrCat(options_.max_connections)}, {"files", StrCat(files.rlim_cur)}});
  }

  void Accept() {
    acceptor_.async_accept(net::make_strand(context_), [this](ErrorCode error, tcp::socket socket) {
      if (sessions_.stopping || error == net::error::operation_aborted) return;
      if (error) {
        if (error == net::error::no_descriptors && RefuseWithSpareFile()) return Accept();
        // Out of memory, or of files for good: asking again at once would only burn the processor.
        backoff_.expires_after(kAcceptBackoff);
        backoff_.async_wait([this](ErrorCode cancelled) {
          if (!cancelled) Accept();
        });
        return;
      }
      KeepFromChildren(socket.native_handle());
      if (sessions_.size() >= options_.max_connections) {
        Refuse(&socket);
      } else {
        HttpSession::Run(std::move(socket), &sessions_);
      }
      Accept();
    });
  }

  // Without a file for it, who connects could not even be told: one is kept for that.
  bool RefuseWithSpareFile() {
    if (spare_ < 0) return false;
    ::close(spare_);
    ErrorCode error;
    tcp::socket socket(acceptor_.get_executor());
    acceptor_.accept(socket, error);
    if (!error) Refuse(&socket);
    spare_ = OpenSpareFile();
    return !error;
  }

  // A fresh socket's send buffer is empty: the few bytes go out without waiting.
  void Refuse(tcp::socket* socket) {
    refused_.Add();
    api_.CountUnrouted(503);
    const HttpAnswer answer = ProblemAnswer(503, "too-many-connections", "Too many connections are open");
    RequestTag tag;
    sessions_.log.Name("", "", &tag);
    sessions_.log.Answered(tag, {answer.route, "", answer.status, sessions_.clock.MonotonicUs(), false});
    const std::string text = StrCat("HTTP/1.1 503 Service Unavailable\r\nContent-Type: ", answer.content_type,
                                    "\r\nX-Request-Id: ", tag.request_id, "\r\nContent-Length: ", answer.body.size(),
                                    "\r\nRetry-After: 1\r\nConnection: close\r\n\r\n", answer.body);
    ErrorCode ignored;
    socket->non_blocking(true, ignored);
    // Without the handshake, TLS has no way to say it: the connection is closed.
    if (sessions_.tls == nullptr) socket->write_some(net::buffer(text), ignored);
    socket->shutdown(tcp::socket::shutdown_send, ignored);
    socket->close(ignored);
  }

  // An exception out of a handler ends that handler's connection, not the server.
  void RunThread() {
    while (!context_.stopped()) {
      try {
        context_.run();
      } catch (const std::exception& error) {
        LogError("query", "HTTP handler failed", {{"reason", error.what()}});
      }
    }
  }

  const HttpOptions options_;
  Metrics* const metrics_;
  HttpApi api_;
  Counter& refused_;
  std::unique_ptr<TlsContext> tls_;
  HttpSessions sessions_;  // these two outlive the context, whose destruction may destroy sessions
  RequestSlots slots_;
  net::io_context context_;
  FreshnessWaiters waiters_;
  tcp::acceptor acceptor_;  // on its own strand
  net::steady_timer backoff_;
  net::steady_timer health_;        // on its own strand
  std::unique_ptr<GrpcDoor> grpc_;  // null: there is none
  int spare_ = OpenSpareFile();     // on the acceptor's strand
  std::string address_;             // constant after Start()
  std::vector<std::thread> threads_;
};

}  // namespace

namespace {

// `key`: of the option. `guarded`: whoever asks has to bring a token or a certificate.
Status CheckListen(const char* key, const std::string& listen, bool guarded) {
  const auto endpoint = ParseEndpoint(listen);
  if (!endpoint) {
    return ConfigError(StrCat(key, ": `", listen, "` is not host:port with a numeric host, as 127.0.0.1:8081"));
  }
  if (endpoint->address().is_loopback() || guarded) return Status::Ok();
  return ConfigError(
      StrCat(key, ": `", listen,
             "` is not a loopback address. Whoever reaches this port reads the whole catalogue and any user's history: "
             "use 127.0.0.1 or [::1], or set token_file, or tls with client_ca"));
}

}  // namespace

Status HttpOptions::Validate() const {
  if (tls.certificate.empty() != tls.key.empty() || (tls.certificate.empty() && !tls.client_ca.empty())) {
    return ConfigError("tls: certificate and key go together, and client_ca goes with them");
  }
  const bool guarded = !token_file.empty() || !tls.client_ca.empty();
  FRESHET_TRY(CheckListen("listen", listen, guarded));
  if (!grpc_listen.empty()) {
    FRESHET_TRY(CheckListen("grpc_listen", grpc_listen, guarded));
    if (!GrpcIsBuiltIn()) {
      return ConfigError(
          "grpc_listen: this freshet was built without gRPC: leave it out, or build with -DFRESHET_GRPC=ON "
          "(query/README.md)");
    }
  }
  if (threads < 1 || threads > 256) return ConfigError("threads: must be between 1 and 256");
  if (max_connections < 1 || max_connections > 65'536)
    return ConfigError("max_connections: must be between 1 and 65536");
  if (max_waiting > 65'536) return ConfigError("max_waiting: must be at most 65536");
  if (max_queued > 65'536) return ConfigError("max_queued: must be at most 65536");
  if (header_timeout_ms < 1 || header_timeout_ms > 600'000) {
    return ConfigError("header_timeout_ms: must be between 1 and 600000");
  }
  if (request_timeout_ms < 1 || request_timeout_ms > kMaxTimeoutMs) {
    return ConfigError(StrCat("request_timeout_ms: must be between 1 and ", kMaxTimeoutMs));
  }
  if (write_timeout_ms < 1 || write_timeout_ms > 600'000) {
    return ConfigError("write_timeout_ms: must be between 1 and 600000");
  }
  if (idle_timeout_ms < 1 || idle_timeout_ms > 3'600'000) {
    return ConfigError("idle_timeout_ms: must be between 1 and 3600000");
  }
  return Status::Ok();
}

std::uint64_t RaiseFileLimit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  const rlim_t was = files.rlim_cur;
  files.rlim_cur = files.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_max : was;
}

std::unique_ptr<HttpServer> MakeHttpServer(const HttpOptions& options, const RecallService* service, Metrics* metrics,
                                           ReadyCheck ready, StatusReport report, SnapshotRequest snapshot,
                                           BeforeMetrics before_metrics) {
  return std::make_unique<BeastHttpServer>(options, service, metrics, std::move(ready), std::move(report),
                                           std::move(snapshot), std::move(before_metrics));
}

}  // namespace freshet
