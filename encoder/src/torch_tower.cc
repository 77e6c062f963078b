#include "torch_tower.h"

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <dlfcn.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/cuda.h>
#include <torch/script.h>
#include <torch/version.h>

#include <bit>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <mutex>
#include <new>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "call_watchdog.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/package.h"

namespace freshet {
namespace {

// LibTorch's messages carry pages of stack; the last line that says something is the reason.
std::string Reason(const std::exception& e) {
  constexpr std::size_t kMaxReason = 300;
  std::string reason;
  for (const std::string& line : Split(e.what(), '\n')) {
    const std::string_view text = Trim(line);
    if (text.starts_with("Exception raised from") || text.starts_with("frame #")) break;
    if (text.find_first_not_of("~^-<>. ") == std::string_view::npos || text.starts_with("<---")) continue;
    // "... <--- HERE" underlines the source line above it: keep the error, not the underline.
    if (text.ends_with("<--- HERE")) continue;
    reason = text;
    if (text.find("Error") != std::string_view::npos || text.starts_with("Unknown builtin op")) break;
  }
  if (reason.size() > kMaxReason) reason.resize(kMaxReason);
  return reason;
}

// LibTorch's own allocator says that memory does not suffice by the exception of any failed check; this one by the type
// that LibTorch has for it on other devices.
class TypedAllocator final : public c10::Allocator {
 public:
  explicit TypedAllocator(c10::Allocator* base) : base_(base) {}
  // Up to LibTorch 2.2 the first is the virtual function, later the second, and only then there is a copy_data.
  c10::DataPtr allocate(std::size_t bytes) const { return Allocate(bytes); }  // NOLINT(modernize-use-override)
  c10::DataPtr allocate(std::size_t bytes) { return Allocate(bytes); }        // NOLINT(modernize-use-override)
  void copy_data(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }
  c10::DeleterFnPtr raw_deleter() const { return base_->raw_deleter(); }  // NOLINT(modernize-use-override)

 private:
  c10::DataPtr Allocate(std::size_t bytes) const {
    try {
      return base_->allocate(bytes);
    } catch (const c10::Error& e) {
      // A size that no memory could have is a mistake of the script's.
      if (bytes > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max())) throw;
      C10_THROW_ERROR(OutOfMemoryError, e.msg());
    }
  }

  c10::Allocator* const base_;
};

// So that every failure arrives with the type that it was thrown with.
void KeepTypesOfErrors() {
  static std::once_flag once;
  std::call_once(once, [] {
    // LibTorch keeps the pointer until the process ends.
    c10::SetCPUAllocator(new TypedAllocator(c10::GetCPUAllocator()));
    // Else the interpreter makes a std::runtime_error of everything that an operator throws.
    FLAGS_torch_jit_enable_rethrow_caught_exception = true;
  });
}

// What the exception in flight means, by its type. What the input may be to blame for is the input's: a record that is
// refused is looked at alone, and the model is asked for its goldens before (encode_stage). So a broken device, of
// which only the newest LibTorch has a type, does not pass for bad records either. REQUIRES: called in a catch block.
Status ErrorInFlight(std::string_view name) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat(name, ": out of memory"));
  } catch (const c10::OutOfMemoryError& e) {
    return ResourceExhausted(StrCat(name, ": out of memory: ", Reason(e)));
  } catch (const torch::jit::JITException& e) {
    return InvalidArgument(StrCat("the tower raised: ", Reason(e)));
  } catch (const c10::NotImplementedError& e) {
    return Internal(StrCat(name, ": LibTorch ", TORCH_VERSION, " cannot run it: ", Reason(e)));
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 8)
  } catch (const c10::AcceleratorError& e) {
    return Internal(StrCat(name, ": the device failed: ", Reason(e)));
#endif
  } catch (const c10::Error& e) {
    return InvalidArgument(StrCat("the tower raised: ", Reason(e)));
  } catch (const std::system_error& e) {
    return Internal(StrCat(name, ": ", Reason(e)));
  } catch (const std::logic_error& e) {  // the script language's own: an index out of a list
    return InvalidArgument(StrCat("the tower raised: ", Reason(e)));
  } catch (const std::runtime_error& e) {  // the script language's own: a division by zero
    return InvalidArgument(StrCat("the tower raised: ", Reason(e)));
  } catch (const std::exception& e) {
    return Internal(StrCat(name, ": LibTorch failed: ", Reason(e)));
  } catch (...) {
    return Internal(StrCat(name, ": LibTorch failed in a way that it does not name"));
  }
}

