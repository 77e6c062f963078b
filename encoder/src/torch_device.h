// A tower's rows through a device that works on its own, in parts that overlap.
//
// Place in the flow: under torch_tower.cc, where a tower runs on a GPU. A part's tensors are filled into pinned memory,
// copied, computed and copied back on queues of their own: while one part is computed the next is filled and copied,
// and the one before comes back. Buffers are kept and grow by powers of two; rows are padded to a few sizes, by copies
// of the last one, because libraries keep plans for each shape. Includes LibTorch: for the files torch_*.cc only, whose
// exceptions go through. Thread-safe: one call at a time, others wait.
#pragma once

#include <torch/script.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "device_queues.h"
#include "freshet/core/status.h"
#include "freshet/encoder/feature_spec.h"
#include "torch_tower.h"

namespace freshet {

// What a configuration names, among the devices that LibTorch sees. Errors: kConfig.
[[nodiscard]] Result<c10::Device> ResolveDevice(const Device& device);

// Rows that a call of so many is padded to: at most an eighth more, eight sizes for each doubling.
[[nodiscard]] std::int64_t PaddedRows(std::int64_t rows);

// The queues of a device that LibTorch has streams for: a GPU.
[[nodiscard]] std::unique_ptr<DeviceQueues> MakeStreams(c10::Device device);

class DeviceCalls {
 public:
  // `pinned`: host buffers from which a GPU copies by itself. `part_rows`: rows of a part, at least 1.
  DeviceCalls(c10::Device device, bool pinned, const TowerShape& shape, std::int64_t part_rows,
              std::unique_ptr<DeviceQueues> queues);
  ~DeviceCalls();  // waits for what still runs

  // out.size() == rows * dim. Throws what LibTorch throws; nothing of the call runs any more then. Errors:
  // kInvalidArgument, the answer has another shape; kInternal, `fill` made no input of this shape.
  Status Run(torch::jit::Module* module, std::int64_t rows, const Tower::Fill& fill, std::span<float> out);
  [[nodiscard]] bool Alive();

 private:
  // Pinned host memory and its image on the device.
  struct Pair {
    at::Tensor host;
    at::Tensor device;
  };
  // A part under way, or none.
  struct Slot {
    TowerInput input;
    Pair indices;
    Pair offsets;
    Pair dense;
    at::Tensor result;
    at::Tensor host_result;
    std::int64_t begin = 0;
    std::int64_t rows = 0;  // 0: nothing is under way
    std::string problem;    // of the answer's shape
  };

  Status Submit(torch::jit::Module* module, std::size_t number, std::int64_t begin, std::int64_t end,
                const Tower::Fill& fill);
  Status Collect(std::size_t number, std::span<float> out);
  void Abandon() noexcept;
  void Hold(std::int64_t count, at::ScalarType type, Pair* pair) const;
  [[nodiscard]] at::Tensor HostBuffer(std::int64_t count, at::ScalarType type) const;

  const c10::Device device_;
  const bool pinned_;
  const TowerShape shape_;
  const std::int64_t part_rows_;
  const std::unique_ptr<DeviceQueues> queues_;
  std::mutex mu_;
  std::array<Slot, 2> slots_;  // guarded by mu_
};

}  // namespace freshet
