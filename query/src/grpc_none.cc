// Builds without gRPC.
#include "grpc_door.h"

namespace freshet {

bool GrpcIsBuiltIn() { return false; }

Result<std::unique_ptr<GrpcDoor>> MakeGrpcDoor(const HttpOptions& /*options*/, RequestDesk* /*desk*/,
                                               Metrics* /*metrics*/) {
  return ConfigError("this freshet was built without gRPC");  // HttpOptions::Validate() says what to do
}

}  // namespace freshet
