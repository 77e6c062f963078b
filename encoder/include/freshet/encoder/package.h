// A model package: a directory that carries everything a tower needs, checked before any of it runs.
//
// Place in the flow: written by training (ours or an export from PyTorch), opened by engine (item tower) and sidecar
// (user tower, and the re-ranker where there is one). Layout and `model.yaml` are described in encoder/README.md.
// TorchScript is executable code: packages are opened only beneath an allowed directory, checksums are verified before
// anything is parsed, and the golden inputs are run before the first real one. Thread-compatible; the encoders it makes
// say for themselves.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/device.h"
#include "freshet/encoder/encoder.h"
#include "freshet/encoder/feature_spec.h"
#include "freshet/encoder/reranker.h"

namespace freshet {

// What a re-ranker is given beside vectors and scores; either may be empty.
struct RerankSpec {
  FeatureSpec user;
  FeatureSpec item;  // of the items' attributes
};

struct ModelManifest {
  int format = 1;  // the writer takes the lowest that can hold its features
  std::string name;
  std::string version;
  std::string space_id;  // 16 hex digits, derived from the SHA-256 of both towers and the feature spec
  int dim = 0;
  Metric metric = Metric::kCosine;
  std::string signature = "bags-dense-v1";  // how the towers are called; see encoder/README.md
  FeatureSpec item;
  FeatureSpec user;
  std::optional<RerankSpec> reranker;         // nothing: the package has none
  std::string library_version;                // LibTorch that wrote it
  std::map<std::string, std::string> sha256;  // file name -> lower-case hex
};

struct PackageOptions {
  std::string directory;
  std::string allowed_root;  // the package must lie beneath it, links resolved; empty: anywhere (command-line tools)
  int intra_op_threads = 1;  // of the process: the first package decides
  Device device = {};
};

class ModelPackage {
 public:
  virtual ~ModelPackage() = default;
  [[nodiscard]] virtual const ModelManifest& manifest() const = 0;
  // All of its files, model.yaml too: name -> SHA-256, as they were when it was opened.
  [[nodiscard]] virtual const std::map<std::string, std::string>& files() const = 0;
  // Each call loads its own copy of the tower and has run its goldens, and so it is warm. Errors: kCorruption,
  // kFailedPrecondition; kConfig, there is no such device.
  [[nodiscard]] virtual Result<std::unique_ptr<ItemEncoder>> LoadItemEncoder() const = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<UserEncoder>> LoadUserEncoder() const = 0;
  // Likewise; on the CPU. REQUIRES: manifest().reranker.
  [[nodiscard]] virtual Result<std::unique_ptr<Reranker>> LoadReranker() const = 0;
};

// Checksums first, then model.yaml. Errors: kNotFound, kCorruption (file and reason), kFailedPrecondition (outside the
// allowed root, unknown format or signature).
[[nodiscard]] Result<std::unique_ptr<ModelPackage>> OpenModelPackage(const PackageOptions& options);

// The BLAS that LibTorch resolved to: "mkl", "openblas" or "reference", which is 25 times slower (warned about at
// start).
[[nodiscard]] std::string BlasInUse();

// OpenBLAS knows processors by their numbers, and on one that is newer than itself it computes without AVX: 3.6 times
// slower. Where it did so, the value of the environment's OPENBLAS_CORETYPE for this processor; the library reads it
// when it is loaded, so it holds from the start of a process. Else, and where the variable is set: empty.
[[nodiscard]] std::string BetterBlasCore();

}  // namespace freshet
