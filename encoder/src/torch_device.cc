#include "torch_device.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <sstream>
#include <vector>

#include "freshet/core/strings.h"

namespace freshet {
namespace {

class Streams final : public DeviceQueues {
 public:
  explicit Streams(c10::Device device) : device_(device), backend_(device.type()) {
    // The weights were put there in the stream that is current, so what computes stays in it.
    streams_.reserve(kQueues);
    for (int queue = 0; queue < kQueues; ++queue) {
      streams_.push_back(queue == kCompute ? backend_.getStream(device) : backend_.getStreamFromGlobalPool(device));
    }
  }

  void Put(Queue queue, const std::function<void()>& work) override {
    const c10::StreamGuard guard(Of(queue));
    work();
  }
  void After(Queue later, Queue earlier) override {
    c10::Event event(device_.type());
    event.record(Of(earlier));
    event.block(Of(later));
  }
  void Finish(Queue queue) override { backend_.synchronizeStream(Of(queue)); }
  bool Alive() override {
    try {
      return at::ones({1}, at::TensorOptions().device(device_)).item<float>() == 1;
    } catch (const std::exception&) {
      return false;
    }
  }

 private:
  [[nodiscard]] const c10::Stream& Of(Queue queue) const { return streams_[static_cast<std::size_t>(queue)]; }

  const c10::Device device_;
  const c10::impl::VirtualGuardImpl backend_;
  std::vector<c10::Stream> streams_;
};

// Rows that stand for nothing: the last one again, which the tower takes if it takes that one.
void Pad(const TowerShape& shape, std::int64_t rows, TowerInput* input) {
  const auto bags = static_cast<std::size_t>(shape.bags);
  const auto dense = static_cast<std::size_t>(shape.dense);
  const std::size_t first_bag = input->offsets.size() - bags;
  const std::size_t first_dense = input->dense.size() - dense;
  const std::size_t end = input->indices.size();
  for (; input->rows < rows; ++input->rows) {
    for (std::size_t bag = first_bag; bag < first_bag + bags; ++bag) {
      const auto from = static_cast<std::size_t>(input->offsets[bag]);
      const std::size_t to = bag + 1 < first_bag + bags ? static_cast<std::size_t>(input->offsets[bag + 1]) : end;
      input->offsets.push_back(static_cast<std::int64_t>(input->indices.size()));
      for (std::size_t i = from; i < to; ++i) input->indices.push_back(input->indices[i]);
    }
    for (std::size_t i = 0; i < dense; ++i) input->dense.push_back(input->dense[first_dense + i]);
  }
}

}  // namespace

Result<c10::Device> ResolveDevice(const Device& device) {
  if (device.kind == Device::Kind::kCpu) return c10::Device(at::kCPU);
  const int count = static_cast<int>(torch::cuda::device_count());
  if (device.kind == Device::Kind::kAuto) return count > 0 ? c10::Device(at::kCUDA, 0) : c10::Device(at::kCPU);
  if (device.index < count) return c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device.index));
  const std::string seen =
      count == 0 ? StrCat("LibTorch ", TORCH_VERSION,
                          " sees none (a build for the CPU never does; else look at the driver: nvidia-smi)")
                 : StrCat("the last of those that LibTorch sees is cuda:", count - 1);
  return ConfigError(StrCat("there is no CUDA device `", DeviceText(device), "`: ", seen));
}

std::int64_t PaddedRows(std::int64_t rows) {
  constexpr std::int64_t kLeast = 8;
  constexpr std::int64_t kSizesADoubling = 8;
  const auto below = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(rows)));
  const std::int64_t step = std::max(kLeast, below / kSizesADoubling);
  return (rows + step - 1) / step * step;
}

std::unique_ptr<DeviceQueues> MakeStreams(c10::Device device) { return std::make_unique<Streams>(device); }

DeviceCalls::DeviceCalls(c10::Device device, bool pinned, const TowerShape& shape, std::int64_t part_rows,
                         std::unique_ptr<DeviceQueues> queues)
    : device_(device), pinned_(pinned), shape_(shape), part_rows_(part_rows), queues_(std::move(queues)) {}

DeviceCalls::~DeviceCalls() { Abandon(); }

bool DeviceCalls::Alive() {
  const std::lock_guard lock(mu_);
  return queues_->Alive();
}

Status DeviceCalls::Run(torch::jit::Module* module, std::int64_t rows, const Tower::Fill& fill, std::span<float> out) {
  const std::lock_guard lock(mu_);
  const c10::InferenceMode inference;
  const c10::DeviceGuard guard(device_);
  const auto each_part = [&]() -> Status {
    std::size_t number = 0;
    for (std::int64_t begin = 0; begin < rows; begin += part_rows_, number ^= 1U) {
      FRESHET_TRY(Collect(number, out));
      FRESHET_TRY(Submit(module, number, begin, std::min(begin + part_rows_, rows), fill));
    }
    FRESHET_TRY(Collect(number, out));  // the older one
    return Collect(number ^ 1U, out);
  };
  try {
    Status status = each_part();
    if (!status.ok()) Abandon();
    return status;
  } catch (...) {
    Abandon();
    throw;
  }
}

at::Tensor DeviceCalls::HostBuffer(std::int64_t count, at::ScalarType type) const {
  return at::empty({count}, at::TensorOptions().dtype(type).pinned_memory(pinned_));
}

