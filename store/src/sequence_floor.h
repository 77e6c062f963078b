// How far numbers may have been given of each epoch, beyond what snapshots say.
//
// Place in the flow: private to the restore, which notes where a restored engine begins to number, in the data
// directory and in the repository, before the engine can publish anything. Without it a clock that was set back, or a
// new machine's, could have a later restore begin below that, and followers drop what is below. A small text file: a
// line `EPOCH SEQUENCE` for each of the newest epochs, then `xxh3` and the checksum of those lines. Replaced
// atomically; one process at a time writes. Errors: kCorruption, kResourceExhausted, kIoError.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "freshet/core/status.h"

namespace freshet {

using SequenceFloors = std::map<std::uint64_t, std::uint64_t>;  // epoch -> sequence

// Empty where there is no such file.
[[nodiscard]] Result<SequenceFloors> ReadSequenceFloors(const std::string& path);
// Never lowers one. What is damaged is begun anew.
Status RaiseSequenceFloor(const std::string& path, std::uint64_t epoch, std::uint64_t sequence);

}  // namespace freshet
