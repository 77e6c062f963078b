// Where a tower runs, as a configuration names it: `auto`, `cpu`, `cuda` or `cuda:N`.
//
// A plain value. Whether there is such a device is known only when a tower is loaded onto it (package.h).
#pragma once

#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

struct Device {
  // kAuto: the item tower, which embeds batches, on the first CUDA device where LibTorch has one, else on the CPU; the
  // user tower, which embeds one user at a time, on the CPU.
  enum class Kind { kAuto, kCpu, kCuda } kind = Kind::kAuto;
  int index = 0;  // of the CUDA device
  friend bool operator==(const Device&, const Device&) = default;
};

// Errors: kConfig.
[[nodiscard]] Result<Device> ParseDevice(std::string_view text);
[[nodiscard]] std::string DeviceText(const Device& device);

}  // namespace freshet