void DeviceCalls::Hold(std::int64_t count, at::ScalarType type, Pair* pair) const {
  if (pair->host.defined() && pair->device.defined() && pair->host.numel() >= count) return;
  const auto capacity =
      static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(count, 1))));
  *pair = {};  // first, so that there is never more than one of them
  pair->host = HostBuffer(capacity, type);
  pair->device = at::empty({capacity}, at::TensorOptions().dtype(type).device(device_));
}

Status DeviceCalls::Submit(torch::jit::Module* module, std::size_t number, std::int64_t begin, std::int64_t end,
                           const Tower::Fill& fill) {
  Slot& slot = slots_[number];
  slot.input.Clear();
  fill(static_cast<std::size_t>(begin), static_cast<std::size_t>(end), &slot.input);
  const std::int64_t rows = end - begin;
  if (slot.input.rows != rows || slot.input.offsets.size() != static_cast<std::size_t>(rows * shape_.bags) ||
      slot.input.dense.size() != static_cast<std::size_t>(rows * shape_.dense)) {
    return Internal("the tower's input has the wrong size");
  }
  const std::int64_t padded = PaddedRows(rows);
  Pad(shape_, padded, &slot.input);

  std::array<at::Tensor, 3> inputs;
  const auto stage = [&](const auto& values, at::ScalarType type, Pair* pair, at::Tensor* input) {
    const auto count = static_cast<std::int64_t>(values.size());
    Hold(count, type, pair);
    if (count > 0) std::memcpy(pair->host.data_ptr(), values.data(), values.size() * sizeof(values[0]));
    *input = pair->device.narrow(0, 0, count);
  };
  stage(slot.input.indices, at::kLong, &slot.indices, &inputs[0]);
  stage(slot.input.offsets, at::kLong, &slot.offsets, &inputs[1]);
  stage(slot.input.dense, at::kFloat, &slot.dense, &inputs[2]);
  if (!slot.host_result.defined() || slot.host_result.numel() < rows * shape_.dim) {
    slot.host_result = at::Tensor();
    slot.host_result =
        HostBuffer(static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows * shape_.dim))), at::kFloat);
  }
  slot.begin = begin;
  slot.rows = rows;
  slot.problem.clear();
  slot.result = at::Tensor();

  queues_->Put(DeviceQueues::kCopyIn, [&slot, inputs] {
    const c10::InferenceMode mode;
    const std::array<const Pair*, 3> pairs = {&slot.indices, &slot.offsets, &slot.dense};
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const at::Tensor& to = inputs[i];
      to.copy_(pairs[i]->host.narrow(0, 0, to.numel()), true);
    }
  });
  queues_->After(DeviceQueues::kCompute, DeviceQueues::kCopyIn);
  queues_->Put(DeviceQueues::kCompute, [&slot, inputs, module, padded, shape = shape_] {
    const c10::InferenceMode mode;
    const torch::jit::IValue answer = module->forward({inputs[0], inputs[1], inputs[2].view({padded, shape.dense})});
    if (!answer.isTensor()) {
      slot.problem = "the tower does not return a tensor";
      return;
    }
    const at::Tensor& result = answer.toTensor();
    if (result.dim() != 2 || result.size(0) != padded || result.size(1) != shape.dim) {
      std::ostringstream sizes;
      sizes << result.sizes();
      slot.problem = StrCat("the tower returned the shape ", sizes.str(), ", not [", padded, ", ", shape.dim, "]");
      return;
    }
    slot.result = result.to(at::kFloat).contiguous();
  });
  const DeviceQueues::Queue back = number == 0 ? DeviceQueues::kCopyOutEven : DeviceQueues::kCopyOutOdd;
  queues_->After(back, DeviceQueues::kCompute);
  queues_->Put(back, [&slot, count = rows * shape_.dim] {
    const c10::InferenceMode mode;
    // The result stays the slot's until it was waited for, so its memory is not given to others before.
    if (slot.result.defined())
      slot.host_result.narrow(0, 0, count).copy_(slot.result.view({-1}).narrow(0, 0, count), true);
  });
  return Status::Ok();
}

Status DeviceCalls::Collect(std::size_t number, std::span<float> out) {
  Slot& slot = slots_[number];
  if (slot.rows == 0) return Status::Ok();
  queues_->Finish(number == 0 ? DeviceQueues::kCopyOutEven : DeviceQueues::kCopyOutOdd);
  const auto dim = static_cast<std::size_t>(shape_.dim);
  const auto count = static_cast<std::size_t>(std::exchange(slot.rows, 0)) * dim;
  slot.result = at::Tensor();
  if (!slot.problem.empty()) return InvalidArgument(slot.problem);
  std::memcpy(out.subspan(static_cast<std::size_t>(slot.begin) * dim, count).data(), slot.host_result.data_ptr<float>(),
              count * sizeof(float));
  return Status::Ok();
}

// A part that still runs reads and writes the slots.
void DeviceCalls::Abandon() noexcept {
  for (int queue = 0; queue < DeviceQueues::kQueues; ++queue) {
    try {
      queues_->Finish(static_cast<DeviceQueues::Queue>(queue));
    } catch (...) {  // a device that fails does nothing any more
      continue;
    }
  }
  for (Slot& slot : slots_) {
    slot.rows = 0;
    slot.result = at::Tensor();
  }
}

}  // namespace freshet
