// A TorchScript re-ranker behind a face without LibTorch.
//
// Place in the flow: tensors of one query's candidates -> one score each; used by the re-ranker of a model package
// (package_reranker.cc). Exceptions of LibTorch end in torch_reranker.cc. It runs on the CPU.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/feature_spec.h"
#include "torch_tower.h"

namespace freshet {

class CallWatchdog;

// The inputs of signature `rerank-v1` (encoder/README.md) for n candidates. Row-major; made anew for each call, since a
// script may write into them.
struct RerankTensors {
  std::vector<float> user_vector;   // dim
  std::vector<float> item_vectors;  // n * dim
  std::vector<float> similarity;    // n, as the two that follow
  std::vector<float> popularity;
  std::vector<float> age_hours;
  TowerInput user;   // of one row
  TowerInput items;  // of n rows
};

// A loaded re-ranker, frozen, in evaluation and inference mode. Run is thread-safe. A call that does not come back ends
// the process.
class RerankScript {
 public:
  // Loads `bytes` and runs it once on two candidates, so that what does not fit the feature specs is refused here.
  // Errors: kCorruption; kResourceExhausted without memory.
  [[nodiscard]] static Result<std::unique_ptr<RerankScript>> Load(const std::string& bytes, const TowerShape& user,
                                                                  const TowerShape& item,
                                                                  const TowerOptions& options = {});
  ~RerankScript();

  // REQUIRES: scores.size() candidates are in `tensors`. Errors: see Reranker::Score.
  Status Run(RerankTensors tensors, std::span<float> scores) const;

 private:
  struct Module;
  RerankScript(std::unique_ptr<Module> module, const TowerShape& user, const TowerShape& item,
               const TowerOptions& options);
  [[nodiscard]] Status Probe() const;

  const TowerShape user_;
  const TowerShape item_;
  const std::string name_;
  const std::unique_ptr<Module> module_;
  const std::unique_ptr<CallWatchdog> watchdog_;
};

}  // namespace freshet
