#include "request_meter.h"

#include <algorithm>

namespace freshet {

RequestMeter::RequestMeter(const Form& form, Metrics* metrics) : form_(form), metrics_(metrics) {
  for (std::size_t route = 0; route < kRoutes; ++route) {
    if (form_.routes[route] == nullptr) continue;
    seconds_[route] = &metrics->GetHistogram(form_.seconds, form_.seconds_help,
                                             {{form_.route_label, Label(static_cast<Route>(route))}});
  }
}

void RequestMeter::Count(Route route, int status) {
  const std::size_t i = static_cast<std::size_t>(std::find(kCodes.begin(), kCodes.end() - 1, status) - kCodes.begin());
  std::atomic<Counter*>& slot = requests_[route][i];
  Counter* counter = slot.load(std::memory_order_acquire);
  if (counter == nullptr) {
    counter = &metrics_->GetCounter(form_.requests, form_.requests_help,
                                    {{form_.route_label, Label(route)}, {"code", form_.code(kCodes[i])}});
    slot.store(counter, std::memory_order_release);
  }
  counter->Add();
}

void RequestMeter::Count(Route route, int status, double seconds) {
  Count(route, status);
  seconds_[route]->Observe(seconds);
}

}  // namespace freshet
