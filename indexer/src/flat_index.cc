// Exact search by scanning: the oracle of the tests, and right for small catalogues.
#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "freshet/indexer/index.h"
#include "scoring.h"

namespace freshet {
namespace {

class FlatIndex final : public Index {
 public:
  FlatIndex(int dim, Metric metric) : dim_(dim), metric_(metric), score_(metric, dim) {}

  [[nodiscard]] int dim() const override { return dim_; }
  [[nodiscard]] Metric metric() const override { return metric_; }

  Status Insert(std::span<const Label> labels, std::span<const float> vectors) override {
    const std::unique_lock lock(mu_);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      slots_[labels[i]] = labels_.size();
      labels_.push_back(labels[i]);
    }
    vectors_.insert(vectors_.end(), vectors.begin(), vectors.end());
    return Status::Ok();
  }

  void Tombstone(std::span<const Label> labels) override {
    const std::unique_lock lock(mu_);
    const auto width = static_cast<std::size_t>(dim_);
    for (const Label label : labels) {
      const auto it = slots_.find(label);
      if (it == slots_.end()) continue;
      // The last row moves into the gap: nothing dead is kept.
      const std::size_t slot = it->second;
      const std::size_t last = labels_.size() - 1;
      if (slot != last) {
        labels_[slot] = labels_[last];
        slots_[labels_[slot]] = slot;
        std::copy_n(vectors_.begin() + static_cast<std::ptrdiff_t>(last * width), width,
                    vectors_.begin() + static_cast<std::ptrdiff_t>(slot * width));
      }
      labels_.pop_back();
      vectors_.resize(last * width);
      slots_.erase(label);
    }
  }

  Status Maintain() override { return Status::Ok(); }

  [[nodiscard]] Result<std::vector<Hit>> Search(std::span<const float> query,
                                                const SearchOptions& options) const override {
    FRESHET_TRY(CheckQuery(query, dim_));
    const std::shared_lock lock(mu_);
    TopK top(options);
    for (std::size_t slot = 0; slot < labels_.size(); ++slot) {
      top.Offer(labels_[slot], score_(query.data(), vectors_.data() + slot * static_cast<std::size_t>(dim_)));
    }
    return top.Take();
  }

  [[nodiscard]] IndexStats Stats() const override {
    const std::shared_lock lock(mu_);
    IndexStats stats;
    stats.live = labels_.size();
    stats.capacity = labels_.capacity();
    stats.memory_bytes = vectors_.capacity() * sizeof(float) + labels_.capacity() * sizeof(Label);
    return stats;
  }

  [[nodiscard]] std::vector<Label> LiveLabels() const override {
    const std::shared_lock lock(mu_);
    std::vector<Label> labels = labels_;
    std::sort(labels.begin(), labels.end());
    return labels;
  }

 private:
  const int dim_;
  const Metric metric_;
  const Scorer score_;
  mutable std::shared_mutex mu_;
  // Guarded by mu_:
  std::vector<float> vectors_;
  std::vector<Label> labels_;
  std::unordered_map<Label, std::size_t> slots_;
};

}  // namespace

std::unique_ptr<Index> MakeFlatIndex(int dim, Metric metric) { return std::make_unique<FlatIndex>(dim, metric); }

}  // namespace freshet
