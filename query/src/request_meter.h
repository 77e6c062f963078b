// How many requests were answered how, and in what time: by route and code, for one protocol.
//
// Place in the flow: HttpApi tells it of each answer; HTTP has one, gRPC another. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <string>

#include "freshet/core/metrics.h"

namespace freshet {

// What can be asked for.
enum Route : std::size_t {
  kRecallRoute,
  kBatchRoute,
  kScoreRoute,
  kStatusRoute,
  kItemRoute,
  kUserRoute,
  kLiveRoute,
  kStartedRoute,
  kReadyRoute,
  kMetricsRoute,
  kOpenApiRoute,
  kSnapshotsRoute,
  kOtherRoute,
  kRoutes
};

class RequestMeter {
 public:
  struct Form {
    const char* requests;  // names and helps of the metrics
    const char* requests_help;
    const char* seconds;
    const char* seconds_help;
    const char* route_label;                  // what a route is called
    std::array<const char*, kRoutes> routes;  // the template of its path, say; null: this protocol has it not
    std::array<const char*, kRoutes> labels;  // of the metrics; as `routes` where it is null
    std::string (*code)(int status);          // the label of an answer's status; 0: any other
  };

  // `metrics` outlives the meter.
  RequestMeter(const Form& form, Metrics* metrics);
  RequestMeter(const RequestMeter&) = delete;
  RequestMeter& operator=(const RequestMeter&) = delete;

  void Count(Route route, int status);
  void Count(Route route, int status, double seconds);
  // For the log.
  [[nodiscard]] const char* RouteName(Route route) const { return form_.routes[route]; }

 private:
  [[nodiscard]] const char* Label(Route route) const {
    return form_.labels[route] == nullptr ? form_.routes[route] : form_.labels[route];
  }

  const Form form_;
  Metrics* const metrics_;
  std::array<Histogram*, kRoutes> seconds_{};
  // Looked up once for each pair: the registry is behind a lock.
  static constexpr std::array<int, 16> kCodes = {200, 202, 400, 401, 404, 405, 408, 413,
                                                 429, 431, 499, 500, 501, 503, 504, 0};
  std::array<std::array<std::atomic<Counter*>, kCodes.size()>, kRoutes> requests_{};
};

}  // namespace freshet
