// The one part of a table file that RocksDB cannot check: its footer, which says how everything else is checked.
#pragma once

#include <cstdint>
#include <string>

#include "freshet/core/status.h"

namespace freshet {

// What our tables are written with; other values in a footer are not ours.
inline constexpr std::uint32_t kTableFormatVersion = 5;
inline constexpr std::uint8_t kTableChecksum = 4;  // XXH3

// Looks at the footer of every table of a RocksDB directory, before RocksDB does: it would believe a damaged one, read
// blocks without their checksums or in another form, and abort the process over what it finds then. What is no whole
// table is left to RocksDB. Errors: kCorruption (which file), kIoError.
Status CheckTableFooters(const std::string& directory);

}  // namespace freshet
