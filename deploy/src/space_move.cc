#include "space_move.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "freshet/core/file.h"
#include "freshet/core/log.h"
#include "freshet/core/strings.h"
#include "freshet/encoder/package.h"
#include "freshet/ingest/kafka.h"
#include "freshet/store/changelog.h"
#include "freshet/store/restore.h"
#include "node.h"

namespace freshet {
namespace {

namespace fs = std::filesystem;

constexpr auto kAskTimeout = std::chrono::seconds(5);
// In the data directory: the space that was moved to, and its package. They are no part of the store (restore.cc).
constexpr char kSpaceFile[] = "model";
constexpr char kPackagePrefix[] = "model.";
constexpr char kIncoming[] = "model-incoming";
constexpr char kModelFolder[] = "model/";  // of a snapshot

std::string SpaceFile(const Config& config) { return StrCat(config.data_dir, "/", kSpaceFile); }
std::string PackageOf(const Config& config, const std::string& space) {
  return StrCat(config.data_dir, "/", kPackagePrefix, space);
}

// The newest snapshot that a follower of this space can begin from.
Result<SnapshotManifest> NewestOf(const SnapshotRepository& repository, const std::string& space,
                                  std::int64_t as_of_ms) {
  FRESHET_ASSIGN(const std::vector<SnapshotEntry> entries, repository.List());
  bool older = false;
  for (const SnapshotEntry& entry : entries) {
    if (!entry.status.ok() || entry.manifest.space_id != space || entry.manifest.changelog.empty()) continue;
    if (!repository.CheckFiles(entry.manifest).ok()) continue;
    if (entry.manifest.as_of_ms >= as_of_ms) return entry.manifest;
    older = true;
  }
  return Unavailable(StrCat(repository.name(), " has no snapshot of it that is ",
                            older ? "as new as the answers: the engine has not caught up yet, or takes one later"
                                  : "whole: the engine takes one when it has embedded all (freshet snapshot create)"));
}

bool LiesBeneathRoot(const std::string& path, const std::string& root) {
  std::error_code error;
  const fs::path inner = fs::canonical(path, error);
  if (error) return false;
  const fs::path outer = fs::canonical(root, error);
  if (error) return false;
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

Status Checked(const std::string& path, const std::error_code& error) {
  return error ? IoError(StrCat(path, ": ", error.message())) : Status::Ok();
}

Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return Checked(path, error);
}

// The snapshot's model, every file verified, into `directory`.
Status FetchPackage(const SnapshotRepository& repository, const SnapshotManifest& manifest,
                    const std::string& directory) {
  FRESHET_TRY(Remove(directory));
  FRESHET_TRY(CreateDirectories(directory));
  bool any = false;
  for (const SnapshotFile& file : manifest.files) {
    if (!file.name.starts_with(kModelFolder)) continue;
    any = true;
    const std::string path = StrCat(directory, "/", file.name.substr(std::string_view(kModelFolder).size()));
    FRESHET_TRY(repository.Fetch(manifest, file, path, /*stable=*/false, {}));
  }
  if (!any) return Unavailable(StrCat("snapshot ", manifest.id, " holds no model package"));
  FRESHET_ASSIGN(const std::unique_ptr<ModelPackage> package, OpenModelPackage({directory, directory + "/..", 1}));
  if (package->manifest().space_id != manifest.space_id) {
    return Corruption(StrCat("snapshot ", manifest.id, ": its model package is of embedding space ",
                             package->manifest().space_id, ", its vectors of ", manifest.space_id));
  }
  return SyncDirectory(directory);
}

// In this order, so that at every moment the space that is named has its package.
Status TakePackage(const Config& config, const std::string& incoming, const std::string& space) {
  const std::string package = PackageOf(config, space);
  FRESHET_TRY(Remove(package));
  std::error_code error;
  fs::rename(incoming, package, error);
  FRESHET_TRY(Checked(package, error));
  FRESHET_TRY(WriteFileAtomically(SpaceFile(config), space));
  for (fs::directory_iterator it(config.data_dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(kPackagePrefix) && it->path() != fs::path(package)) FRESHET_TRY(Remove(it->path().string()));
  }
  return Checked(config.data_dir, error);
}

}  // namespace

std::optional<LogSpace> SpaceOfLog(const Config& config, const Clock* clock) {
  const std::string& vectors = config.publisher.vectors_topic;
  std::optional<LogSpace> newest;
  const auto look = [&](const RawRecord& record) {
    const auto decoded = DecodeChangelogRecord(record, record.topic == vectors);
    if (!decoded.ok()) return;
    const bool speaks_of_space = decoded->progress || (decoded->item && !decoded->item->update.deleted);
    if (!speaks_of_space || (newest && newest->epoch > decoded->epoch)) return;
    newest = LogSpace{decoded->epoch, decoded->space_id};
  };
  const auto ends = ReadEnds(config.kafka, {vectors, config.publisher.user_events_topic}, clock, kAskTimeout, look);
  return ends.ok() ? newest : std::nullopt;
}

Config WithMovedModel(Config config) {
  if (config.encoder.passthrough) return config;
  const auto space = ReadFile(SpaceFile(config), 64);
  if (!space.ok()) return config;
  const std::string package = PackageOf(config, *space);
  if (!FileExists(package)) return config;
  config.encoder.package = package;
  config.encoder.allowed_root = config.data_dir;
  return config;
}

Status PrepareMove(const Config& config, const SnapshotRepository& repository, const std::string& space,
                   std::int64_t as_of_ms) {
  if (config.encoder.passthrough) {
    return Unavailable("records bring their own vectors here: set `encoder` as the engine's, and start again");
  }
  FRESHET_ASSIGN(const SnapshotManifest manifest, NewestOf(repository, space, as_of_ms));
  const PackageOptions options = PackageOptionsOf(config.encoder);
  const auto configured = OpenModelPackage(options);
  if (configured.ok() && (*configured)->manifest().space_id == space) {
    if (!FileExists(SpaceFile(config))) return Status::Ok();
    return Remove(SpaceFile(config));
  }
  if (!LiesBeneathRoot(config.snapshots.directory, options.allowed_root)) {
    return Unavailable(
        StrCat("put its model package at ", config.encoder.package,
               " (encoder.package), or the snapshots beneath encoder.allowed_root to have it from there"));
  }
  const std::string incoming = StrCat(config.data_dir, "/", kIncoming);
  FRESHET_TRY(FetchPackage(repository, manifest, incoming));
  return TakePackage(config, incoming, space);
}

Result<std::string> RestoreForModel(const Config& config, const std::function<void(double)>& progress) {
  if (config.snapshots.directory.empty() || !FileExists(config.data_dir + "/CURRENT")) return std::string();
  if (config.encoder.passthrough) return std::string();
  RestoreOptions options;
  const auto package = OpenModelPackage(PackageOptionsOf(config.encoder));
  if (!package.ok()) return std::string();
  options.space_id = (*package)->manifest().space_id;
  options.dim = (*package)->manifest().dim;
  options.metric = MetricName((*package)->manifest().metric);
  std::string held;
  {
    const auto store = Store::OpenReadOnly(config.data_dir);
    if (!store.ok()) return std::string();
    held = (*store)->options().space_id;
  }
  if (held == options.space_id) return std::string();
  options.data_dir = config.data_dir;
  options.follower = true;
  options.progress = progress;
  const std::unique_ptr<SnapshotRepository> repository = OpenLocalRepository(config.snapshots.directory);
  const auto restored = RestoreSnapshot(*repository, options);
  if (restored.status().code() == Code::kNotFound) {
    return Unavailable(StrCat(config.data_dir, ": holds items of embedding space ", held, ", the model package is of ",
                              options.space_id, ", and ", restored.status().message(),
                              ". Start again when the engine has taken one, or with the package of ", held));
  }
  FRESHET_TRY(restored.status());
  LogInfo("sidecar", "moved to another embedding space; what it had is kept in `damaged`",
          {{"from", held}, {"to", options.space_id}, {"snapshot", restored->manifest.id}});
  return restored->manifest.id;
}

}  // namespace freshet
