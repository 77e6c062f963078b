#include "freshet/encoder/device.h"

#include "freshet/core/strings.h"

namespace freshet {

Result<Device> ParseDevice(std::string_view text) {
  constexpr std::string_view kCudaPrefix = "cuda:";
  constexpr long long kMaxIndex = 63;  // LibTorch's own bound is 64 devices
  if (text == "auto") return Device{Device::Kind::kAuto};
  if (text == "cpu") return Device{Device::Kind::kCpu};
  if (text == "cuda") return Device{Device::Kind::kCuda};
  if (text.starts_with(kCudaPrefix)) {
    const auto index = ParseInt(text.substr(kCudaPrefix.size()));
    if (index && *index >= 0 && *index <= kMaxIndex) return Device{Device::Kind::kCuda, static_cast<int>(*index)};
  }
  return ConfigError(StrCat("`", text, "` is no device: auto, cpu, cuda or cuda:N"));
}

std::string DeviceText(const Device& device) {
  switch (device.kind) {
    case Device::Kind::kAuto:
      return "auto";
    case Device::Kind::kCpu:
      return "cpu";
    case Device::Kind::kCuda:
      break;
  }
  return StrCat("cuda:", device.index);
}

}  // namespace freshet
