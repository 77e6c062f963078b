// The parts of a table file that RocksDB believes before it has checked them: the footer, which says how everything
// else is checked, and the properties, which it decodes first and compares with their checksum afterwards (7.8,
// table/meta_blocks.cc).
#pragma once

#include <cstdint>
#include <string>

#include "freshet/core/status.h"

namespace freshet {

// What our tables are written with; other values in a footer are not ours.
inline constexpr std::uint32_t kTableFormatVersion = 5;
inline constexpr std::uint8_t kTableChecksum = 4;  // XXH3

// Looks at these in every table of a RocksDB directory, before RocksDB does: it would believe a damaged footer, read
// blocks without their checksums or in another form, and abort the process over what it finds then, or over a bit of
// the properties (an assertion). Two to four reads a table. What is no whole table is left to RocksDB. Errors:
// kCorruption (which file), kIoError.
Status CheckTables(const std::string& directory);
Status CheckTableFile(const std::string& path);  // the same of one

}  // namespace freshet
