#include "freshet/encoder/package.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "freshet/core/checksum.h"
#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "goldens.h"
#include "model_manifest.h"
#include "package_reranker.h"
#include "torch_tower.h"
#include "tower_encoders.h"

namespace freshet {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxSumBytes = 4096;
constexpr std::size_t kMaxManifestBytes = std::size_t{256} << 20;  // vocabularies are inside
constexpr std::size_t kMaxGoldensBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxTowerBytes = std::size_t{8} << 30;
constexpr std::int64_t kWarmUpRows = 256;  // a batch as configured by default

bool LiesBeneath(const fs::path& path, const fs::path& root) {
  const auto [root_end, path_at] = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return root_end == root.end() && path_at != path.end();
}

// The directory with every link resolved, provided that it lies beneath the allowed root.
Result<fs::path> Resolve(const PackageOptions& options) {
  std::error_code error;
  const fs::path directory = fs::canonical(options.directory, error);
  if (error) return NotFound(StrCat("model package ", options.directory, ": ", error.message()));
  if (!fs::is_directory(directory, error))
    return NotFound(StrCat("model package ", options.directory, ": no directory"));
  if (options.allowed_root.empty()) return directory;
  const fs::path root = fs::canonical(options.allowed_root, error);
  if (error) return FailedPrecondition(StrCat("model root ", options.allowed_root, ": ", error.message()));
  if (!LiesBeneath(directory, root)) {
    return FailedPrecondition(StrCat("model package ", options.directory, " is ", directory.string(),
                                     ", which does not lie beneath ", root.string()));
  }
  return directory;
}

class Package final : public ModelPackage {
 public:
  Package(fs::path directory, const PackageOptions& options)
      : directory_(std::move(directory)), threads_(options.intra_op_threads), device_(options.device) {}

  Status Open() {
    FRESHET_ASSIGN(const std::string sum, Read(kManifestSumFile, kMaxSumBytes));
    FRESHET_ASSIGN(const std::string yaml, Read(kManifestFile, kMaxManifestBytes));
    // The format of sha256sum: "<hash>  model.yaml\n".
    if (sum != StrCat(Sha256Hex(yaml), "  ", kManifestFile, "\n")) {
      return Bad(kManifestFile, StrCat("its SHA-256 is not the one in ", kManifestSumFile));
    }
    Result<ModelManifest> manifest = ManifestFromYaml(yaml);
    if (!manifest.ok()) return manifest.status().Prefixed(directory_.string());
    manifest_ = std::move(*manifest);
    files_ = manifest_.sha256;
    files_[kManifestFile] = Sha256Hex(yaml);
    files_[kManifestSumFile] = Sha256Hex(sum);
    FRESHET_TRY(ReadChecked(kItemTowerFile, kMaxTowerBytes).status());
    FRESHET_TRY(ReadChecked(kUserTowerFile, kMaxTowerBytes).status());
    FRESHET_ASSIGN(const std::string json, ReadChecked(kGoldensFile, kMaxGoldensBytes));
    Result<Goldens> goldens = GoldensFromJson(json, manifest_.dim);
    if (!goldens.ok()) return goldens.status().Prefixed(directory_.string());
    goldens_ = std::move(*goldens);
    if (!manifest_.reranker) return Status::Ok();
    if (goldens_.reranks.empty()) return Bad(kGoldensFile, "holds nothing that the re-ranker must answer");
    return ReadChecked(kRerankerFile, kMaxTowerBytes).status();
  }

  const ModelManifest& manifest() const override { return manifest_; }
  const std::map<std::string, std::string>& files() const override { return files_; }

  Result<std::unique_ptr<ItemEncoder>> LoadItemEncoder() const override {
    FRESHET_ASSIGN(std::unique_ptr<Tower> tower, LoadTower(kItemTowerFile, manifest_.item, device_, kWarmUpRows));
    std::unique_ptr<ItemEncoder> encoder =
        MakeTowerItemEncoder(manifest_, std::move(tower), goldens_, (directory_ / kItemTowerFile).string());
    const Status goldens = CheckGoldens(goldens_, manifest_.metric, encoder.get());
    if (!goldens.ok()) return goldens.Prefixed((directory_ / kItemTowerFile).string());
    return encoder;
  }

