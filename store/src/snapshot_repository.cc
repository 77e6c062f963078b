#include "freshet/store/snapshot_repository.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "freshet/core/descriptor.h"
#include "freshet/core/fault.h"
#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "sequence_floor.h"
#include "snapshot_files.h"

namespace freshet {
namespace {

constexpr std::size_t kMaxManifestBytes = std::size_t{256} << 20;
constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kTrash = ".trash-";
constexpr char kNumbers[] = "/.numbers";

bool IsRealDirectory(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

class LocalRepository final : public SnapshotRepository {
 public:
  explicit LocalRepository(std::string root) : root_(std::move(root)) {}

  [[nodiscard]] Result<std::vector<SnapshotEntry>> List() const override {
    std::vector<SnapshotEntry> entries;
    const auto names = ListDirectory(root_);
    if (!names.ok()) {
      if (names.status().code() == Code::kNotFound) return entries;
      return names.status();
    }
    for (const std::string& name : *names) {
      if (!IsValidSnapshotId(name) || !IsRealDirectory(PathOf(name))) continue;
      auto manifest = Read(name);
      // Removed since it was listed.
      if (manifest.status().code() == Code::kNotFound && !FileExists(PathOf(name))) continue;
      SnapshotEntry& entry = entries.emplace_back();
      entry.id = name;
      entry.status = manifest.status();
      if (manifest.ok()) entry.manifest = std::move(*manifest);
    }
    std::stable_sort(entries.begin(), entries.end(), [](const SnapshotEntry& a, const SnapshotEntry& b) {
      if (a.status.ok() != b.status.ok()) return a.status.ok();
      return a.status.ok() ? IsNewer(a.manifest, b.manifest) : a.id > b.id;
    });
    return entries;
  }

  [[nodiscard]] Result<SnapshotManifest> Read(const std::string& id) const override {
    if (!IsValidSnapshotId(id)) return InvalidArgument(StrCat("`", id, "` is not a snapshot id"));
    if (!IsRealDirectory(PathOf(id))) return NotFound(StrCat(root_, ": holds no snapshot ", id));
    const std::string path = PathOf(id) + "/manifest.json";
    const auto text = ReadFile(path, kMaxManifestBytes);
    if (text.status().code() == Code::kNotFound) return Corruption(path + ": missing");
    if (!text.ok()) return text.status();
    auto manifest = DecodeManifest(*text);
    if (!manifest.ok()) return manifest.status().Prefixed(path);
    if (manifest->id != id) return Corruption(StrCat(path, ": is that of ", manifest->id));
    return manifest;
  }

  Status Put(SnapshotManifest* manifest, const std::vector<SnapshotSource>& sources,
             const std::function<Status(const SnapshotSource&)>& check, const Throttle& throttle) override {
    FRESHET_TRY(CreateDirectories(root_));
    if (FileExists(PathOf(manifest->id))) return FailedPrecondition(PathOf(manifest->id) + ": is there already");
    FRESHET_ASSIGN(const std::vector<SnapshotEntry> entries, List());
    const SnapshotManifest* newest = !entries.empty() && entries[0].status.ok() ? &entries[0].manifest : nullptr;
    manifest->previous = newest == nullptr ? "" : newest->id;
    const std::string temporary = root_ + "/" + std::string(kTemporary) + manifest->id;
    FRESHET_TRY(RemoveTree(temporary));
    Status status = Fill(temporary, manifest, newest, sources, check, throttle);
    if (status.ok()) status = FaultPoint("snapshot.before_publish");
    if (status.ok()) status = Publish(temporary, PathOf(manifest->id));
    if (!status.ok()) (void)RemoveTree(temporary);  // what stays is collected at the next start
    return status;
  }

  Status Fetch(const SnapshotManifest& manifest, const SnapshotFile& file, const std::string& path, bool stable,
               const Throttle& throttle) const override {
    const std::string from = PathOf(manifest.id) + "/" + file.name;
    FRESHET_TRY(CheckFolder(manifest.id, file.name));
    bool linked = false;
    bool of_source = true;
    if (stable) {
      FRESHET_ASSIGN(linked, TryLink(from, path));
    }
    const auto sum = linked ? SumOfFile(path, throttle) : CopyWithSum(from, path, throttle, &of_source);
    if (sum.ok()) return Compare(from, file, *sum);
    const Status failed = linked ? sum.status().Prefixed(from) : sum.status();
    return of_source && failed.code() == Code::kIoError ? Unavailable(failed.message()) : failed;
  }

  [[nodiscard]] Status CheckFiles(const SnapshotManifest& manifest) const override {
    for (const SnapshotFile& file : manifest.files) {
      const std::string path = PathOf(manifest.id) + "/" + file.name;
      FRESHET_TRY(CheckFolder(manifest.id, file.name));
      const auto bytes = FileBytes(path);
      if (bytes.status().code() == Code::kNotFound) return Corruption(path + ": missing");
      if (!bytes.ok()) return bytes.status();
      if (*bytes != file.bytes) return WrongSize(path, file, *bytes);
    }
    return Status::Ok();
  }

  Status Verify(const SnapshotManifest& manifest, const Throttle& throttle) const override {
    for (const SnapshotFile& file : manifest.files) {
      const std::string path = PathOf(manifest.id) + "/" + file.name;
      FRESHET_TRY(CheckFolder(manifest.id, file.name));
      const auto sum = SumOfFile(path, throttle);
      if (sum.status().code() == Code::kNotFound) return Corruption(path + ": missing");
      if (!sum.ok()) return sum.status();
      FRESHET_TRY(Compare(path, file, *sum));
    }
    return Status::Ok();
  }

  Status Remove(const std::string& id) override {
    if (!IsValidSnapshotId(id)) return InvalidArgument(StrCat("`", id, "` is not a snapshot id"));
    if (!IsRealDirectory(PathOf(id))) return NotFound(StrCat(root_, ": holds no snapshot ", id));
    const std::string trash = root_ + "/" + std::string(kTrash) + id;
    FRESHET_TRY(RemoveTree(trash));
    FRESHET_TRY(FaultPoint("snapshot.before_remove"));
    FRESHET_TRY(RenamePath(PathOf(id), trash));
    FRESHET_TRY(FaultPoint("snapshot.before_remove_sync"));
    FRESHET_TRY(SyncDirectory(root_));
    FRESHET_TRY(FaultPoint("snapshot.after_remove"));
    return RemoveTree(trash);
  }

  [[nodiscard]] Result<std::uint64_t> NotedSequence(std::uint64_t epoch) const override {
    FRESHET_ASSIGN(const SequenceFloors floors, ReadSequenceFloors(root_ + kNumbers));
    const auto it = floors.find(epoch);
    return it == floors.end() ? 0 : it->second;
  }

  Status NoteSequence(std::uint64_t epoch, std::uint64_t sequence) override {
    return RaiseSequenceFloor(root_ + kNumbers, epoch, sequence);
  }

  Result<std::size_t> CollectGarbage() override {
    const auto names = ListDirectory(root_);
    if (names.status().code() == Code::kNotFound) return std::size_t{0};
    if (!names.ok()) return names.status();
    std::size_t removed = 0;
    for (const std::string& name : *names) {
      if (!name.starts_with(kTemporary) && !name.starts_with(kTrash)) continue;
      FRESHET_TRY(RemoveTree(root_ + "/" + name));
      ++removed;
    }
    return removed;
  }

  [[nodiscard]] std::uint64_t free_bytes() const override {
    // Before the first put the directory is not there: the nearest one above it is on the same file system.
    std::filesystem::path path = std::filesystem::absolute(root_);
    while (!FileExists(path.string()) && path.has_relative_path()) path = path.parent_path();
    return FreeBytes(path.string());
  }
  [[nodiscard]] bool SharesWith(const std::string& path) const override {
    struct stat a {};
    struct stat b {};
    std::filesystem::path root = std::filesystem::absolute(root_);
    while (!FileExists(root.string()) && root.has_relative_path()) root = root.parent_path();
    return ::stat(root.c_str(), &a) == 0 && ::stat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev;
  }
  [[nodiscard]] std::string name() const override { return root_; }

 private:
  [[nodiscard]] std::string PathOf(const std::string& id) const { return root_ + "/" + id; }

  Status Publish(const std::string& temporary, const std::string& path) const {
    FRESHET_TRY(RenamePath(temporary, path));
    Status status = FaultPoint("snapshot.before_publish_sync");
    if (status.ok()) status = SyncDirectory(root_);
    if (status.ok()) status = FaultPoint("snapshot.after_publish");
    // The caller is told that there is none and takes another: it must not find both.
    if (!status.ok()) (void)RenamePath(path, temporary);
    return status;
  }

  // No link leads out of the snapshot: its directory and its folders are real ones, files are opened without following.
  Status CheckFolder(const std::string& id, const std::string& name) const {
    const std::size_t slash = name.find('/');
    const std::string folder = slash == std::string::npos ? "" : "/" + name.substr(0, slash);
    for (const std::string& path : {PathOf(id), PathOf(id) + folder}) {
      struct stat info {};
      const bool found = ::lstat(path.c_str(), &info) == 0;
      // Not to be told from damage by the code alone: what cannot be looked at may be whole.
      if (!found && errno != ENOENT && errno != ENOTDIR) return FromErrno(errno, path, "stat");
      if (!found || !S_ISDIR(info.st_mode)) return Corruption(path + ": missing, or not a directory");
    }
    return Status::Ok();
  }

  static Status WrongSize(const std::string& path, const SnapshotFile& file, std::uint64_t bytes) {
    return Corruption(StrCat(path, ": has ", bytes, " bytes, the manifest says ", file.bytes));
  }

  static Status Compare(const std::string& path, const SnapshotFile& file, const FileSum& sum) {
    if (sum.bytes != file.bytes) return WrongSize(path, file, sum.bytes);
    if (sum.xxh3 != file.xxh3) return Corruption(path + ": its checksum differs from the manifest's");
    return Status::Ok();
  }

  Status Fill(const std::string& directory, SnapshotManifest* manifest, const SnapshotManifest* newest,
              const std::vector<SnapshotSource>& sources, const std::function<Status(const SnapshotSource&)>& check,
              const Throttle& throttle) const {
    FRESHET_TRY(CreateDirectories(directory));
    manifest->files.clear();
    std::set<std::string> folders;
    for (const SnapshotSource& source : sources) {
      if (const std::size_t slash = source.name.find('/'); slash != std::string::npos) {
        if (folders.insert(source.name.substr(0, slash)).second) {
          FRESHET_TRY(CreateDirectories(directory + "/" + source.name.substr(0, slash)));
        }
      }
      FRESHET_TRY(FaultPoint("snapshot.before_file"));
      FRESHET_ASSIGN(SnapshotFile file, PutFile(directory, newest, source, check, throttle));
      manifest->files.push_back(std::move(file));
    }
    FRESHET_TRY(FaultPoint("snapshot.before_manifest"));
    FRESHET_TRY(WriteFileAtomically(directory + "/manifest.json", EncodeManifest(*manifest)));
    for (const std::string& folder : folders) {
      FRESHET_TRY(FaultPoint("snapshot.before_folder_sync"));
      FRESHET_TRY(SyncDirectory(directory + "/" + folder));
    }
    return SyncDirectory(directory);
  }

  Result<SnapshotFile> PutFile(const std::string& directory, const SnapshotManifest* newest,
                               const SnapshotSource& source, const std::function<Status(const SnapshotSource&)>& check,
                               const Throttle& throttle) const {
    const std::string path = directory + "/" + source.name;
    const SnapshotFile* known = newest == nullptr ? nullptr : newest->Find(source.name);
    if (source.stable && known != nullptr && IsSameFile(source.path, PathOf(newest->id) + "/" + source.name)) {
      FRESHET_ASSIGN(const bool linked, TryLink(source.path, path));
      if (linked) return *known;
    }
    if (check) FRESHET_TRY(check(source));
    FileSum sum;
    bool linked = false;
    if (source.stable) {
      FRESHET_ASSIGN(linked, TryLink(source.path, path));
    }
    if (linked) {
      FRESHET_TRY(FaultPoint("snapshot.before_file_sync"));
      FRESHET_TRY(SyncFile(path));
      FRESHET_ASSIGN(sum, SumOfFile(path, throttle));
    } else {
      FRESHET_ASSIGN(sum, CopyWithSum(source.path, path, throttle));
    }
    return SnapshotFile{source.name, sum.bytes, sum.xxh3};
  }

  const std::string root_;
};

}  // namespace

std::unique_ptr<SnapshotRepository> OpenLocalRepository(const std::string& directory) {
  return std::make_unique<LocalRepository>(directory);
}

Result<std::vector<std::string>> Prune(SnapshotRepository* repository, const Retention& retention, std::int64_t now_ms,
                                       bool dry_run) {
  FRESHET_ASSIGN(const std::vector<SnapshotEntry> entries, repository->List());
  const std::size_t max_count = std::max<std::size_t>(1, retention.max_count);
  std::vector<std::string> removed;
  std::set<std::string> shared;  // hashes that are counted already
  std::uint64_t bytes = 0;
  std::size_t good = 0;
  for (const SnapshotEntry& entry : entries) {
    const Status status = entry.status.ok() ? repository->CheckFiles(entry.manifest) : entry.status;
    if (!status.ok() && status.code() != Code::kCorruption) continue;
    const bool old =
        entry.status.ok() && retention.max_age_ms > 0 && now_ms - entry.manifest.created_ms > retention.max_age_ms;
    if (!status.ok()) {
      if (good >= max_count || (good > 0 && old)) removed.push_back(entry.id);
      continue;
    }
    for (const SnapshotFile& file : entry.manifest.files) {
      if (shared.insert(file.xxh3).second) bytes += file.bytes;
    }
    const bool large = retention.max_bytes > 0 && bytes > retention.max_bytes;
    if (++good > 1 && (good > max_count || old || large)) removed.push_back(entry.id);
  }
  std::reverse(removed.begin(), removed.end());
  if (dry_run) return removed;
  Status first;
  for (const std::string& id : removed) {
    const Status status = repository->Remove(id);
    if (first.ok()) first = status;
  }
  if (!first.ok()) return first;
  return removed;
}

}  // namespace freshet
