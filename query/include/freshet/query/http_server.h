// HTTP/1.1: what openapi.yaml describes; and gRPC beside it, in builds that have it.
//
// Place in the flow: the door of engine and sidecar. Boost.Beast is named in src/http_*.cc only, gRPC in src/grpc_*.cc.
// Bounds come before parsing (headers 16 KiB, body 1 MiB, connections, deadlines for header and request); errors are
// RFC 9457 problems with stable `type` and the offending field's path. So many requests search at once, so many more
// queue, others are told 429; every answer carries an X-Request-Id. Runs its own threads between Start() and Stop();
// Stop() finishes requests in flight and those that queue.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "freshet/query/recall_service.h"

namespace freshet {

// PEM files. Empty certificate: plain HTTP.
struct HttpTls {
  std::string certificate;  // of the server, with what leads to its authority
  std::string key;
  // Authorities: only who brings a certificate of one of them is answered, probes too (mutual TLS). Empty: anybody.
  std::string client_ca;
};

struct HttpOptions {
  // host:port; port 0: any free one. Other than loopback only with tokens or mutual TLS.
  std::string listen = "127.0.0.1:0";
  // The same for gRPC (proto/freshet/v1/recall.proto): tls, tokens, threads, places, queue and timeouts are shared with
  // HTTP. Empty: there is none. Only in builds with FRESHET_GRPC.
  std::string grpc_listen;
  HttpTls tls;
  // Of the bearer tokens, one a line; readable by its owner alone. Then every request but those of /livez, /startupz
  // and /readyz needs one. Empty: none is asked for.
  std::string token_file;
  int threads = 2;  // requests that search at once; one thread more does the rest, so that probes always answer
  std::size_t max_connections = 1024;  // of HTTP; and as many calls of gRPC
  std::size_t max_queued = 256;        // requests that queue for their turn to search; more are answered 429
  std::size_t max_waiting = 256;       // requests that wait for their `min_as_of`; more are answered 503
  int header_timeout_ms = 5'000;       // from a request's first byte (of a connection's first request: from the accept)
  int request_timeout_ms = 2'000;      // for the body, and from then on for the answer; a request may ask for less
  int write_timeout_ms = 30'000;       // for the client to read an answer
  int idle_timeout_ms = 60'000;        // between two requests of a connection
  bool access_log = false;             // every request is logged, not only what fails
  // Once the answers of a batch are larger, its other entries are refused.
  std::size_t max_batch_bytes = std::size_t{64} << 20;
  Status Validate() const;  // Errors: kConfig
};

// Empty: ready; else the reasons, for /readyz (503).
using ReadyCheck = std::function<std::vector<std::string>()>;
// One JSON object, for /v1/status.
using StatusReport = std::function<std::string()>;
// POST /v1/admin/snapshots: starts a snapshot, returns at once. Null: there are no admin paths here.
using SnapshotRequest = std::function<void()>;
// Called before each answer of /metrics, from any thread: for gauges that tell the time since something.
using BeforeMetrics = std::function<void()>;

class HttpServer {
 public:
  virtual ~HttpServer() = default;
  virtual Status Start() = 0;  // Errors: kConfig (also: a file of `tls`), kUnavailable (address in use)
  virtual void Stop() = 0;     // idempotent
  [[nodiscard]] virtual std::string address() const = 0;       // "127.0.0.1:34567", after Start()
  [[nodiscard]] virtual std::string grpc_address() const = 0;  // empty: there is none
};

// `service` null: a server without recalls, items and users, for the admin paths.
[[nodiscard]] std::unique_ptr<HttpServer> MakeHttpServer(const HttpOptions& options, const RecallService* service,
                                                         Metrics* metrics, ReadyCheck ready, StatusReport report,
                                                         SnapshotRequest snapshot = {},
                                                         BeforeMetrics before_metrics = {});

// Each connection is an open file, and shells and service managers often allow 1,024 where the system allows far more:
// raises this process's limit to what it may be, and returns that. Once, at the start of a program.
std::uint64_t RaiseFileLimit();

// The JSON body of POST /v1/recall, both ways; apart from the server so that it can be tested and fuzzed alone.
// Errors: kInvalidArgument, the message starts with the field's JSON pointer: "/k: must be between 1 and 1000".
// A mistake of the whole body has the empty pointer: the message then starts without '/'.
[[nodiscard]] Result<RecallRequest> ParseRecallRequest(std::string_view body);
[[nodiscard]] std::string RecallResponseToJson(const RecallResponse& response);

}  // namespace freshet
