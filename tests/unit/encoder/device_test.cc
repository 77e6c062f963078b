#include "freshet/encoder/device.h"

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

TEST(DeviceTest, TextsAreDevices) {
  const std::pair<const char*, Device> cases[] = {{"auto", {Device::Kind::kAuto, 0}},
                                                  {"cpu", {Device::Kind::kCpu, 0}},
                                                  {"cuda", {Device::Kind::kCuda, 0}},
                                                  {"cuda:0", {Device::Kind::kCuda, 0}},
                                                  {"cuda:3", {Device::Kind::kCuda, 3}}};
  for (const auto& [text, device] : cases) {
    const Result<Device> parsed = ParseDevice(text);
    ASSERT_OK(parsed);
    EXPECT_EQ(*parsed, device) << text;
    EXPECT_EQ(*ParseDevice(DeviceText(device)), device) << text;
  }
}

TEST(DeviceTest, WhatIsNoDeviceIsRefused) {
  for (const char* text : {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:64", "cuda:1.5", "cuda:x", "cuda0", "auto:0"}) {
    const Status status = ParseDevice(text).status();
    EXPECT_EQ(status.code(), Code::kConfig) << text;
    EXPECT_EQ(status.message(), std::string("`") + text + "` is no device: auto, cpu, cuda or cuda:N");
  }
}

}  // namespace
}  // namespace freshet
