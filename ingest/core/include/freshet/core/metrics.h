// Counters, gauges and histograms, exposed as Prometheus text.
//
// Place in the flow: every stage gets a Metrics& from the composition root and asks for its metrics once, at start.
// Returned references live as long as the Metrics. Thread-safe. Names: prefix `freshet_`, base units (`_seconds`,
// `_bytes`, `_ratio`, `_total`); never an item or user id as a label. metrics.cc is the only place that names
// prometheus-cpp.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace freshet {

using MetricLabels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Add(double amount = 1) = 0;
  [[nodiscard]] virtual double Value() const = 0;
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double amount) = 0;
  [[nodiscard]] virtual double Value() const = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
  [[nodiscard]] virtual double Count() const = 0;
  // Linear interpolation within the bucket, as Prometheus' histogram_quantile(); 0 when nothing was observed.
  [[nodiscard]] virtual double Quantile(double q) const = 0;
};

// 10 us to 60 s, about a factor of 1.8 apart: fit for latencies in seconds.
[[nodiscard]] std::vector<double> LatencyBuckets();

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // The same name and labels give the same object. REQUIRES: one help text per name.
  Counter& GetCounter(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  Gauge& GetGauge(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  Histogram& GetHistogram(const std::string& name, const std::string& help, const MetricLabels& labels = {},
                          const std::vector<double>& bounds = LatencyBuckets());

  // Prometheus text exposition format 0.0.4.
  [[nodiscard]] std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Resident set size of this process from /proc/self/status; 0 where that cannot be read.
[[nodiscard]] double ResidentBytes();

}  // namespace freshet
