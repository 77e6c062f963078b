// Files and directories as snapshots need them: copied at a bounded rate with their checksum, linked where that is
// possible, synced, removed.
//
// Place in the flow: private to the snapshot repository, the snapshotter and the restore. Stateless. Errors: kNotFound,
// kCorruption (something that is no regular file), kIoError, kResourceExhausted (no space); the path is named.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/store/snapshot_repository.h"

namespace freshet {

// What a snapshot or a restore leaves free, beside what it takes.
inline constexpr std::uint64_t kSpareBytes = std::uint64_t{16} << 20;

struct FileSum {
  std::uint64_t bytes = 0;
  std::string xxh3;
};

// Reads a regular file, never through a symbolic link.
[[nodiscard]] Result<FileSum> SumOfFile(const std::string& path, const Throttle& throttle);
// `to` is not there before; it is synced. *of_source: whether an error is of reading `from`, not of writing `to`.
[[nodiscard]] Result<FileSum> CopyWithSum(const std::string& from, const std::string& to, const Throttle& throttle,
                                          bool* of_source = nullptr);
// A hard link where the file system allows; false where it does not (another device, no links there), and where it is
// not told why: copying then tells.
[[nodiscard]] Result<bool> TryLink(const std::string& from, const std::string& to);
[[nodiscard]] bool IsSameFile(const std::string& a, const std::string& b);
Status SyncFile(const std::string& path);
Status RenamePath(const std::string& from, const std::string& to);
// Files and directories; nothing there is fine.
Status RemoveTree(const std::string& path);
[[nodiscard]] Result<std::vector<std::string>> ListDirectory(const std::string& path);  // names, sorted
[[nodiscard]] std::uint64_t FreeBytes(const std::string& path);  // of its file system; all there is where unknown
[[nodiscard]] std::uint64_t TreeBytes(const std::string& path);
// Of a regular file, not through a symbolic link. Errors: kNotFound, kCorruption, kIoError.
[[nodiscard]] Result<std::uint64_t> FileBytes(const std::string& path);

}  // namespace freshet
