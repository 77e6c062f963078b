// Builds without gRPC, whose servers have no door for it: nobody asks.
#include "grpc_load.h"

namespace freshet::bench {

std::string GrpcLoad::Request(std::span<const float> /*query*/, std::size_t /*k*/) { return ""; }

std::unique_ptr<GrpcLoad> GrpcLoad::Open(const std::string& /*address*/) { return nullptr; }

}  // namespace freshet::bench
