// gRPC: the service of proto/freshet/v1/recall.proto, the standard health service, and reflection.
//
// Place in the flow: a second door of an HttpServer, which makes, starts and stops it. Its calls are RequestFlows of
// the same desk: places to search, queue, waits, tokens, deadlines and answers are HTTP's. gRPC's own threads only read
// and write. What is named here knows no gRPC: in a build without FRESHET_GRPC there is a door that cannot be made
// (grpc_none.cc). Library facts: this version (1.51) predates some fixed denial-of-service CVEs; what it lets us bound
// is bounded in grpc_door.cc.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "freshet/core/metrics.h"
#include "freshet/core/status.h"
#include "request_flow.h"

namespace freshet {

class GrpcDoor {
 public:
  virtual ~GrpcDoor() = default;
  // Errors: kConfig (also: a file of `tls`), kUnavailable (address in use).
  virtual Status Start() = 0;
  // For the health service: SERVING or NOT_SERVING. Thread-safe.
  virtual void SetReady(bool ready) = 0;
  // After `stopping` of the desk was set, since when new calls are refused: NOT_SERVING from now on.
  virtual void BeginStop() = 0;
  // Then: waits for the calls under way.
  virtual void AwaitCalls(std::chrono::milliseconds timeout) = 0;
  // At last, after the threads of the desk have ended: calls that are left are told UNAVAILABLE. Nothing of it runs
  // then.
  virtual void End() = 0;
  [[nodiscard]] virtual std::string address() const = 0;  // after Start()
};

[[nodiscard]] bool GrpcIsBuiltIn();
// At options.grpc_listen. All outlive the door. Errors: kConfig, in a build without.
[[nodiscard]] Result<std::unique_ptr<GrpcDoor>> MakeGrpcDoor(const HttpOptions& options, RequestDesk* desk,
                                                             Metrics* metrics);

}  // namespace freshet
