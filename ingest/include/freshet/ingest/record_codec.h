// Features and attributes as bytes: the same form in store rows and in changelog records.
//
// Format (little-endian, version in the enclosing record): u32 count, then per entry: string name (u32 length, bytes),
// u8 type, value. Types of features: 1 f64, 2 string, 3 u32 count + strings. Of attributes: 1 u8 bool, 2 i64, 3 f64,
// 4 string, 5 u32 count + strings. Readers validate every byte: unknown types, unsorted names and counts beyond the
// input fail the reader. Thread-safe.
#pragma once

#include <string>

#include "freshet/core/bytes.h"
#include "freshet/ingest/event.h"

namespace freshet {

void PutFeatures(const Features& features, ByteWriter* out);
[[nodiscard]] Features GetFeatures(ByteReader* in);  // empty after a failure; check in->ok()
void PutAttributes(const Attributes& attributes, ByteWriter* out);
[[nodiscard]] Attributes GetAttributes(ByteReader* in);

// XXH3 of that form, never 0: equal content has equal hashes, and is compared by them.
[[nodiscard]] std::uint64_t HashOf(const Features& features);
[[nodiscard]] std::uint64_t HashOf(const Attributes& attributes);

// As JSON members: {"title": "x", ...}.
[[nodiscard]] std::string FeaturesToJson(const Features& features);
[[nodiscard]] std::string AttributesToJson(const Attributes& attributes);

}  // namespace freshet
