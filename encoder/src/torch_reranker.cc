#include "torch_reranker.h"

#include <ATen/core/ivalue.h>
#include <torch/script.h>
#include <torch/version.h>

#include <cmath>
#include <cstring>
#include <sstream>

#include "call_watchdog.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr const char* kWhat = "the re-ranker";

template <typename T>
at::Tensor View(std::vector<T>* values, at::IntArrayRef shape, at::ScalarType type) {
  return torch::from_blob(values->data(), shape, at::TensorOptions().dtype(type));
}

void AddFeatures(const std::string& of, const TowerShape& shape, TowerInput* input,
                 c10::Dict<std::string, at::Tensor>* inputs) {
  const auto size = [](const auto& values) { return static_cast<std::int64_t>(values.size()); };
  inputs->insert(of + "_indices", View(&input->indices, {size(input->indices)}, at::kLong));
  inputs->insert(of + "_offsets", View(&input->offsets, {size(input->offsets)}, at::kLong));
  inputs->insert(of + "_dense", View(&input->dense, {input->rows, shape.dense}, at::kFloat));
}

// All of the first or all of the last row of the table, by turns.
TowerInput ProbeInput(const TowerShape& shape, std::int64_t rows) {
  TowerInput input;
  for (; input.rows < rows; ++input.rows) {
    for (int bag = 0; bag < shape.bags; ++bag) {
      input.offsets.push_back(static_cast<std::int64_t>(input.indices.size()));
      input.indices.push_back(input.rows % 2 == 0 ? 0 : shape.table_rows - 1);
    }
  }
  input.dense.assign(static_cast<std::size_t>(rows * shape.dense), 0.0F);
  return input;
}

}  // namespace

struct RerankScript::Module {
  // forward() of a frozen module changes nothing, but is not declared const.
  mutable torch::jit::Module module;
};

RerankScript::RerankScript(std::unique_ptr<Module> module, const TowerShape& user, const TowerShape& item,
                           const TowerOptions& options)
    : user_(user),
      item_(item),
      name_(options.name),
      module_(std::move(module)),
      watchdog_(std::make_unique<CallWatchdog>(
          options.call_limit, [name = options.name, limit = options.call_limit] { EndForModel(name, limit); })) {}
RerankScript::~RerankScript() = default;

Result<std::unique_ptr<RerankScript>> RerankScript::Load(const std::string& bytes, const TowerShape& user,
                                                         const TowerShape& item, const TowerOptions& options) {
  constexpr int kLoadLimits = 4;
  KeepTypesOfErrors();
  std::unique_ptr<RerankScript> script(new RerankScript(std::make_unique<Module>(), user, item, options));
  try {
    const CallWatchdog::Call call(script->watchdog_.get(), kLoadLimits);
    std::istringstream stream(bytes);
    torch::jit::Module module = torch::jit::load(stream, at::kCPU);
    const auto forward = module.find_method("forward");
    if (!forward) return Corruption("the re-ranker has no method `forward`");
    if (forward->function().getSchema().arguments().size() != 2) {
      return Corruption("the re-ranker's `forward` does not take one dictionary of tensors");
    }
    module.eval();
    script->module_->module = torch::jit::freeze(module);
  } catch (...) {
    Status error = ErrorInFlight("loading", kWhat);
    if (error.category() == Category::kTransient) return error;
    return Corruption(StrCat("the re-ranker cannot be loaded by LibTorch ", TORCH_VERSION, ": ", error.message(),
                             " (one of a newer PyTorch may use operators that this LibTorch lacks)"));
  }
  if (const Status status = script->Probe(); !status.ok()) {
    if (status.category() == Category::kTransient) return status;
    return Corruption(StrCat("the re-ranker does not fit what it is given: ", status.message()));
  }
  return script;
}

Status RerankScript::Probe() const {
  constexpr std::int64_t kRows = 2;
  RerankTensors tensors;
  // Of length 1: a script may normalise.
  const float unit = 1.0F / std::sqrt(static_cast<float>(user_.dim));
  tensors.user_vector.assign(static_cast<std::size_t>(user_.dim), unit);
  tensors.item_vectors.assign(static_cast<std::size_t>(kRows * user_.dim), unit);
  tensors.similarity.assign(kRows, 1.0F);
  tensors.popularity.assign(kRows, 0.0F);
  tensors.age_hours.assign(kRows, -1.0F);
  tensors.user = ProbeInput(user_, 1);
  tensors.items = ProbeInput(item_, kRows);
  std::vector<float> scores(kRows);
  return Run(std::move(tensors), scores);
}

Status RerankScript::Run(RerankTensors tensors, std::span<float> scores) const {
  const auto n = static_cast<std::int64_t>(scores.size());
  if (n == 0) return Status::Ok();
  if (tensors.item_vectors.size() != static_cast<std::size_t>(n * user_.dim) ||
      tensors.similarity.size() != scores.size() || tensors.popularity.size() != scores.size() ||
      tensors.age_hours.size() != scores.size() || tensors.user_vector.size() != static_cast<std::size_t>(user_.dim) ||
      tensors.user.rows != 1 || tensors.items.rows != n) {
    return Internal("the re-ranker's input or output has the wrong size");
  }
  try {
    const CallWatchdog::Call call(watchdog_.get());
    const c10::InferenceMode inference;
    c10::Dict<std::string, at::Tensor> inputs;
    inputs.insert("user_vector", View(&tensors.user_vector, {user_.dim}, at::kFloat));
    inputs.insert("item_vectors", View(&tensors.item_vectors, {n, user_.dim}, at::kFloat));
    inputs.insert("similarity", View(&tensors.similarity, {n}, at::kFloat));
    inputs.insert("popularity", View(&tensors.popularity, {n}, at::kFloat));
    inputs.insert("age_hours", View(&tensors.age_hours, {n}, at::kFloat));
    AddFeatures("user", user_, &tensors.user, &inputs);
    AddFeatures("item", item_, &tensors.items, &inputs);
    const torch::jit::IValue value = module_->module.forward({inputs});
    if (!value.isTensor()) return InvalidArgument("the re-ranker does not return a tensor");
    const at::Tensor result = value.toTensor().to(at::kCPU, at::kFloat).contiguous();
    if (result.dim() != 1 || result.size(0) != n) {
      std::ostringstream shape;
      shape << result.sizes();
      return InvalidArgument(StrCat("the re-ranker returned the shape ", shape.str(), ", not [", n, "]"));
    }
    std::memcpy(scores.data(), result.data_ptr<float>(), scores.size_bytes());
    if (!AllFinite(scores)) return InvalidArgument("the re-ranker returned a number that is not finite");
  } catch (...) {
    return ErrorInFlight(name_, kWhat);
  }
  return Status::Ok();
}

}  // namespace freshet
