#include "package_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "freshet/core/checksum.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "model_manifest.h"

namespace freshet {
namespace {

namespace fs = std::filesystem;

// A directory, locked: so that who comes later knows whether somebody writes in it still. The lock goes with the
// process.
class LockedDirectory {
 public:
  explicit LockedDirectory(const fs::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    locked_ = fd_ >= 0 && ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
  }
  ~LockedDirectory() {
    if (fd_ >= 0) ::close(fd_);
  }
  LockedDirectory(const LockedDirectory&) = delete;
  LockedDirectory& operator=(const LockedDirectory&) = delete;
  [[nodiscard]] bool locked() const { return locked_; }

 private:
  const int fd_;
  bool locked_ = false;
};

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

// What writers left that were killed.
void RemoveAbandoned(const fs::path& parent, const std::string& prefix) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator at(parent, error), end; !error && at != end; at.increment(error)) {
    if (at->path().filename().string().starts_with(prefix)) found.push_back(at->path());
  }
  for (const fs::path& path : found) {
    const LockedDirectory mine(path);
    if (mine.locked()) fs::remove_all(path, error);
  }
}

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
  FRESHET_TRY(CheckReplaceable(to.string()));
  // Exchanging leaves the old package under the temporary name, and no moment without any.
  std::error_code error;
  const unsigned flags = fs::exists(to, error) ? RENAME_EXCHANGE : 0U;
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
  const std::string prefix = StrCat(".", target.filename().string(), ".tmp.");
  RemoveAbandoned(parent, prefix);
  const fs::path own = parent / StrCat(prefix, ::getpid());
  std::error_code error;
  if (fs::exists(own, error)) return FailedPrecondition(StrCat(own.string(), ": another process writes this package"));
  const TemporaryDirectory temporary(own);
  FRESHET_TRY(CreateDirectories(own.string()));
  const LockedDirectory lock(own);
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

Status CheckReplaceable(const std::string& directory) {
  const fs::path path = Normal(directory);
  std::error_code error;
  if (!fs::exists(path, error)) return Status::Ok();
  if (fs::exists(path / kManifestFile, error) || fs::exists(path / kManifestSumFile, error)) return Status::Ok();
  if (fs::is_directory(path, error) && fs::is_empty(path, error)) return Status::Ok();
  return FailedPrecondition(StrCat(path.string(), " exists and is no model package: choose another directory"));
}

std::string PathBeside(const std::string& directory, const std::string& suffix) {
  return Normal(directory).string() + suffix;
}

}  // namespace freshet
