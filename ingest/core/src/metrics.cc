#include "freshet/core/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <fstream>
#include <limits>
#include <mutex>
#include <sstream>

namespace freshet {
namespace {

class CounterImpl final : public Counter {
 public:
  explicit CounterImpl(prometheus::Counter& counter) : counter_(counter) {}
  void Add(double amount) override { counter_.Increment(amount); }
  [[nodiscard]] double Value() const override { return counter_.Value(); }

 private:
  prometheus::Counter& counter_;
};

class GaugeImpl final : public Gauge {
 public:
  explicit GaugeImpl(prometheus::Gauge& gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_.Set(value); }
  void Add(double amount) override { gauge_.Increment(amount); }
  [[nodiscard]] double Value() const override { return gauge_.Value(); }

 private:
  prometheus::Gauge& gauge_;
};

class HistogramImpl final : public Histogram {
 public:
  explicit HistogramImpl(prometheus::Histogram& histogram) : histogram_(histogram) {}
  void Observe(double value) override { histogram_.Observe(value); }
  [[nodiscard]] double Count() const override {
    return static_cast<double>(histogram_.Collect().histogram.sample_count);
  }
  [[nodiscard]] double Quantile(double q) const override {
    const auto collected = histogram_.Collect().histogram;
    const double rank = q * static_cast<double>(collected.sample_count);
    double below_count = 0;
    double below_bound = 0;
    for (const auto& bucket : collected.bucket) {
      const auto count = static_cast<double>(bucket.cumulative_count);
      if (count >= rank && count > below_count) {
        if (bucket.upper_bound == std::numeric_limits<double>::infinity()) return below_bound;
        return below_bound + (bucket.upper_bound - below_bound) * (rank - below_count) / (count - below_count);
      }
      below_count = count;
      below_bound = bucket.upper_bound;
    }
    return 0;
  }

 private:
  prometheus::Histogram& histogram_;
};

}  // namespace

struct Metrics::Impl {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::mutex mu;
  // Guarded by mu: keyed by name and labels, so that asking twice gives the same object.
  std::map<std::pair<std::string, MetricLabels>, std::unique_ptr<Counter>> counters;
  std::map<std::pair<std::string, MetricLabels>, std::unique_ptr<Gauge>> gauges;
  std::map<std::pair<std::string, MetricLabels>, std::unique_ptr<Histogram>> histograms;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::GetCounter(const std::string& name, const std::string& help, const MetricLabels& labels) {
  const std::lock_guard lock(impl_->mu);
  auto& slot = impl_->counters[{name, labels}];
  if (!slot) {
    slot = std::make_unique<CounterImpl>(
        prometheus::BuildCounter().Name(name).Help(help).Register(*impl_->registry).Add(labels));
  }
  return *slot;
}

Gauge& Metrics::GetGauge(const std::string& name, const std::string& help, const MetricLabels& labels) {
  const std::lock_guard lock(impl_->mu);
  auto& slot = impl_->gauges[{name, labels}];
  if (!slot) {
    slot = std::make_unique<GaugeImpl>(
        prometheus::BuildGauge().Name(name).Help(help).Register(*impl_->registry).Add(labels));
  }
  return *slot;
}

Histogram& Metrics::GetHistogram(const std::string& name, const std::string& help, const MetricLabels& labels,
                                 const std::vector<double>& bounds) {
  const std::lock_guard lock(impl_->mu);
  auto& slot = impl_->histograms[{name, labels}];
  if (!slot) {
    slot = std::make_unique<HistogramImpl>(
        prometheus::BuildHistogram().Name(name).Help(help).Register(*impl_->registry).Add(labels, bounds));
  }
  return *slot;
}

std::string Metrics::Text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, impl_->registry->Collect());
  return std::move(out).str();
}

std::vector<double> LatencyBuckets() {
  return {0.00001, 0.00002, 0.00003, 0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.0015, 0.002, 0.003,
          0.005,   0.0075,  0.01,    0.015,   0.02,   0.03,   0.05,   0.075,  0.1,   0.15,   0.2,   0.3,
          0.5,     0.75,    1,       1.5,     2,      3,      5,      10,     20,    30,     60};
}

double ResidentBytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace freshet
