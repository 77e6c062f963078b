#include "package_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "freshet/core/checksum.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "model_manifest.h"

namespace freshet {
namespace {

namespace fs = std::filesystem;

// Removes the directory that it names, whatever is in it by then.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(fs::path path) : path_(std::move(path)) {}
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  const fs::path path_;
};

// Without a slash at the end.
fs::path Normal(const std::string& directory) {
  const fs::path path = fs::path(directory).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

Status SyncDirectory(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return IoError(StrCat(path.string(), ": ", std::strerror(errno)));
  const int rc = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  return rc == 0 ? Status::Ok() : IoError(StrCat(path.string(), ": fsync: ", std::strerror(error)));
}

Status MoveIntoPlace(const fs::path& from, const fs::path& to) {
  std::error_code error;
  const bool exists = fs::exists(to, error);
  const bool package = fs::exists(to / kManifestFile, error) || fs::exists(to / kManifestSumFile, error);
  if (exists && !package && !fs::is_empty(to, error)) {
    return FailedPrecondition(StrCat(to.string(), " exists and is no model package: choose another directory"));
  }
  // Exchanging leaves the old package under the temporary name, and no moment without any.
  const unsigned flags = exists ? RENAME_EXCHANGE : 0U;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0) {
    return IoError(StrCat(to.string(), ": rename: ", std::strerror(errno)));
  }
  return Status::Ok();
}

}  // namespace

Result<std::string> WritePackage(PackageContents contents, const std::string& directory) {
  ModelManifest& manifest = contents.manifest;
  const std::string goldens = GoldensToJson(contents.goldens);
  manifest.sha256 = {{kItemTowerFile, Sha256Hex(contents.item_tower)},
                     {kUserTowerFile, Sha256Hex(contents.user_tower)},
                     {kGoldensFile, Sha256Hex(goldens)}};
  if (manifest.reranker) manifest.sha256[kRerankerFile] = Sha256Hex(contents.reranker);
  manifest.format = FormatOf(manifest);
  manifest.space_id = SpaceIdOf(manifest);
  const std::string yaml = ManifestToYaml(manifest);

  const fs::path target = Normal(directory);
  const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  FRESHET_TRY(CreateDirectories(parent.string()));
  const TemporaryDirectory temporary(parent / StrCat(".", target.filename().string(), ".tmp.", ::getpid()));
  FRESHET_TRY(CreateDirectories(temporary.path().string()));
  const auto write = [&](const char* file, std::string_view bytes) {
    return WriteFileAtomically((temporary.path() / file).string(), bytes);
  };
  FRESHET_TRY(write(kItemTowerFile, contents.item_tower));
  FRESHET_TRY(write(kUserTowerFile, contents.user_tower));
  if (manifest.reranker) FRESHET_TRY(write(kRerankerFile, contents.reranker));
  FRESHET_TRY(write(kGoldensFile, goldens));
  FRESHET_TRY(write(kManifestFile, yaml));
  FRESHET_TRY(write(kManifestSumFile, StrCat(Sha256Hex(yaml), "  ", kManifestFile, "\n")));
  FRESHET_TRY(FaultPoint("package.before_rename"));
  FRESHET_TRY(MoveIntoPlace(temporary.path(), target));
  FRESHET_TRY(SyncDirectory(parent));
  return manifest.space_id;
}

std::string PathBeside(const std::string& directory, const std::string& suffix) {
  return Normal(directory).string() + suffix;
}

}  // namespace freshet
