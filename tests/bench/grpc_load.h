// One connection of a load generator to the door of gRPC; in builds without FRESHET_GRPC there is none.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"

namespace freshet::bench {

class GrpcLoad {
 public:
  // A recommender's own time is not ours: requests are made beforehand. `query`: a vector.
  [[nodiscard]] static std::string Request(std::span<const float> query, std::size_t k);
  // Null in a build without.
  [[nodiscard]] static std::unique_ptr<GrpcLoad> Open(const std::string& address);
  virtual ~GrpcLoad() = default;
  // One at a time: sends those bytes, and waits for the answer's, which nobody reads. Errors: kInternal.
  virtual Status Call(const std::string& request) = 0;
  // The ids of an answer.
  [[nodiscard]] virtual Result<std::vector<std::string>> Ids(const std::string& request) = 0;
};

}  // namespace freshet::bench
