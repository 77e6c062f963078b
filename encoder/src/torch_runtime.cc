#include "torch_runtime.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <dlfcn.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/version.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <limits>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>

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

}  // namespace

void KeepTypesOfErrors() {
  static std::once_flag once;
  std::call_once(once, [] {
    // LibTorch keeps the pointer until the process ends.
    c10::SetCPUAllocator(new TypedAllocator(c10::GetCPUAllocator()));
    // Else the interpreter makes a std::runtime_error of everything that an operator throws.
    FLAGS_torch_jit_enable_rethrow_caught_exception = true;
  });
}

Status ErrorInFlight(std::string_view name, std::string_view what) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat(name, ": out of memory"));
  } catch (const c10::OutOfMemoryError& e) {
    return ResourceExhausted(StrCat(name, ": out of memory: ", Reason(e)));
  } catch (const torch::jit::JITException& e) {
    return InvalidArgument(StrCat(what, " raised: ", Reason(e)));
  } catch (const c10::NotImplementedError& e) {
    return Internal(StrCat(name, ": LibTorch ", TORCH_VERSION, " cannot run it: ", Reason(e)));
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 8)
  } catch (const c10::AcceleratorError& e) {
    // Of what LibTorch's own allocator does not hand out: pinned memory, a library's workspace.
    constexpr int kCudaMemoryAllocation = 2;
    if (e.get_error_code() == kCudaMemoryAllocation) {
      return ResourceExhausted(StrCat(name, ": out of memory on the device: ", Reason(e)));
    }
    return Internal(StrCat(name, ": the device failed: ", Reason(e)));
#endif
  } catch (const c10::Error& e) {
    return InvalidArgument(StrCat(what, " raised: ", Reason(e)));
  } catch (const std::system_error& e) {
    return Internal(StrCat(name, ": ", Reason(e)));
  } catch (const std::logic_error& e) {  // the script language's own: an index out of a list
    return InvalidArgument(StrCat(what, " raised: ", Reason(e)));
  } catch (const std::runtime_error& e) {  // the script language's own: a division by zero
    return InvalidArgument(StrCat(what, " raised: ", Reason(e)));
  } catch (const std::exception& e) {
    return Internal(StrCat(name, ": LibTorch failed: ", Reason(e)));
  } catch (...) {
    return Internal(StrCat(name, ": LibTorch failed in a way that it does not name"));
  }
}

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
    if (BlasInUse() == "reference") {
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
  if (at::hasMKL()) return "mkl";  // PyTorch's own builds hold it inside
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    if (line.find("openblas") != std::string::npos) return "openblas";
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

}  // namespace freshet
