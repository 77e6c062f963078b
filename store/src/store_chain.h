// The chain of commits: how a store knows that no commit in its middle is gone.
//
// RocksDB takes a log of changes of files (MANIFEST) that ends early for one that was torn, and a write-ahead log that
// is not there for one that was flushed. Both may lose what was acknowledged years ago under what was written a second
// ago, and say nothing. So each commit leaves a link (number before, own number) in each column family that it writes
// to, as a merge operand; links that do not meet merge into one that names the gap. One row a family, and the state
// knows the last number of each: checked when the store is opened. Each family has numbers of its own, because where
// nothing is written nothing has to be flushed (RocksDB flushes the oldest memtable first, however small it is).
//
// Place in the flow: private to store/src/store*.cc. Thread-safe.
#pragma once

#include <rocksdb/merge_operator.h>
#include <rocksdb/slice.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "freshet/core/status.h"

namespace freshet {

// Above every row: ids are UTF-8, which has no such byte, and numbers are below 2^63.
inline constexpr char kChainKey[] =
    "\xff"
    "chain";
// The upper bound of a walk through the rows.
[[nodiscard]] const rocksdb::Slice* RowsEnd();

// The operand of a family's commit `number`, the first of which is 1. Where a chain begins: EncodeLink(0), as a value.
[[nodiscard]] std::string EncodeLink(std::uint64_t number);
// The number of the last commit of a whole chain. Errors: kCorruption, with the first commit that is missing.
[[nodiscard]] Result<std::uint64_t> DecodeChain(std::string_view bytes);
[[nodiscard]] std::shared_ptr<rocksdb::MergeOperator> ChainOperator();

}  // namespace freshet