  Result<std::unique_ptr<UserEncoder>> LoadUserEncoder() const override {
    const Device device = device_.kind == Device::Kind::kAuto ? Device{Device::Kind::kCpu} : device_;
    FRESHET_ASSIGN(std::unique_ptr<Tower> tower, LoadTower(kUserTowerFile, manifest_.user, device, 0));
    std::unique_ptr<UserEncoder> encoder = MakeTowerUserEncoder(manifest_, std::move(tower));
    const Status goldens = CheckGoldens(goldens_, manifest_.metric, *encoder);
    if (!goldens.ok()) return goldens.Prefixed((directory_ / kUserTowerFile).string());
    return encoder;
  }

  Result<std::unique_ptr<Reranker>> LoadReranker() const override {
    if (!manifest_.reranker) return NotFound(StrCat(directory_.string(), ": has no re-ranker"));
    FRESHET_ASSIGN(const std::string bytes, ReadChecked(kRerankerFile, kMaxTowerBytes));
    InitTorch(threads_);
    TowerOptions options;
    options.name = (directory_ / kRerankerFile).string();
    auto script = RerankScript::Load(bytes, ShapeOf(manifest_.reranker->user, manifest_.dim),
                                     ShapeOf(manifest_.reranker->item, manifest_.dim), options);
    if (!script.ok()) return script.status().Prefixed(options.name);
    std::unique_ptr<Reranker> reranker = MakePackageReranker(manifest_, std::move(*script));
    const Status goldens = CheckGoldens(goldens_, *reranker);
    if (!goldens.ok()) return goldens.Prefixed(options.name);
    return reranker;
  }

 private:
  Status Bad(const std::string& file, std::string_view reason) const {
    return Corruption(StrCat((directory_ / file).string(), ": ", reason));
  }

  Result<std::string> Read(const char* file, std::size_t max_bytes) const {
    const fs::path path = directory_ / file;
    std::error_code error;
    const fs::path resolved = fs::canonical(path, error);
    if (error) return Bad(file, error.message());
    if (!LiesBeneath(resolved, directory_)) {
      return FailedPrecondition(StrCat(path.string(), ": links to ", resolved.string(), ", outside its package"));
    }
    if (!fs::is_regular_file(resolved, error)) return Bad(file, "is no regular file");
    Result<std::string> bytes = ReadFile(resolved.string(), max_bytes);
    if (bytes.ok()) return bytes;
    if (bytes.status().code() == Code::kResourceExhausted)
      return Bad(file, StrCat("is larger than ", max_bytes, " bytes"));
    return bytes.status();
  }

  // The bytes that were checked are the bytes that are used: a file changed between two reads is noticed.
  Result<std::string> ReadChecked(const char* file, std::size_t max_bytes) const {
    FRESHET_ASSIGN(std::string bytes, Read(file, max_bytes));
    if (Sha256Hex(bytes) != manifest_.sha256.at(file)) {
      return Bad(file, StrCat("its SHA-256 is not the one in ", kManifestFile));
    }
    return bytes;
  }

  Result<std::unique_ptr<Tower>> LoadTower(const char* file, const FeatureSpec& spec, const Device& device,
                                           std::int64_t warm_up_rows) const {
    FRESHET_ASSIGN(const std::string bytes, ReadChecked(file, kMaxTowerBytes));
    InitTorch(threads_);
    TowerOptions options;
    options.name = (directory_ / file).string();
    options.device = device;
    options.warm_up_rows = warm_up_rows;
    Result<std::unique_ptr<Tower>> tower = Tower::Load(bytes, ShapeOf(spec, manifest_.dim), options);
    if (!tower.ok()) return tower.status().Prefixed(options.name);
    if ((*tower)->device().kind == Device::Kind::kCuda) {
      LogInfo("encoder", "tower on a GPU", {{"file", options.name}, {"device", DeviceText((*tower)->device())}});
    }
    return tower;
  }

  const fs::path directory_;
  const int threads_;
  const Device device_;
  ModelManifest manifest_;
  std::map<std::string, std::string> files_;
  Goldens goldens_;
};

}  // namespace

Result<std::unique_ptr<ModelPackage>> OpenModelPackage(const PackageOptions& options) {
  if (options.intra_op_threads < 1) return ConfigError("a model needs at least one thread");
  FRESHET_ASSIGN(fs::path directory, Resolve(options));
  auto package = std::make_unique<Package>(std::move(directory), options);
  FRESHET_TRY(package->Open());
  return std::unique_ptr<ModelPackage>(std::move(package));
}

}  // namespace freshet
