#include "torch_tower.h"

#include <torch/script.h>
#include <torch/version.h>

#include <cstring>
#include <sstream>

#include "call_watchdog.h"
#include "freshet/core/strings.h"
#include "torch_device.h"

namespace freshet {
namespace {

template <typename T>
at::Tensor View(std::span<T> values, at::IntArrayRef shape, at::ScalarType type) {
  // LibTorch has no tensor over const memory; towers do not write to their inputs.
  return torch::from_blob(const_cast<std::remove_const_t<T>*>(values.data()), shape, at::TensorOptions().dtype(type));
}

void CopyRows(const TowerInput& from, const TowerShape& shape, std::size_t begin, std::size_t end, TowerInput* to) {
  const auto bags = static_cast<std::size_t>(shape.bags);
  const auto dense = static_cast<std::size_t>(shape.dense);
  const auto at = [&](std::size_t bag) {
    return bag < from.offsets.size() ? from.offsets[bag] : static_cast<std::int64_t>(from.indices.size());
  };
  const std::int64_t first = at(begin * bags);
  for (std::size_t bag = begin * bags; bag < end * bags; ++bag) to->offsets.push_back(from.offsets[bag] - first);
  to->indices.assign(from.indices.begin() + first, from.indices.begin() + at(end * bags));
  const auto values = from.dense.begin();
  to->dense.assign(values + static_cast<std::ptrdiff_t>(begin * dense),
                   values + static_cast<std::ptrdiff_t>(end * dense));
  to->rows = static_cast<std::int64_t>(end - begin);
}

}  // namespace

struct Tower::Module {
  // forward() of a frozen module changes nothing, but is not declared const.
  mutable torch::jit::Module module;
  c10::Device device{at::kCPU};
  std::unique_ptr<DeviceCalls> calls;  // null on the CPU
};

Tower::Tower(std::unique_ptr<Module> module, const TowerShape& shape, const TowerOptions& options)
    : shape_(shape),
      name_(options.name),
      device_lost_(options.device_lost ? options.device_lost : EndForDevice),
      module_(std::move(module)),
      watchdog_(std::make_unique<CallWatchdog>(
          options.call_limit, [name = options.name, limit = options.call_limit] { EndForModel(name, limit); })) {}
Tower::~Tower() = default;

Result<std::unique_ptr<Tower>> Tower::Load(const std::string& bytes, const TowerShape& shape,
                                           const TowerOptions& options) {
  constexpr int kLoadLimits = 4;
  KeepTypesOfErrors();
  FRESHET_ASSIGN(const c10::Device device, ResolveDevice(options.device));
  std::unique_ptr<Tower> tower(new Tower(std::make_unique<Module>(), shape, options));
  try {
    const CallWatchdog::Call call(tower->watchdog_.get(), kLoadLimits);
    std::istringstream stream(bytes);
    torch::jit::Module module = torch::jit::load(stream, device);
    const auto forward = module.find_method("forward");
    if (!forward) return Corruption("the tower has no method `forward`");
    if (forward->function().getSchema().arguments().size() != 4) {
      return Corruption("the tower's `forward` does not take (indices, offsets, dense)");
    }
    module.eval();
    tower->module_->module = torch::jit::freeze(module);
    tower->module_->device = device;
    if (options.fake_device || !device.is_cpu()) {
      tower->module_->calls =
          std::make_unique<DeviceCalls>(device, !device.is_cpu(), shape, options.part_rows,
                                        options.fake_device ? options.fake_device() : MakeStreams(device));
    }
  } catch (...) {
    Status error = ErrorInFlight("loading", "the tower");
    if (error.category() == Category::kTransient) return error;
    return Corruption(
        StrCat("the tower cannot be loaded by LibTorch ", TORCH_VERSION, ": ", error.message(),
               " (towers of a newer PyTorch may use operators that this LibTorch lacks; attention written as "
               "matmul and softmax is known everywhere)"));
  }

  if (const Status status = tower->Probe(2); !status.ok()) {
    if (status.category() == Category::kTransient) return status;
    return Corruption(StrCat("the tower does not fit the feature spec: ", status.message()));
  }
  // Where memory does not suffice for so many, the stage halves its batches.
  if (const Status status = tower->Probe(options.warm_up_rows);
      !status.ok() && status.category() != Category::kTransient) {
    return Corruption(StrCat("the tower fails at ", options.warm_up_rows, " rows: ", status.message()));
  }
  return tower;
}

// Each row is all of the first or all of the last row of the table, by turns.
Status Tower::Probe(std::int64_t rows) const {
  TowerInput probe;
  for (; probe.rows < rows; ++probe.rows) {
    for (int bag = 0; bag < shape_.bags; ++bag) {
      probe.offsets.push_back(static_cast<std::int64_t>(probe.indices.size()));
      probe.indices.push_back(probe.rows % 2 == 0 ? 0 : shape_.table_rows - 1);
    }
  }
  probe.dense.assign(static_cast<std::size_t>(rows * shape_.dense), 0.0F);
  std::vector<float> out(static_cast<std::size_t>(rows * shape_.dim));
  return Run(probe, out);
}

Device Tower::device() const {
  const c10::Device& device = module_->device;
  if (device.is_cpu()) return {Device::Kind::kCpu, 0};
  return {Device::Kind::kCuda, device.index()};
}

Status Tower::Run(const TowerInput& input, std::span<float> out) const {
  if (input.rows == 0) return Status::Ok();
  if (input.offsets.size() != static_cast<std::size_t>(input.rows * shape_.bags) ||
      input.dense.size() != static_cast<std::size_t>(input.rows * shape_.dense) ||
      out.size() != static_cast<std::size_t>(input.rows * shape_.dim)) {
    return Internal("the tower's input or output has the wrong size");
  }
  if (module_->calls != nullptr) {
    const auto fill = [&](std::size_t begin, std::size_t end, TowerInput* part) {
      CopyRows(input, shape_, begin, end, part);
    };
    return RunOnDevice(input.rows, fill, out);
  }
  try {
    const CallWatchdog::Call call(watchdog_.get());
    const c10::InferenceMode inference;
    std::vector<torch::jit::IValue> arguments;
    arguments.reserve(3);
    arguments.emplace_back(
        View(std::span(input.indices), {static_cast<std::int64_t>(input.indices.size())}, at::kLong));
    arguments.emplace_back(
        View(std::span(input.offsets), {static_cast<std::int64_t>(input.offsets.size())}, at::kLong));
    arguments.emplace_back(View(std::span(input.dense), {input.rows, shape_.dense}, at::kFloat));
    const torch::jit::IValue value = module_->module.forward(std::move(arguments));
    if (!value.isTensor()) return InvalidArgument("the tower does not return a tensor");
    const at::Tensor result = value.toTensor().to(at::kCPU, at::kFloat).contiguous();
    if (result.dim() != 2 || result.size(0) != input.rows || result.size(1) != shape_.dim) {
      std::ostringstream shape;
      shape << result.sizes();
      return InvalidArgument(
          StrCat("the tower returned the shape ", shape.str(), ", not [", input.rows, ", ", shape_.dim, "]"));
    }
    std::memcpy(out.data(), result.data_ptr<float>(), out.size_bytes());
    if (!AllFinite(out)) return InvalidArgument("the tower returned a number that is not finite");
  } catch (...) {
    return ErrorInFlight(name_, "the tower");
  }
  return Status::Ok();
}

Status Tower::Run(std::int64_t rows, const Fill& fill, TowerInput* scratch, std::span<float> out) const {
  if (module_->calls != nullptr && rows > 0) {
    if (out.size() != static_cast<std::size_t>(rows * shape_.dim))
      return Internal("the tower's output has the wrong size");
    return RunOnDevice(rows, fill, out);
  }
  scratch->Clear();
  fill(0, static_cast<std::size_t>(rows), scratch);
  return Run(*scratch, out);
}

Status Tower::RunOnDevice(std::int64_t rows, const Fill& fill, std::span<float> out) const {
  Status status;
  try {
    const CallWatchdog::Call call(watchdog_.get());
    status = module_->calls->Run(&module_->module, rows, fill, out);
    if (status.ok() && !AllFinite(out)) return InvalidArgument("the tower returned a number that is not finite");
    if (status.ok() || status.code() == Code::kInvalidArgument) return status;
  } catch (...) {
    status = ErrorInFlight(name_, "the tower");
  }
  // Out of the catch: what is in flight holds tensors. An error that destroys a GPU's context comes back from every
  // call after it, whatever that asks for; no record is to blame, and only a new process has another context.
  if (status.category() == Category::kTransient || module_->calls->Alive()) return status;
  device_lost_(name_, status.message());
  return Internal(StrCat(name_, ": the device does not work any more: ", status.message()));
}

Result<std::string> SerializeTower(const std::vector<TowerParameter>& parameters, const std::string& forward) {
  try {
    torch::jit::Module module("Tower");
    for (const TowerParameter& parameter : parameters) {
      module.register_parameter(parameter.name, View(std::span(parameter.values), parameter.shape, at::kFloat).clone(),
                                false);
    }
    module.define(forward);
    module.eval();
    std::ostringstream out;
    module.save(out);
    return std::move(out).str();
  } catch (const std::exception& e) {
    return Internal(StrCat("the tower cannot be written: ", e.what()));
  }
}

Status InnerProducts(std::span<const float> a, std::span<const float> b, std::int64_t dim, std::span<float> out) {
  try {
    const c10::InferenceMode inference;
    const auto rows = [&](std::span<const float> values) { return static_cast<std::int64_t>(values.size()) / dim; };
    at::Tensor product = torch::from_blob(out.data(), {rows(a), rows(b)}, at::kFloat);
    at::mm_out(product, View(a, {rows(a), dim}, at::kFloat), View(b, {rows(b), dim}, at::kFloat).t());
    return Status::Ok();
  } catch (const std::exception& e) {
    return Internal(StrCat("scoring: ", e.what()));
  }
}

}  // namespace freshet
