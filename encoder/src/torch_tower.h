// A TorchScript tower behind a face without LibTorch: headers of that library cost 12-20 s a file.
//
// Place in the flow: TowerInput -> rows of floats; used by the encoders of a model package, and by the trainer to check
// what it wrote. Only the files torch_*.cc include LibTorch. Exceptions of LibTorch end there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/device.h"
#include "freshet/encoder/feature_spec.h"
#include "torch_runtime.h"

namespace freshet {

class CallWatchdog;
class DeviceQueues;

struct TowerShape {
  std::int64_t table_rows = 0;  // indices are below this
  int bags = 0;
  int dense = 0;
  int dim = 0;
};

// What no sound tower takes for one call; loading may take four times as long. Then the process ends (call_watchdog.h).
inline constexpr std::chrono::milliseconds kTowerCallLimit{30'000};

struct TowerOptions {
  std::string name = "tower";                              // for messages: the package and the file it came from
  std::chrono::milliseconds call_limit = kTowerCallLimit;  // another one only in tests
  Device device{Device::Kind::kCpu};
  // Rows of a call that is made as it is loaded, so that no record waits for LibTorch's and BLAS' first buffers. 0:
  // none but the two of the probe.
  std::int64_t warm_up_rows = 0;
  // On a GPU: rows of a part. While one is computed the next is extracted and copied.
  std::int64_t part_rows = 4096;
  // What is done when the device has failed for good: by default the process ends (EndForDevice).
  std::function<void(const std::string& tower, const std::string& reason)> device_lost = nullptr;
  // Tests: these queues in place of a GPU's; what they run is computed on the CPU.
  std::function<std::unique_ptr<DeviceQueues>()> fake_device = nullptr;
};

// A loaded tower, frozen, in evaluation and inference mode. Run is thread-safe. A call that does not come back ends the
// process.
class Tower {
 public:
  // Loads `bytes` and runs it once on the first and the last row of the embedding table, so that a tower that does not
  // fit its feature spec is refused here and not in the stream. Errors: kCorruption; kConfig, there is no such device;
  // kResourceExhausted without memory.
  [[nodiscard]] static Result<std::unique_ptr<Tower>> Load(const std::string& bytes, const TowerShape& shape,
                                                           const TowerOptions& options = {});
  ~Tower();

  // REQUIRES: `input` was made by the spec of `shape`; out.size() == input.rows * dim. Errors: kInvalidArgument when
  // the script or one of its operators refuses the input, or it returns another shape or numbers that are not finite;
  // kResourceExhausted when memory does not suffice: fewer rows may pass; kInternal when it is the model or LibTorch
  // that fails: whatever the input is.
  Status Run(const TowerInput& input, std::span<float> out) const;
  // The same of `rows` rows that `fill` appends to an input that is clear, those from `begin` to `end`. On the CPU in
  // one call, into `scratch`; on a GPU part by part, each while another is computed.
  using Fill = std::function<void(std::size_t begin, std::size_t end, TowerInput* input)>;
  Status Run(std::int64_t rows, const Fill& fill, TowerInput* scratch, std::span<float> out) const;
  [[nodiscard]] const TowerShape& shape() const { return shape_; }
  [[nodiscard]] Device device() const;  // kCpu or kCuda

 private:
  struct Module;
  Tower(std::unique_ptr<Module> module, const TowerShape& shape, const TowerOptions& options);
  Status Probe(std::int64_t rows) const;
  Status RunOnDevice(std::int64_t rows, const Fill& fill, std::span<float> out) const;

  const TowerShape shape_;
  const std::string name_;
  const std::function<void(const std::string&, const std::string&)> device_lost_;
  const std::unique_ptr<Module> module_;
  const std::unique_ptr<CallWatchdog> watchdog_;
};

// Row-major inner products [rows of a, rows of b] of rows of `dim` floats. REQUIRES: out.size() fits. Errors:
// kInternal.
Status InnerProducts(std::span<const float> a, std::span<const float> b, std::int64_t dim, std::span<float> out);

struct TowerParameter {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

// TorchScript bytes of a module with these parameters and this `def forward(self, indices, offsets, dense): ...`.
// Errors: kInternal with the compiler's message.
[[nodiscard]] Result<std::string> SerializeTower(const std::vector<TowerParameter>& parameters,
                                                 const std::string& forward);

}  // namespace freshet
