// Who takes part in `freshet_bench churn`: ours, hnswlib, and the exact scan that both are judged by. One thread.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/indexer/index.h"
#include "peer_hnswlib.h"

namespace freshet::bench {

inline constexpr std::size_t kChurnM = 16;
inline constexpr std::size_t kChurnEfConstruction = 200;

[[nodiscard]] inline std::vector<Label> LabelsOf(const Result<std::vector<Hit>>& hits) {
  std::vector<Label> labels;
  if (!hits.ok()) return labels;
  for (const Hit& hit : *hits) labels.push_back(hit.label);
  return labels;
}

class ChurnContender {
 public:
  virtual ~ChurnContender() = default;
  virtual Status Insert(const std::vector<Label>& labels, const std::vector<float>& vectors) = 0;
  virtual Status Delete(const std::vector<Label>& labels) = 0;
  virtual Status Settle() { return Status::Ok(); }
  [[nodiscard]] virtual std::vector<Label> Search(const float* query, std::size_t k, std::size_t ef) = 0;
  // Live rows that cannot be reached; they are repaired by the time this returns. Peers cannot tell.
  [[nodiscard]] virtual Result<std::size_t> Audit() { return std::size_t{0}; }
};

class ChurnOurs final : public ChurnContender {
 public:
  static Result<std::unique_ptr<ChurnContender>> Make(int dim) {
    HnswOptions options;
    options.dim = dim;
    options.metric = Metric::kL2;
    options.m = kChurnM;
    options.ef_construction = kChurnEfConstruction;
    FRESHET_ASSIGN(std::unique_ptr<Index> index, MakeHnswIndex(options));
    return std::unique_ptr<ChurnContender>(
        std::make_unique<ChurnOurs>(std::move(index), static_cast<std::size_t>(dim)));
  }
  ChurnOurs(std::unique_ptr<Index> index, std::size_t dim) : index_(std::move(index)), dim_(dim) {}
  Status Insert(const std::vector<Label>& labels, const std::vector<float>& vectors) override {
    FRESHET_TRY(index_->Insert(labels, vectors));
    return index_->Maintain();
  }
  Status Delete(const std::vector<Label>& labels) override {
    index_->Tombstone(labels);
    return index_->Maintain();
  }
  // So that the graph answers, not the scan of what is not in it yet.
  Status Settle() override {
    FRESHET_TRY(index_->Maintain());
    return index_->Settle();
  }
  [[nodiscard]] std::vector<Label> Search(const float* query, std::size_t k, std::size_t ef) override {
    SearchOptions options;
    options.k = k;
    options.ef = ef;
    return LabelsOf(index_->Search({query, dim_}, options));
  }
  [[nodiscard]] Result<std::size_t> Audit() override {
    FRESHET_ASSIGN(const IndexHealth health, index_->Audit({}));
    FRESHET_TRY(index_->Settle());
    return health.unreachable;
  }

 private:
  std::unique_ptr<Index> index_;
  std::size_t dim_;
};

class ChurnPeer final : public ChurnContender {
 public:
  ChurnPeer(int dim, std::size_t capacity, bool replace)
      : index_(true, dim, capacity, kChurnM, kChurnEfConstruction, replace), dim_(static_cast<std::size_t>(dim)) {}
  Status Insert(const std::vector<Label>& labels, const std::vector<float>& vectors) override {
    for (std::size_t i = 0; i < labels.size(); ++i) index_.Add(labels[i], vectors.data() + i * dim_);
    return Status::Ok();
  }
  Status Delete(const std::vector<Label>& labels) override {
    for (const Label label : labels) index_.Delete(label);
    return Status::Ok();
  }
  [[nodiscard]] std::vector<Label> Search(const float* query, std::size_t k, std::size_t ef) override {
    index_.SetEf(ef);
    return index_.Search(query, k);
  }

 private:
  PeerHnswlib index_;
  std::size_t dim_;
};

class ChurnOracle final : public ChurnContender {
 public:
  explicit ChurnOracle(int dim) : index_(MakeFlatIndex(dim, Metric::kL2)), dim_(static_cast<std::size_t>(dim)) {}
  Status Insert(const std::vector<Label>& labels, const std::vector<float>& vectors) override {
    return index_->Insert(labels, vectors);
  }
  Status Delete(const std::vector<Label>& labels) override {
    index_->Tombstone(labels);
    return Status::Ok();
  }
  [[nodiscard]] std::vector<Label> Search(const float* query, std::size_t k, std::size_t) override {
    SearchOptions options;
    options.k = k;
    return LabelsOf(index_->Search({query, dim_}, options));
  }
  [[nodiscard]] std::vector<Label> Live() const { return index_->LiveLabels(); }

 private:
  std::unique_ptr<Index> index_;
  std::size_t dim_;
};

}  // namespace freshet::bench