template <typename T>
at::Tensor View(std::span<T> values, at::IntArrayRef shape, at::ScalarType type) {
  // LibTorch has no tensor over const memory; towers do not write to their inputs.
  return torch::from_blob(const_cast<std::remove_const_t<T>*>(values.data()), shape, at::TensorOptions().dtype(type));
}

// No branch for each, so that it runs on vectors of them.
bool AllFinite(std::span<const float> values) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t bad = 0;
  for (const float value : values) bad |= (std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent ? 1U : 0U;
  return bad == 0;
}

Result<c10::Device> Resolve(const Device& device) {
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

}  // namespace

void InitTorch(int intra_op_threads) {
  KeepTypesOfErrors();
  static std::once_flag once;
  static int chosen = 0;
  std::call_once(once, [&] {
    chosen = intra_op_threads;
    at::set_num_threads(intra_op_threads);
    at::set_num_interop_threads(1);
    // OpenBLAS keeps threads of its own, and with more of them than cores a batch takes a hundred times longer.
    using SetThreads = void (*)(int);
    if (const auto set = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))) {
      set(intra_op_threads);
    }
    // The profiling executor recompiles for the shapes that it has seen; batches come in every size.
    torch::jit::getExecutorMode() = false;
    torch::jit::getProfilingMode() = false;
    if (BlasInUse() != "openblas") {
      LogWarning("encoder", "LibTorch runs on the reference BLAS, about 25 times slower: install libopenblas0-pthread");
    }
    if (const std::string core = BetterBlasCore(); !core.empty()) {
      LogWarning("encoder", "OpenBLAS is older than this processor and computes without AVX, several times slower",
                 {{"start_with", StrCat("OPENBLAS_CORETYPE=", core)}});
    }
  });
  if (chosen != intra_op_threads) {
    LogWarning("encoder", "the number of model threads is already set",
               {{"threads", StrCat(chosen)}, {"wanted", StrCat(intra_op_threads)}});
  }
}

std::string TorchVersion() { return TORCH_VERSION; }

std::string BlasInUse() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    if (line.find("openblas") != std::string::npos || line.find("libmkl") != std::string::npos) return "openblas";
  }
  // Some distributions install OpenBLAS under the name libblas.so.3.
  return dlsym(RTLD_DEFAULT, "openblas_set_num_threads") != nullptr ? "openblas" : "reference";
}

std::string BetterBlasCore() {
#if defined(__x86_64__)
  using CoreName = const char* (*)();
  const auto core_name = reinterpret_cast<CoreName>(dlsym(RTLD_DEFAULT, "openblas_get_corename"));
  if (core_name == nullptr || std::getenv("OPENBLAS_CORETYPE") != nullptr) return "";
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return "";
  std::string chosen = core_name();
  for (char& c : chosen) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* good : {"haswell", "zen", "excavator", "skylakex", "cooperlake", "sapphirerapids"}) {
    if (chosen == good) return "";
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
  return avx512 ? "SkylakeX" : "Haswell";
#else
  return "";
#endif
}

struct Tower::Module {
  // forward() of a frozen module changes nothing, but is not declared const.
  mutable torch::jit::Module module;
  c10::Device device{at::kCPU};
};

Tower::Tower(std::unique_ptr<Module> module, const TowerShape& shape, const TowerOptions& options)
    : shape_(shape),
      name_(options.name),
      module_(std::move(module)),
      watchdog_(std::make_unique<CallWatchdog>(
          options.call_limit, [name = options.name, limit = options.call_limit] { EndForModel(name, limit); })) {}
Tower::~Tower() = default;

Result<std::unique_ptr<Tower>> Tower::Load(const std::string& bytes, const TowerShape& shape,
                                           const TowerOptions& options) {
  constexpr int kLoadLimits = 4;
  KeepTypesOfErrors();
  FRESHET_ASSIGN(const c10::Device device, Resolve(options.device));
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
  } catch (...) {
    Status error = ErrorInFlight("loading");
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
    if (!module_->device.is_cpu()) {
      for (torch::jit::IValue& argument : arguments) argument = argument.toTensor().to(module_->device);
    }
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
    return ErrorInFlight(name_);
  }
  return Status::Ok();
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
