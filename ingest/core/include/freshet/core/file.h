// Whole files, read with a bound and replaced atomically. Thread-safe.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

// Errors: kNotFound; kResourceExhausted above max_bytes; kIoError.
[[nodiscard]] Result<std::string> ReadFile(const std::string& path, std::size_t max_bytes = std::size_t{1} << 30);

// Writes path.tmp, fsyncs, renames, fsyncs the directory: after a crash, the old content or the new, never a part.
// Errors: kResourceExhausted (a full disk), kNotFound (no such directory), kIoError; path is then unchanged.
Status WriteFileAtomically(const std::string& path, std::string_view content);

// Makes the names in a directory durable. Errors: kNotFound, kIoError.
Status SyncDirectory(const std::string& directory);
// Of the directory that a file is in.
Status SyncDirectoryOf(const std::string& path);

// Errors: kResourceExhausted, kIoError.
Status CreateDirectories(const std::string& path);
[[nodiscard]] bool FileExists(const std::string& path);

// Says that all of a file is going to be read soon, so that the disk is at work before it is. Only a hint.
void WillReadFile(const std::string& path);

// Calls `line` for each line of a text file, plain or zstd-compressed (by its magic number); '\n' and '\r\n' are
// stripped. Stops at the first status that is not ok and returns it. `fraction` (0..1 of the file's bytes read) serves
// progress. Errors: kNotFound; kCorruption for a damaged zstd frame or a line above 16 MiB; kIoError.
Status ForEachLine(const std::string& path, const std::function<Status(std::string_view line, double fraction)>& line);

}  // namespace freshet
